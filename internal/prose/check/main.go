// Command check finds phrases to avoid in all files that git knows, and fails where there is one that allowed.txt does not list.
package main

import (
	"bytes"
	_ "embed"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/chariot-giving/delta/internal/prose"
)

// Each line is a file, a colon, and words that its passage has: a quotation.
//
//go:embed allowed.txt
var allowed string

func main() {
	under := flag.String("under", "", "show findings of files below this folder only, and fail for nothing else")
	flag.Parse()
	if err := check(*under); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func check(under string) error {
	list, err := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").Output()
	if err != nil {
		return fmt.Errorf("git ls-files: %w", err)
	}
	exceptions := map[string]bool{} // whether each was needed
	for line := range strings.Lines(allowed) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			exceptions[line] = false
		}
	}
	counts, total := map[string]int{}, 0
	for name := range strings.SplitSeq(string(bytes.TrimRight(list, "\x00")), "\x00") {
		if !isRead(name) || !strings.HasPrefix(name, under) {
			continue
		}
		source, err := os.ReadFile(name)
		if os.IsNotExist(err) {
			continue // removed, and not committed yet
		}
		if err != nil {
			return err
		}
		for _, f := range prose.Find(name, source) {
			if isAllowed(f, exceptions) {
				continue
			}
			fmt.Println(f)
			counts[f.Rule]++
			total++
		}
	}
	if total > 0 {
		for _, rule := range prose.Rules {
			if n := counts[rule.Name]; n > 0 {
				fmt.Printf("%5d of %q: write %s\n", n, rule.Name, rule.Instead)
			}
		}
		return fmt.Errorf("%d phrases to avoid; a quotation goes into internal/prose/check/allowed.txt", total)
	}
	for line, needed := range exceptions {
		if !needed && under == "" {
			return fmt.Errorf("internal/prose/check/allowed.txt: nothing needs %q any more", line)
		}
	}
	return nil
}

// isAllowed reports whether an exception has words of the finding, and marks all exceptions that do as needed.
func isAllowed(f prose.Finding, exceptions map[string]bool) (allowed bool) {
	for line := range exceptions {
		file, words, _ := strings.Cut(line, ": ")
		if file == f.File && strings.Contains(f.Text, words) {
			exceptions[line] = true
			allowed = true
		}
	}
	return allowed
}

// isRead reports whether people read the file: neither generated, nor another's, nor data.
func isRead(name string) bool {
	switch filepath.Ext(name) {
	case ".go", ".md", ".sql", ".html", ".yaml", ".yml", ".sh":
	case "":
		if base := filepath.Base(name); base != "Makefile" && base != "Dockerfile" && filepath.Dir(name) != ".ci" {
			return false
		}
	default:
		return false
	}
	return !strings.HasSuffix(name, ".sql.go") && !strings.Contains(name, "testdata/") && !strings.HasPrefix(name, "internal/prose/")
}
