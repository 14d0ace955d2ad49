// Package frozen compares what a release promises with what is recorded of it in the folder api: see docs/compatibility.md. A file there has one line for
// each promise. So a line that is gone is a broken promise, and a new line is a new one, and a diff of a change shows both.
package frozen

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

var freeze = flag.Bool("freeze", false, "write the files of api, instead of comparing with them")

// Check compares the promises with those in a file of api. `make api` writes the file.
func Check(t *testing.T, file string, promises []string) {
	t.Helper()
	now := strings.Join(slices.Compact(slices.Sorted(slices.Values(promises))), "\n") + "\n"
	if *freeze {
		if err := os.WriteFile(file, []byte(now), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	recorded, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	if problem := describe(Compare(string(recorded), now)); problem != "" {
		t.Fatalf("%s: %s", strings.TrimLeft(file, "./"), problem)
	}
}

// Compare returns the lines that are in only one of two files.
func Compare(recorded, now string) (gone, added []string) {
	before, after := strings.Split(recorded, "\n"), strings.Split(now, "\n")
	known, left := map[string]bool{}, map[string]bool{}
	for _, line := range before {
		known[line] = true
	}
	for _, line := range after {
		left[line] = true
		if !known[line] {
			added = append(added, line)
		}
	}
	for _, line := range before {
		if !left[line] {
			gone = append(gone, line)
		}
	}
	return gone, added
}

func describe(gone, added []string) string {
	var b strings.Builder
	if len(gone) > 0 {
		fmt.Fprintf(&b, "\nIncompatible, because these lines are gone. After a release, a change of them needs a new major version:\n  - %s", strings.Join(gone, "\n  - "))
	}
	if len(added) > 0 {
		fmt.Fprintf(&b, "\nNot recorded. From the next release on, these lines are promises:\n  + %s", strings.Join(added, "\n  + "))
	}
	if b.Len() > 0 {
		b.WriteString("\nRecord the change with `make api`.")
	}
	return b.String()
}
