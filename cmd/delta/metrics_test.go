package main

import (
	"bufio"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta/deltatype"
)

func TestMetricsArePrintedOnce(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	r := i.run("metrics", "--once")
	require.Equal(t, exitUsage, r.code, "it has no flags for Temporal")
	once := func(url string, args ...string) result {
		return inProcess(t.Context(), streams{}, append([]string{"metrics", "--once", "--database-url", url}, args...)...)
	}
	c := i.startController(&pages{})
	i.inform(c, deltatype.ResourceStateDegraded, nil, "broken")
	// They are read once, within 5 s.
	require.Eventually(t, func() bool { r = once(i.DatabaseURL); return r.code == exitOK }, testTimeout, time.Millisecond, r.stderr)
	require.Empty(t, r.stderr)
	require.Contains(t, r.stdout, "# TYPE delta_work_attempts_total counter\n")
	require.Contains(t, r.stdout, "delta_database_up 1\n")
	require.Contains(t, r.stdout, "delta_resources{kind=\"page\",namespace=\"default\",state=\"degraded\"} 1\n")
	require.NotContains(t, r.stdout, "broken", "no id of an object")
	require.NotContains(t, once(i.DatabaseURL, "--count-every", "-1s").stdout, "delta_resources")

	empty := i.emptySchema()
	require.Eventually(t, func() bool { r = once(empty); return strings.Contains(r.stderr, "delta migrate up") }, testTimeout, time.Millisecond)
	require.Equal(t, exitUnreachable, r.code)
	require.Empty(t, r.stdout)
	require.Contains(t, r.stderr, "delta migrate up")
	require.Equal(t, exitUnreachable, once("postgres://127.0.0.1:1/x").code)
	r = once(i.DatabaseURL, "--count-every", "1s")
	require.Equal(t, exitUsage, r.code)
	require.Contains(t, r.stderr, "--count-every 1s: must be at least 15s, negative for never")
	r = inProcess(t.Context(), streams{}, "metrics", "--listen", "9464", "--database-url", i.DatabaseURL)
	require.Equal(t, exitUsage, r.code)
	require.Contains(t, r.stderr, `--listen "9464": it must be a host and a port`)
}

func TestMetricsAreServedUntilItIsTerminated(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	cmd := exec.Command(binary, "metrics", "--listen", "127.0.0.1:0", "--database-url", i.DatabaseURL)
	cmd.Env = append(os.Environ(), patientConnect)
	stderr, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	defer func() { _ = cmd.Process.Kill() }()
	lines := bufio.NewScanner(stderr)
	require.True(t, lines.Scan())
	found := regexp.MustCompile(`http://127\.0\.0\.1:\d+`).FindString(lines.Text())
	require.NotEmpty(t, found, lines.Text())
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	get := func(path string) (int, string) {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, found+path, nil)
		require.NoError(t, err)
		response, err := (&http.Client{Transport: transport}).Do(request)
		require.NoError(t, err)
		body, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		return response.StatusCode, string(body)
	}
	require.Eventually(t, func() bool { // a read waits at most five seconds for the database
		status, text := get("/metrics")
		return status == http.StatusOK && strings.Contains(text, "delta_database_up 1\n")
	}, testTimeout, 100*time.Millisecond)
	status, text := get("/healthz")
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, "ok\n", text)
	status, _ = get("/")
	require.Equal(t, http.StatusNotFound, status)
	transport.CloseIdleConnections()
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	for lines.Scan() {
		t.Log(lines.Text())
	}
	require.NoError(t, cmd.Wait(), "it ends well")
}
