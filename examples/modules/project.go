package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
)

// project is the watched go.mod. It is read again each time, so that an edit is noticed.
type project struct{ file string }

// findProject returns the named file, otherwise the go.mod of the directory or of its nearest parent.
func findProject(file, dir string) (project, error) {
	if file != "" {
		file, err := filepath.Abs(file)
		return project{file}, err
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return project{}, err
	}
	for at := dir; ; at = filepath.Dir(at) {
		file := filepath.Join(at, "go.mod")
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() {
			return project{file}, nil
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return project{}, err
		}
		if at == filepath.Dir(at) {
			return project{}, fmt.Errorf("no go.mod in %s, nor above it: name one with --modfile", dir)
		}
	}
}

// readModules returns the modules that the go.mod requires, sorted by path.
func (p project) readModules() ([]Module, error) {
	data, err := os.ReadFile(p.file)
	if err != nil {
		return nil, err
	}
	return parseModules(p.file, data)
}

// readModule returns the required module with a path, if there is one.
func (p project) readModule(path string) (m Module, listed bool, err error) {
	modules, err := p.readModules()
	if err != nil {
		return m, false, err
	}
	i, listed := slices.BinarySearchFunc(modules, path, func(m Module, path string) int {
		return strings.Compare(m.Path, path)
	})
	if listed {
		m = modules[i]
	}
	return m, listed, nil
}

func parseModules(name string, data []byte) ([]Module, error) {
	// ParseLax would not do: it is for the go.mod of dependencies, and ignores replacements.
	parsed, err := modfile.Parse(name, data, nil)
	if err != nil {
		return nil, err
	}
	byPath := map[string]Module{}
	for _, r := range parsed.Require {
		m := Module{Path: r.Mod.Path, Version: r.Mod.Version, Indirect: r.Indirect}
		if there, ok := byPath[m.Path]; ok {
			// Required twice: the go command builds with the higher version, which is needed directly if either is.
			m.Indirect = m.Indirect && there.Indirect
			if semver.Compare(there.Version, m.Version) > 0 {
				m.Version = there.Version
			}
		}
		byPath[m.Path] = m
	}
	modules := make([]Module, 0, len(byPath))
	for _, m := range byPath {
		m.Replacement = findReplacement(parsed.Replace, m)
		modules = append(modules, m)
	}
	slices.SortFunc(modules, func(a, b Module) int { return strings.Compare(a.Path, b.Path) })
	return modules, nil
}

// findReplacement returns the replacement of a module. A line for its version takes precedence over one for all versions.
func findReplacement(lines []*modfile.Replace, m Module) *Replacement {
	var found *Replacement
	for _, line := range lines {
		if line.Old.Path != m.Path || (line.Old.Version != "" && line.Old.Version != m.Version) {
			continue
		}
		if found == nil || line.Old.Version != "" {
			found = &Replacement{Path: line.New.Path, Version: line.New.Version}
		}
	}
	return found
}

// shortVersion shortens a version for a table: a pseudo-version to its date, and a release without +incompatible, which does not matter for a reader.
func shortVersion(version string) string {
	if at, err := module.PseudoVersionTime(version); err == nil {
		return "@" + at.Format(time.DateOnly)
	}
	return strings.TrimSuffix(version, "+incompatible")
}
