// Package browsertest drives a real browser in tests of pages.
package browsertest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// showTimeout is how long a page may take to show a text. A long one costs nothing if the page shows it.
const showTimeout = 2 * time.Minute

// Browser is a real Chromium, driven as the WebDriver specification says (https://www.w3.org/TR/webdriver2/).
type Browser struct {
	t       testing.TB
	session string
}

// New starts a browser, or skips the test if this machine has none: .ci/chromium installs it on Debian. Each call waits until the page has loaded.
func New(t testing.TB) *Browser {
	t.Helper()
	return startBrowser(t, "normal")
}

// NewImpatient starts a browser that does not wait until a page has loaded, for pages that the server sends bit by bit. Call Shows before anything else.
func NewImpatient(t testing.TB) *Browser {
	t.Helper()
	return startBrowser(t, "none")
}

func startBrowser(t testing.TB, pageLoadStrategy string) *Browser {
	t.Helper()
	driver, err := exec.LookPath("chromedriver")
	if err != nil {
		t.Skip("there is no chromedriver on this machine")
	}
	profile := newProfile(t)
	b := &Browser{t: t, session: "http://127.0.0.1:" + startDriver(t, driver)}

	var created struct {
		SessionID string `json:"sessionId"`
	}
	b.Call(http.MethodPost, "/session", map[string]any{"capabilities": map[string]any{"alwaysMatch": map[string]any{
		"pageLoadStrategy": pageLoadStrategy,
		"goog:chromeOptions": map[string]any{"args": []string{
			"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
			"--disable-component-update", "--disable-sync", "--hide-scrollbars", "--window-size=1400,1000", "--user-data-dir=" + profile,
		}},
	}}}, &created)
	b.session += "/session/" + created.SessionID
	t.Cleanup(func() { b.Call(http.MethodDelete, "", nil, nil) })
	return b
}

// startDriver starts chromedriver and returns its port. The driver chooses the port itself and prints it, because another process could take a port
// chosen here. It exits if the port is free for IPv4 but not for IPv6; then startDriver starts it again.
func startDriver(t testing.TB, driver string) (port string) {
	t.Helper()
	var said []string
	for range 5 {
		command := exec.CommandContext(context.Background(), driver, "--port=0")
		out, err := command.StdoutPipe()
		require.NoError(t, err)
		command.Stderr = command.Stdout
		require.NoError(t, command.Start())
		t.Cleanup(func() {
			_ = command.Process.Kill()
			_ = command.Wait()
		})
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if found := listeningLine.FindStringSubmatch(lines.Text()); found != nil {
				go func() { _, _ = io.Copy(io.Discard, out) }() // otherwise the driver would block on a full pipe
				return found[1]
			}
			said = append(said, lines.Text())
		}
	}
	require.Fail(t, "chromedriver exits without printing its port", strings.Join(said, "\n"))
	return ""
}

// listeningLine matches the line in which chromedriver prints its port.
var listeningLine = regexp.MustCompile(`started successfully on port (\d+)`)

// newProfile creates a profile directory. [testing.T.TempDir] would fail the test, because processes of the browser may still write into the
// directory for a moment after the browser has exited.
func newProfile(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "browsertest-*")
	require.NoError(t, err)
	t.Cleanup(func() {
		for end := time.Now().Add(showTimeout); os.RemoveAll(dir) != nil; time.Sleep(50 * time.Millisecond) {
			if time.Now().After(end) {
				t.Errorf("%s cannot be removed: processes of the browser still use it", dir)
				return
			}
		}
	})
	return dir
}

// Call sends a command and reads its value.
func (b *Browser) Call(method, path string, body, value any) {
	b.t.Helper()
	var encoded io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		require.NoError(b.t, err)
		encoded = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(context.Background(), method, b.session+path, encoded)
	require.NoError(b.t, err)
	response, err := http.DefaultClient.Do(request)
	require.NoError(b.t, err)
	defer response.Body.Close() //nolint:errcheck // it was read only
	answer, err := io.ReadAll(response.Body)
	require.NoError(b.t, err)
	require.Equal(b.t, http.StatusOK, response.StatusCode, "%s %s: %s", method, path, answer)
	if value != nil {
		var enveloped struct {
			Value json.RawMessage `json:"value"`
		}
		require.NoError(b.t, json.Unmarshal(answer, &enveloped))
		require.NoError(b.t, json.Unmarshal(enveloped.Value, value))
	}
}

// Open loads a page.
func (b *Browser) Open(address string) {
	b.t.Helper()
	b.Call(http.MethodPost, "/url", map[string]string{"url": address}, nil)
}

// Text returns the visible text of the page and its frames.
func (b *Browser) Text() (text string) {
	b.t.Helper()
	text = b.Execute("return document.body.innerText").(string)
	frames := b.Execute("return document.querySelectorAll('iframe').length").(float64)
	for i := range int(frames) {
		b.Call(http.MethodPost, "/frame", map[string]any{"id": i}, nil)
		text += "\n" + b.Execute("return document.body.innerText").(string)
		b.Call(http.MethodPost, "/frame", map[string]any{"id": nil}, nil)
	}
	return text
}

// Execute runs the body of a function on the page, and returns its result.
func (b *Browser) Execute(script string) (value any) {
	b.t.Helper()
	b.Call(http.MethodPost, "/execute/sync", map[string]any{"script": script, "args": []any{}}, &value)
	return value
}

// Shows waits until the page shows a text.
func (b *Browser) Shows(says string) {
	b.t.Helper()
	b.ShowsMatch(regexp.QuoteMeta(says))
}

// ShowsMatch waits until the page shows a text that matches a regular expression.
func (b *Browser) ShowsMatch(pattern string) {
	b.t.Helper()
	says := regexp.MustCompile(pattern)
	var text string
	for deadline := time.Now().Add(showTimeout); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if text = b.Text(); says.MatchString(text) {
			return
		}
	}
	picture := fmt.Sprintf("%s/page.png", os.TempDir())
	b.Picture(picture)
	b.t.Fatalf("the page does not say %q (see %s): %s", says, picture, text)
}

// Picture writes a screenshot into a file.
func (b *Browser) Picture(file string) {
	b.t.Helper()
	var encoded string
	b.Call(http.MethodGet, "/screenshot", nil, &encoded)
	png, err := base64.StdEncoding.DecodeString(encoded)
	require.NoError(b.t, err)
	require.NoError(b.t, os.WriteFile(file, png, 0o644))
}
