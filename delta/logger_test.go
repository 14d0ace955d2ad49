package delta

import (
	"bufio"
	"encoding/json"
	"log/slog"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// Not parallel: it replaces the standard output.
func TestTheDefaultLoggerWritesWarningsToStandardOutput(t *testing.T) {
	read, write, err := os.Pipe()
	require.NoError(t, err)
	stdout := os.Stdout
	os.Stdout = write
	log := defaultLogger()
	os.Stdout = stdout

	log.Info("quiet")
	log.Warn("loud", slog.String("kind", "user"))
	log.Error("bad")
	require.NoError(t, write.Close())

	lines := bufio.NewScanner(read)
	require.True(t, lines.Scan())
	var line map[string]any
	require.NoError(t, json.Unmarshal(lines.Bytes(), &line))
	require.Equal(t, "loud", line["msg"])
	require.Equal(t, "warn", line["level"])
	require.Equal(t, "user", line["kind"])
	require.True(t, lines.Scan())
	line = nil
	require.NoError(t, json.Unmarshal(lines.Bytes(), &line))
	require.Equal(t, "bad", line["msg"])
	require.NotContains(t, line, "stacktrace")
	require.False(t, lines.Scan(), "nothing below the level warn")
}
