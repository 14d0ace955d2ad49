package delta_test

import (
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

const ownProcess = "DELTA_TEST_OWN_PROCESS"

// inOwnProcess reports whether this process runs only this test. If not, it runs the test in a new process, beside other tests, and reports its
// result: the caller returns. It is for tests that count the goroutines of the whole process.
func inOwnProcess(t *testing.T) bool {
	t.Helper()
	if os.Getenv(ownProcess) == t.Name() {
		return true
	}
	t.Parallel()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=20m")
	cmd.Env = append(os.Environ(), ownProcess+"="+t.Name())
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "--- PASS: "+t.Name())
	return false
}
