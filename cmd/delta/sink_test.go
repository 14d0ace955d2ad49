//go:build unix

package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// stand writes a program that says where it is and with what it was called, and ends with exit code 7.
func stand(t *testing.T, folder, name string) {
	t.Helper()
	script := "#!/bin/sh\necho " + name + " \"$@\"\nexit 7\n"
	require.NoError(t, os.WriteFile(filepath.Join(folder, sinkProgram), []byte(script), 0o755))
}

func TestSinkExecutesItsProgram(t *testing.T) {
	t.Parallel()
	nowhere, path := t.TempDir(), t.TempDir()
	r := command(t, []string{"PATH=" + nowhere}, "sink", "run", "-f", "sink.yaml")
	require.Equal(t, exitFailure, r.code)
	require.Contains(t, r.stderr, "`make delta-sink` in a checkout")
	r = command(t, []string{"PATH=" + nowhere}, "sink", "--help")
	require.Equal(t, exitOK, r.code)
	require.Contains(t, r.stdout, "sink check -f FILE")

	stand(t, path, "on PATH")
	r = command(t, []string{"PATH=" + path}, "sink", "run", "-f", "a b", "--metrics", "x", "--help")
	require.Equal(t, 7, r.code, r.stderr)
	require.Equal(t, "on PATH run -f a b --metrics x --help\n", r.stdout)

	// One beside delta comes before.
	beside := t.TempDir()
	stand(t, beside, "beside")
	text, err := os.ReadFile(binary)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(beside, "delta"), text, 0o755))
	r = commandOf(t, filepath.Join(beside, "delta"), []string{"PATH=" + path}, "sink", "check")
	require.Equal(t, 7, r.code, r.stderr)
	require.Equal(t, "beside check\n", r.stdout)
}
