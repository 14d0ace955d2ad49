package testport

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/internal/flock"
)

// The test uses a separate folder, so that other processes that reserve ports do not affect it.
func TestAPortIsReservedOnce(t *testing.T) {
	dir := t.TempDir()
	taken := func(port int) bool {
		t.Helper()
		file, err := os.OpenFile(filepath.Join(dir, strconv.Itoa(port)), os.O_CREATE|os.O_RDWR, 0o600)
		require.NoError(t, err)
		defer func() { require.NoError(t, file.Close()) }()
		got, err := flock.Try(file)
		require.NoError(t, err)
		return !got
	}
	var first int
	t.Run("while the test runs", func(t *testing.T) {
		first = reservePort(t, dir)
		second := reservePort(t, dir)
		require.NotEqual(t, first, second, "nobody listens yet, and it is taken all the same")
		require.True(t, taken(first))
		require.True(t, taken(second))
		require.NotContains(t, []int{first, second}, reservePort(t, dir))
	})
	require.False(t, taken(first), "it is free again")
}

// A port is skipped if any process listens on it.
func TestAPortThatIsListenedOnIsNotFree(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.False(t, isFree(listener.Addr().(*net.TCPAddr).Port))
	require.NoError(t, listener.Close())
}
