//go:build unix

package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/internal/testprogram"
)

// writeProgram writes a program that prints its place and its arguments, and ends with exit code 7.
func writeProgram(t *testing.T, folder, name string) {
	t.Helper()
	script := "#!/bin/sh\necho " + name + " \"$@\"\nexit 7\n"
	testprogram.Write(t, filepath.Join(folder, sinkProgram), []byte(script))
}

func TestSinkExecutesItsProgram(t *testing.T) {
	t.Parallel()
	nowhere, path := t.TempDir(), t.TempDir()
	r := runBinary(t, []string{"PATH=" + nowhere}, "sink", "run", "-f", "sink.yaml")
	require.Equal(t, exitFailure, r.code)
	require.Contains(t, r.stderr, "`make delta-sink` in a checkout")
	r = runBinary(t, []string{"PATH=" + nowhere}, "sink", "--help")
	require.Equal(t, exitOK, r.code)
	require.Contains(t, r.stdout, "sink check -f FILE")

	writeProgram(t, path, "on PATH")
	r = runBinary(t, []string{"PATH=" + path}, "sink", "run", "-f", "a b", "--metrics", "x", "--help")
	require.Equal(t, 7, r.code, r.stderr)
	require.Equal(t, "on PATH run -f a b --metrics x --help\n", r.stdout)

	// The program beside delta takes precedence.
	beside := t.TempDir()
	writeProgram(t, beside, "beside")
	text, err := os.ReadFile(binary)
	require.NoError(t, err)
	testprogram.Write(t, filepath.Join(beside, "delta"), text)
	r = commandOf(t, filepath.Join(beside, "delta"), []string{"PATH=" + path}, "sink", "check")
	require.Equal(t, 7, r.code, r.stderr)
	require.Equal(t, "beside check\n", r.stdout)
}
