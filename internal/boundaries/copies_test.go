package boundaries

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// messagedb and migrations are leaves, which import nothing of this module: they have copies of what is about connections.
func TestCopiesInLeavesAreTheSame(t *testing.T) {
	t.Parallel()
	read := func(file string) string {
		text, err := os.ReadFile("../../" + file)
		require.NoError(t, err)
		line, rest, found := strings.Cut(string(text), "\n")
		require.True(t, found && strings.HasPrefix(line, "package "), file)
		return rest
	}
	for file, folders := range map[string][]string{
		"listen.go":  {"delta", "messagedb"},
		"process.go": {"delta", "messagedb", "migrations"},
		"pooler.go":  {"messagedb", "migrations"},
	} {
		for _, folder := range folders[1:] {
			require.Equal(t, read(folders[0]+"/"+file), read(folder+"/"+file))
		}
	}
}
