package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseModules(t *testing.T) {
	t.Parallel()
	got, err := parseModules("go.mod", []byte(`
module example.com/app

go 1.26

toolchain go1.26.1

require example.com/direct v1.2.0

require (
	example.com/b/v2 v2.0.1 // indirect
	example.com/commit v0.0.0-20240102030405-0123456789ab
	example.com/old v3.0.0+incompatible // indirect
	example.com/twice v1.0.0 // indirect
	example.com/twice v1.1.0
	example.com/forked v1.0.0
	example.com/pinned v1.0.0
	example.com/local v1.0.0
	example.com/other v1.0.0
)

replace (
	example.com/forked => example.com/fork v1.5.0
	example.com/pinned => example.com/general v1.0.0
	example.com/pinned v1.0.0 => example.com/exact v1.0.0
	example.com/local => ../local
	example.com/other v0.9.0 => example.com/not/for/this/version v1.0.0
	example.com/not/required => example.com/nor/this v1.0.0
)

exclude example.com/direct v1.1.0

tool example.com/direct/cmd/tool
`))
	require.NoError(t, err)
	require.Equal(t, []Module{
		{Path: "example.com/b/v2", Version: "v2.0.1", Indirect: true},
		{Path: "example.com/commit", Version: "v0.0.0-20240102030405-0123456789ab"},
		{Path: "example.com/direct", Version: "v1.2.0"},
		{Path: "example.com/forked", Version: "v1.0.0", Replacement: &Replacement{Path: "example.com/fork", Version: "v1.5.0"}},
		{Path: "example.com/local", Version: "v1.0.0", Replacement: &Replacement{Path: "../local"}},
		{Path: "example.com/old", Version: "v3.0.0+incompatible", Indirect: true},
		{Path: "example.com/other", Version: "v1.0.0"},
		{Path: "example.com/pinned", Version: "v1.0.0", Replacement: &Replacement{Path: "example.com/exact", Version: "v1.0.0"}},
		{Path: "example.com/twice", Version: "v1.1.0"},
	}, got)
}

func TestParseModulesRefuses(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"module m\nrequire example.com/a":         "go.mod:2: usage: require module/path v1.2.3",
		"module m\nrequire example.com/a main":    "go.mod:2",
		"module m\nrequire example.com/a/v2 v1.0": "go.mod:2",
		"nonsense": "go.mod:1: unknown directive: nonsense",
	} {
		_, err := parseModules("go.mod", []byte(text))
		require.ErrorContains(t, err, want, text)
	}
	got, err := parseModules("go.mod", []byte("module m\n"))
	require.NoError(t, err)
	require.Empty(t, got)
}

func TestFindProject(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	deep := filepath.Join(root, "a", "b")
	// A directory with that name is ignored.
	require.NoError(t, os.MkdirAll(filepath.Join(deep, "go.mod"), 0o750))
	_, err := findProject("", deep)
	require.ErrorContains(t, err, "no go.mod in "+deep+", nor above it: name one with --modfile")

	file := filepath.Join(root, "go.mod")
	require.NoError(t, os.WriteFile(file, []byte("module m\nrequire example.com/a v1.0.0\n"), 0o600))
	found, err := findProject("", deep)
	require.NoError(t, err)
	require.Equal(t, file, found.file)

	named, err := findProject(file, "/nowhere")
	require.NoError(t, err)
	m, listed, err := named.readModule("example.com/a")
	require.NoError(t, err)
	require.True(t, listed)
	require.Equal(t, "v1.0.0", m.Version)
	_, listed, err = named.readModule("example.com/b")
	require.NoError(t, err)
	require.False(t, listed)

	// The file is read again each time.
	require.NoError(t, os.Remove(file))
	_, _, err = named.readModule("example.com/a")
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestOwnProject(t *testing.T) {
	t.Parallel()
	found, err := findProject("", ".")
	require.NoError(t, err)
	m, listed, err := found.readModule("golang.org/x/mod")
	require.NoError(t, err)
	require.True(t, listed)
	require.False(t, m.Indirect)
}
