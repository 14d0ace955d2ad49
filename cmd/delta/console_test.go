package main

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta/deltatype"
)

// consoleProcess is a running `delta console`.
type consoleProcess struct {
	t       *testing.T
	cmd     *exec.Cmd
	address string
	client  *http.Client
	// addressLine is the printed line with the address.
	addressLine string
	// drained is closed when the process has ended, or closed its standard error. Then log has what it wrote there after the address.
	drained chan struct{}
	log     bytes.Buffer
}

func (i *installation) startConsole(env []string, args ...string) *consoleProcess {
	i.t.Helper()
	cmd := exec.Command(binary, i.appendServerFlags(append([]string{"console", "--listen", "127.0.0.1:0"}, args...)...)...)
	cmd.Env = append(append(os.Environ(), "DELTA_DATABASE_URL=", consoleTokenVariable+"=", patientConnect), env...)
	stderr, err := cmd.StderrPipe()
	require.NoError(i.t, err)
	require.NoError(i.t, cmd.Start())
	i.t.Cleanup(func() { _ = cmd.Process.Kill() })
	lines := bufio.NewScanner(stderr)
	require.True(i.t, lines.Scan())
	transport := &http.Transport{}
	i.t.Cleanup(transport.CloseIdleConnections)
	c := &consoleProcess{t: i.t, cmd: cmd, addressLine: lines.Text(), client: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}}
	c.address = regexp.MustCompile(`http://127\.0\.0\.1:\d+/`).FindString(strings.Replace(c.addressLine, "[::]", "127.0.0.1", 1))
	require.NotEmpty(i.t, c.address, c.addressLine)
	c.drained = make(chan struct{})
	go func() {
		defer close(c.drained)
		for lines.Scan() { // otherwise the process would block on a full pipe
			c.log.WriteString(lines.Text() + "\n")
		}
	}()
	return c
}

// get returns the status and the body of a page, once its first survey has ended and Postgres answers in time.
func (c *consoleProcess) get(path, authorization string) (status int, body string) {
	c.t.Helper()
	for end := time.Now().Add(testTimeout); ; {
		status, body = c.getOnce(path, authorization)
		isLate := strings.Contains(body, "The first survey of the installation takes longer") || strings.Contains(body, "(ReadTimeout)")
		if !isLate || time.Now().After(end) {
			return status, body
		}
	}
}

func (c *consoleProcess) getOnce(path, authorization string) (int, string) {
	c.t.Helper()
	request, err := http.NewRequestWithContext(c.t.Context(), http.MethodGet, c.address+path, nil)
	require.NoError(c.t, err)
	request.Header.Set("Authorization", authorization)
	response, err := c.client.Do(request)
	require.NoError(c.t, err)
	defer response.Body.Close() //nolint:errcheck // it was read only
	body, err := io.ReadAll(response.Body)
	require.NoError(c.t, err)
	return response.StatusCode, string(body)
}

// pauseKind posts the form of the page that pauses a kind.
func (c *consoleProcess) pauseKind(kind string) int {
	c.t.Helper()
	form := url.Values{"token": {"t"}, "command": {"pause-kind"}, "kind": {kind}}
	request, err := http.NewRequestWithContext(c.t.Context(), http.MethodPost, c.address+"kind-command", strings.NewReader(form.Encode()))
	require.NoError(c.t, err)
	for name, value := range map[string]string{
		"Content-Type": "application/x-www-form-urlencoded", "Cookie": "delta_console=t", "Origin": strings.TrimSuffix(c.address, "/"),
	} {
		request.Header.Set(name, value)
	}
	response, err := c.client.Do(request)
	require.NoError(c.t, err)
	require.NoError(c.t, response.Body.Close())
	return response.StatusCode
}

func (i *installation) isPaused(kind string) bool {
	i.t.Helper()
	kinds, err := i.newClient(nil).Kinds(i.t.Context())
	require.NoError(i.t, err)
	for _, k := range kinds {
		if k.Kind == kind {
			return k.Paused
		}
	}
	return false
}

func TestConsoleIsReadOnlyUnlessItIsToldOtherwise(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	i.inform(i.newClient(nil), deltatype.ResourceStateScheduled, nil, "a")
	reading := i.startConsole(nil)
	require.Contains(t, reading.addressLine, "read-only: --allow-commands")
	status, body := reading.get("", "")
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, body, `<a href="kind?kind=page">page</a>`)
	status, body = reading.get("kind?kind=page", "")
	require.Equal(t, http.StatusOK, status)
	require.NotContains(t, body, "<form")
	require.Contains(t, body, "This process has no controller of the kind")
	status, body = reading.get("doctor", "")
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, body, "at "+i.TemporalAddress+", namespace")
	require.Equal(t, http.StatusForbidden, reading.pauseKind("page"))
	require.False(t, i.isPaused("page"))

	acting := i.startConsole(nil, "--allow-commands")
	require.Contains(t, acting.addressLine, "users may give commands")
	_, body = acting.get("kind?kind=page", "")
	require.Contains(t, body, `value="pause-kind"`)
	require.Equal(t, http.StatusSeeOther, acting.pauseKind("page"))
	require.True(t, i.isPaused("page"))
	require.NoError(t, acting.cmd.Process.Signal(syscall.SIGTERM))
	<-acting.drained
	require.NoError(t, acting.cmd.Wait())
}

func TestConsoleAsksForItsToken(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	const token = "a secret of some length"
	file := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(file, []byte(token+"\n"), 0o600))
	for name, c := range map[string]*consoleProcess{
		"file":     i.startConsole([]string{consoleTokenVariable + "=another secret of some length"}, "--token-file", file),
		"variable": i.startConsole([]string{consoleTokenVariable + "=" + token}, "--listen", "0.0.0.0:0"),
	} {
		for authorization, want := range map[string]int{"": 401, "Bearer " + token: 200, "Bearer another secret of some length": 401} {
			status, _ := c.get("resources", authorization)
			require.Equal(t, want, status, "%s: %q", name, authorization)
		}
	}
}

func TestConsoleRefusesWhatAnybodyCouldReach(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	short := filepath.Join(t.TempDir(), "short")
	require.NoError(t, os.WriteFile(short, []byte("fifteen letters"), 0o600))
	for says, args := range map[string][]string{
		"anybody could reach it":      {"--listen", "0.0.0.0:0"},
		"must be a host and a port":   {"--listen", "8234"},
		"--token-file: open":          {"--token-file", short + "er"},
		"must have at least 16 bytes": {"--token-file", short},
		"it must look like http://lo": {"--temporal-ui", "localhost:8233"},
	} {
		r := runBinary(t, []string{consoleTokenVariable + "="}, i.appendServerFlags(append([]string{"console"}, args...)...)...)
		require.Equal(t, exitUsage, r.code, "%s%s", r.stdout, r.stderr)
		require.Contains(t, r.stderr, says)
		require.NotContains(t, r.stderr, "fifteen letters")
	}
}
