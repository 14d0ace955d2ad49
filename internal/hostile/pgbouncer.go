//go:build unix

package hostile

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/internal/testport"
)

// PgBouncer runs PgBouncer in transaction mode in front of the configuration's server, and returns the configuration to connect through it. prepared is
// the number of prepared statements for each client, and more are additional settings. A search_path of the configuration is set on each server
// connection, because clients cannot set it. The test is skipped if PgBouncer is not installed (apt-get install pgbouncer), or is too old for the test.
func PgBouncer(tb testing.TB, config *pgx.ConnConfig, prepared int, more ...string) *pgx.ConnConfig {
	tb.Helper()
	path := findPgBouncer(tb)
	settings, every := more, ""
	if path := config.RuntimeParams["search_path"]; path != "" {
		settings, every = append(settings, "ignore_startup_parameters=search_path"), " connect_query='SET search_path = "+strings.ReplaceAll(path, "'", "''")+"'"
	}
	if hasPrepared(tb, path) {
		settings = append(settings, "max_prepared_statements="+strconv.Itoa(prepared))
	} else if prepared > 0 {
		tb.Skip("prepared statements need PgBouncer 1.21")
	}
	folder, err := os.MkdirTemp("/tmp", "pgbouncer-*")
	require.NoError(tb, err)
	tb.Cleanup(func() { _ = os.RemoveAll(folder) })
	require.NoError(tb, os.Chmod(folder, 0o755))
	port := testport.Reserve(tb)
	users, file := filepath.Join(folder, "users"), filepath.Join(folder, "ini")
	lines := append([]string{
		"[databases]", fmt.Sprintf("* = host=%s port=%d%s", config.Host, config.Port, every), "[pgbouncer]", "listen_addr=127.0.0.1", "listen_port=" + strconv.Itoa(port),
		"unix_socket_dir=", "auth_type=trust", "auth_file=" + users, "pool_mode=transaction", "default_pool_size=" + strconv.Itoa(PgBouncerSize), "max_client_conn=200",
	}, settings...)
	require.NoError(tb, os.WriteFile(users, []byte(fmt.Sprintf("%q %q\n", config.User, config.Password)), 0o644))
	require.NoError(tb, os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o644))
	command := exec.Command(path, file)
	if os.Getuid() == 0 {
		nobody, err := user.Lookup("nobody")
		require.NoError(tb, err, "root may not run PgBouncer")
		uid, err := strconv.ParseUint(nobody.Uid, 10, 32)
		require.NoError(tb, err)
		command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	}
	log := &strings.Builder{}
	command.Stderr = log
	require.NoError(tb, command.Start())
	ended := make(chan struct{})
	go func() { _ = command.Wait(); close(ended) }()
	tb.Cleanup(func() {
		_ = command.Process.Signal(syscall.SIGINT)
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			_ = command.Process.Kill()
			<-ended
		}
	})
	through := config.Copy()
	through.Host, through.Port, through.Fallbacks = "127.0.0.1", uint16(port), nil
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		conn, err := pgx.ConnectConfig(tb.Context(), through)
		if err == nil {
			closeConn(conn)
			return through
		}
		select {
		case <-ended:
			require.FailNow(tb, "pgbouncer has ended", log.String())
		default:
			require.True(tb, time.Now().Before(end), "pgbouncer does not answer: %v", err)
		}
	}
}

func findPgBouncer(tb testing.TB) string {
	tb.Helper()
	if path, err := exec.LookPath("pgbouncer"); err == nil {
		return path
	}
	const path = "/usr/sbin/pgbouncer"
	if !isFile(path) {
		tb.Skip("there is no pgbouncer here: apt-get install pgbouncer")
	}
	return path
}

// hasPrepared reports whether PgBouncer is 1.21 or later.
func hasPrepared(tb testing.TB, path string) bool {
	tb.Helper()
	out, err := exec.Command(path, "--version").Output()
	require.NoError(tb, err)
	var major, minor int
	_, err = fmt.Sscanf(string(out), "PgBouncer %d.%d", &major, &minor)
	require.NoError(tb, err, "%s", out)
	return major > 1 || minor >= 21
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && !info.IsDir()
}
