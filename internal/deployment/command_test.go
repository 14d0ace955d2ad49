package deployment

import (
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// buildCommand builds a command of the repository once, and returns its path.
var buildCommand = sync.OnceValues(func() (string, error) { return build("cmd/delta") })

var folder string

func build(command string) (string, error) {
	binary := filepath.Join(folder, filepath.Base(command))
	_, err := exec.Command("go", "-C", root+command, "build", "-o", binary, ".").Output()
	return binary, err
}

// requireArguments sees that the command knows the subcommand and the flags: it refuses them also where it is asked for help.
func requireArguments(t *testing.T, where string, arguments []string) {
	t.Helper()
	require.NotEmpty(t, arguments, where)
	binary, err := buildCommand()
	require.NoError(t, err)
	help, err := exec.CommandContext(t.Context(), binary, append(slices.Clone(arguments), "--help")...).CombinedOutput()
	require.NoError(t, err, "%s: %s", where, help)
	require.Contains(t, string(help), "delta "+arguments[0], where)
}
