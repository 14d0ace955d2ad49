// Package testprogram writes programs that tests execute.
package testprogram

import (
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// Write writes an executable file. While it is open, this process starts no other, which would have the file open, too, until it executes its
// own program: executing the file would fail until then, with "text file busy".
func Write(tb testing.TB, path string, text []byte) {
	tb.Helper()
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	require.NoError(tb, os.WriteFile(path, text, 0o755))
}
