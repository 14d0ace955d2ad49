package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

func TestEachConnectionReadsItsPassword(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "password")
	for name, f := range map[string]*streamFlags{"file": {passwordFile: file}, "command": {passwordCommand: "cat '" + file + "'"}} {
		credentials := f.credentials()
		for _, password := range []string{"first", "second with a space"} {
			require.NoError(t, os.WriteFile(file, []byte(password+"\n"), 0o600))
			config := &pgx.ConnConfig{}
			require.NoError(t, credentials(t.Context(), config), name)
			require.Equal(t, password, config.Password, name)
		}
		for _, wrong := range []string{"", "one\ntwo\n"} {
			require.NoError(t, os.WriteFile(file, []byte(wrong), 0o600))
			err := credentials(t.Context(), &pgx.ConnConfig{})
			require.ErrorContains(t, err, "--password-"+name)
			require.NotContains(t, err.Error(), "two")
		}
		require.NoError(t, os.Remove(file))
		require.ErrorContains(t, credentials(t.Context(), &pgx.ConnConfig{}), "such file or directory")
	}
	require.ErrorContains(t, (&streamFlags{passwordCommand: "echo no login >&2; exit 3"}).credentials()(t.Context(), &pgx.ConnConfig{}), "no login")
	require.Nil(t, (&streamFlags{}).credentials())
}
