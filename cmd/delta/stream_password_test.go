//go:build unix

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

func TestEachConnectionReadsItsPassword(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "password")
	for name, f := range map[string]*streamFlags{"file": {passwordFile: file}, "command": {passwordCommand: "cat '" + file + "'"}} {
		credentials := f.newPasswordHook()
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
	require.ErrorContains(t, (&streamFlags{passwordCommand: "echo no login >&2; exit 3"}).newPasswordHook()(t.Context(), &pgx.ConnConfig{}), "no login")
	require.Nil(t, (&streamFlags{}).newPasswordHook())
}

// The command may start a child, such as an agent, that keeps its output open. That must not block new connections.
func TestAPasswordCommandWhoseChildStaysIsGivenUp(t *testing.T) {
	t.Parallel()
	pipe := filepath.Join(t.TempDir(), "pipe")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	asked := make(chan error, 1)
	go func() {
		_, err := runPasswordCommand(t.Context(), "cat '"+pipe+"' & echo secret")
		asked <- err
	}()
	defer func() { // the child ends when the pipe has been opened
		file, err := os.OpenFile(pipe, os.O_RDWR, 0)
		require.NoError(t, err)
		require.NoError(t, file.Close())
	}()
	select {
	case err := <-asked:
		require.ErrorIs(t, err, exec.ErrWaitDelay)
		require.ErrorContains(t, err, "--password-command")
		require.NotContains(t, err.Error(), "secret")
	case <-time.After(time.Minute):
		require.Fail(t, "it waits for the child")
	}
}
