// Package testprogram writes programs that tests execute.
package testprogram

import (
	"bytes"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

// Write writes an executable file. Another process does it, so that this one never has the file open: a process that a parallel test starts would
// have it open, too, until it executes its own program, and executing the file would fail with "text file busy".
func Write(tb testing.TB, path string, text []byte) {
	tb.Helper()
	write := exec.Command("/bin/sh", "-c", `cat > "$1" && chmod 755 "$1"`, "sh", path)
	write.Env = []string{"PATH=/usr/bin:/bin"} // the test may have set another
	write.Stdin = bytes.NewReader(text)
	said, err := write.CombinedOutput()
	require.NoError(tb, err, "%s", said)
}
