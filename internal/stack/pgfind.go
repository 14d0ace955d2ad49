package stack

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// binaries is an installation of Postgres.
type binaries struct {
	dir     string
	version string // "15.14"
	major   int
}

func (b binaries) toolPath(name string) string { return filepath.Join(b.dir, name) }

// finder looks for Postgres installations. Tests set its fields to simulate a machine.
type finder struct {
	root string // "" for the real file system
	path string // the value of PATH
}

// newestFirst has the patterns under which package managers keep several versions.
var newestFirst = []string{
	"/usr/lib/postgresql/*/bin",                                  // Debian, Ubuntu
	"/usr/pgsql-*/bin",                                           // the PostgreSQL project's RPMs
	"/opt/homebrew/opt/postgresql@*/bin",                         // Homebrew on Apple silicon
	"/usr/local/opt/postgresql@*/bin",                            // Homebrew on Intel
	"/home/linuxbrew/.linuxbrew/opt/postgresql@*/bin",            // Homebrew on Linux
	"/Applications/Postgres.app/Contents/Versions/[0-9]*/bin",    // Postgres.app
	"/opt/local/lib/postgresql*/bin", "/usr/libexec/postgresql*", // MacPorts, Alpine
}

// findAll returns the usable installations in the order of preference: the one on PATH, the one that pg_config on PATH names, and those of package
// managers, the newest version first. unusable has an error for each installation that cannot be used.
func (f finder) findAll() (usable []binaries, unusable []error) {
	seen := map[string]bool{}
	add := func(dir string) {
		if dir == "" {
			return
		}
		dir = resolveLinks(dir)
		if seen[dir] {
			return
		}
		seen[dir] = true
		found, err := inspectBinaries(dir)
		switch {
		case errors.Is(err, os.ErrNotExist): // nothing there
		case err != nil:
			unusable = append(unusable, err)
		default:
			usable = append(usable, found)
		}
	}
	add(filepath.Dir(f.onPath("postgres")))
	if config := f.onPath("pg_config"); config != "" {
		if out, err := exec.Command(config, "--bindir").Output(); err == nil {
			add(strings.TrimSpace(string(out)))
		}
	}
	for _, pattern := range newestFirst {
		dirs, _ := filepath.Glob(filepath.Join(f.root, pattern))
		slices.SortStableFunc(dirs, func(a, b string) int { return versionInPath(b) - versionInPath(a) })
		for _, dir := range dirs {
			add(dir)
		}
	}
	return usable, unusable
}

// onPath finds an executable on f.path, or returns "".
func (f finder) onPath(name string) string {
	for _, dir := range filepath.SplitList(f.path) {
		if !filepath.IsAbs(dir) {
			continue
		}
		path := filepath.Join(dir, name)
		if isExecutable(path) {
			return path
		}
	}
	return ""
}

func isExecutable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0
}

// resolveLinks follows the links of a directory of binaries. Homebrew's bin has links to the directory from which initdb finds its share directory.
func resolveLinks(dir string) string {
	if dir == "." {
		return ""
	}
	if real, err := filepath.EvalSymlinks(filepath.Join(dir, "postgres")); err == nil {
		return filepath.Dir(real)
	}
	return dir
}

var digits = regexp.MustCompile(`\d+`)

func versionInPath(path string) int {
	for _, part := range []string{filepath.Base(filepath.Dir(path)), filepath.Base(path)} {
		if n, err := strconv.Atoi(digits.FindString(part)); err == nil {
			return n
		}
	}
	return 0
}

// inspectBinaries reads the version of an installation. The error is os.ErrNotExist if there is none in dir, and another one if it is not usable.
func inspectBinaries(dir string) (binaries, error) {
	postgres := filepath.Join(dir, "postgres")
	if !isExecutable(postgres) {
		return binaries{}, os.ErrNotExist
	}
	if !isExecutable(filepath.Join(dir, "initdb")) {
		return binaries{}, fmt.Errorf("%s has a postgres, but no initdb", dir)
	}
	out, err := exec.Command(postgres, "--version").Output()
	if err != nil {
		return binaries{}, fmt.Errorf("%s --version: %w", postgres, err)
	}
	version, major, err := parseVersion(string(out))
	if err != nil {
		return binaries{}, fmt.Errorf("%s --version: %w", postgres, err)
	}
	if major < minimalMajor {
		return binaries{}, fmt.Errorf("%s is version %s, Delta needs %d or later", postgres, version, minimalMajor)
	}
	return binaries{dir: dir, version: version, major: major}, nil
}

var versionPattern = regexp.MustCompile(`\(PostgreSQL\)\s+((\d+)\S*)`)

// parseVersion reads the output of postgres --version, such as
// "postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)" or "… 18beta1".
func parseVersion(output string) (version string, major int, err error) {
	m := versionPattern.FindStringSubmatch(output)
	if m == nil {
		return "", 0, fmt.Errorf("%q names no version of PostgreSQL", strings.TrimSpace(output))
	}
	major, err = strconv.Atoi(m[2])
	return m[1], major, err
}

// dataMajor returns the major version that created a data directory; 0 if there is none.
func dataMajor(dataDir string) (int, error) {
	entries, err := os.ReadDir(dataDir)
	if errors.Is(err, os.ErrNotExist) || err == nil && len(entries) == 0 {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	b, err := os.ReadFile(filepath.Join(dataDir, "PG_VERSION"))
	if err == nil {
		if major, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
			return major, nil
		}
		err = fmt.Errorf("PG_VERSION says %q", strings.TrimSpace(string(b)))
	}
	return 0, fmt.Errorf("%s exists, but is no Postgres data directory (%w): move it away and start again", dataDir, err)
}

// pickBinaries chooses one of the installations. Only the version that created the data can open it. It returns false if none can.
func pickBinaries(found []binaries, data int) (binaries, bool) {
	for _, b := range found {
		if data == 0 || b.major == data {
			return b, true
		}
	}
	return binaries{}, false
}
