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

// project is the go.mod whose dependencies are watched. It is read anew each time, so an edit is noticed.
type project struct{ file string }

// findProject uses the named file, or else the go.mod of the directory or the nearest one above it.
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

// modules returns what the go.mod requires, sorted by path.
func (p project) modules() ([]Module, error) {
	data, err := os.ReadFile(p.file)
	if err != nil {
		return nil, err
	}
	return parseModules(p.file, data)
}

// module returns what the go.mod requires of a path, if it does.
func (p project) module(path string) (m Module, listed bool, err error) {
	modules, err := p.modules()
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
	// Not ParseLax: it is for the go.mod of dependencies, and passes over replacements.
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
		m.Replacement = replacement(parsed.Replace, m)
		modules = append(modules, m)
	}
	slices.SortFunc(modules, func(a, b Module) int { return strings.Compare(a.Path, b.Path) })
	return modules, nil
}

// replacement is what a module is replaced with: a line for its very version goes before one for all of them.
func replacement(lines []*modfile.Replace, m Module) *Replacement {
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

// shortVersion makes a version fit into a table: of a commit the date tells a reader something, and that a release is
// +incompatible does not tell how far behind it is.
func shortVersion(version string) string {
	if at, err := module.PseudoVersionTime(version); err == nil {
		return "@" + at.Format(time.DateOnly)
	}
	return strings.TrimSuffix(version, "+incompatible")
}
