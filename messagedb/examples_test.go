package messagedb_test

import (
	"io"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// The examples are programs that need a database, so they are run from here.
func TestTheExamplesDoWhatTheySay(t *testing.T) {
	s := newStore(t)
	t.Setenv("DATABASE_URL", databaseURL(s.config.ConnConfig))
	for _, example := range []struct {
		name string
		run  func()
		want string
	}{
		{"client", Example, "written up to position 1\nconflict: true 1\nbalance: 40\n"},
		{"consumer", ExampleConsumer, "opening the account of ann\nposition saved in account:command+position-opener+0+1\n"},
		{"entity", ExampleEntity, "withdrew 70\nonly 30 at version 1\n"},
		{"projector", ExampleProjector, "ann has ordered for 40\n"},
		{"subscription", ExampleClient_SubscribeToCategory, "Registered in user-1\ndropped: <nil>\n"},
	} {
		require.Equal(t, example.want, capturePrinted(t, example.run), example.name)
	}
}

// capturePrinted runs a function and returns what it prints.
func capturePrinted(t *testing.T, run func()) string {
	t.Helper()
	reader, writer, err := os.Pipe()
	require.NoError(t, err)
	stdout := os.Stdout
	os.Stdout = writer
	run()
	os.Stdout = stdout
	require.NoError(t, writer.Close())
	text, err := io.ReadAll(reader)
	require.NoError(t, err)
	require.NoError(t, reader.Close())
	return string(text)
}
