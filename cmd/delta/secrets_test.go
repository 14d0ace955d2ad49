package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// planted is a secret that no output may have.
const planted = "pl4nted"

// No error of a connection string shows its password, however it is misspelled.
func TestNoErrorShowsThePasswordOfTheDatabase(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	there := i.Pool.Config().ConnConfig
	wrong := strings.Replace(i.DatabaseURL, ":"+there.Password+"@", ":"+planted+"@", 1)
	require.Contains(t, wrong, planted)
	for _, address := range []string{
		wrong, // Postgres refuses it
		"postgres://u:" + planted + "@127.0.0.1:1/x",
		"postgres://u:" + planted + "@127.0.0.1:x/x",
		"postgres://u:" + planted + "@[::1/x",
		"postgres://u:" + planted + "%zz@127.0.0.1/x",
		"postgres://u:%zz" + planted + "@127.0.0.1/x",
		"postgres://u:a b" + planted + "@127.0.0.1:x/x",
		"postgres://u:a#" + planted + "@127.0.0.1:1/x",
		"postgres://u:a/" + planted + "@127.0.0.1:1/x",
		"postgres://u:a?" + planted + "@127.0.0.1:1/x",
		"postgres://u:a@" + planted + "@127.0.0.1:x/x",
		"postgres://u:" + planted + "@127.0.0.1/x?sslmode=wrong",
		"postgres://u@127.0.0.1:1/x?password=" + planted,
		"postgres://u@127.0.0.1:1/x?sslmode=wrong&password=" + planted,
		"postgres://u@127.0.0.1:1/x?sslpassword=" + planted + "&sslmode=wrong",
		"postgres://u:" + planted + "@127.0.0.1/x?pool_max_conns=many",
		"postgres:/u:" + planted + "@127.0.0.1/x",
		"postgresql:u:" + planted + "@127.0.0.1/x",
		"u:" + planted + "@127.0.0.1/x",
		"host=127.0.0.1 port=x password=" + planted,
		"host=127.0.0.1 port=1 password=" + planted,
		"host=127.0.0.1 sslmode=wrong password='" + planted + "'",
		"host=127.0.0.1 sslmode=wrong password = " + planted,
		"host=127.0.0.1 sslmode=wrong password='a " + planted,
		`host=127.0.0.1 sslmode=wrong password='a\' ` + planted + "'",
		"password=" + planted + " host",
		"host=127.0.0.1 pool_max_conns=many password=" + planted,
	} {
		for _, args := range [][]string{{"resources", "list"}, {"migrate", "up"}, {"doctor"}, {"stream", "--listen", "127.0.0.1:0"}, {"metrics", "--once"}} {
			r := inProcess(t.Context(), streams{}, append(args, "--database-url", address)...)
			require.NotZero(t, r.code, "%s %v", address, args)
			require.NotContains(t, r.stdout+r.stderr, planted, "%s %v", address, args)
		}
	}
}

// Tokens and their files are in no output, even if they are refused.
func TestNoErrorShowsAToken(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	dir := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		return file
	}
	for _, args := range [][]string{
		{"console", "--token-file", write("short", planted)},
		{"console", "--token-file", write("lines", planted+"\n"+planted+planted+planted)},
		{"stream", "--token", planted},
		{"stream", "--token-file", write("tokens", planted+" "+planted+"\n")},
		{"stream", "--password-command", "echo " + planted + "; exit 1", "--token", planted + planted + planted},
	} {
		r := inProcess(t.Context(), streams{}, append(args, "--listen", "127.0.0.1:0", "--database-url", i.DatabaseURL)...)
		require.NotZero(t, r.code, "%v", args)
		require.NotContains(t, r.stdout+r.stderr, planted, "%v", args)
	}
	token := planted + "-of-the-console"
	console := i.startConsole([]string{consoleTokenVariable + "=" + token}, "--allow-commands")
	for _, authorization := range []string{"Bearer " + token, "Bearer " + planted + "-guess-of-somebody"} {
		_, text := console.get("resource?kind=page&id=none", authorization)
		require.NotContains(t, text, planted)
	}
	require.NoError(t, console.cmd.Process.Signal(os.Interrupt))
	<-console.drained
	require.NotContains(t, console.addressLine+console.log.String(), planted)
}
