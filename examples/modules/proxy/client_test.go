package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// server answers from a map of paths; other paths do not exist. A value that begins with a status code is an error.
type server struct {
	*httptest.Server
	mu    sync.Mutex
	asked []string
}

func startServer(t *testing.T, answers map[string]string) *server {
	t.Helper()
	s := &server{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.asked = append(s.asked, r.URL.Path)
		s.mu.Unlock()
		body, ok := answers[r.URL.Path]
		if !ok {
			body, ok = answers["*"]
		}
		var code int
		switch n, _ := fmt.Sscanf(body, "%d", &code); {
		case !ok:
			http.Error(w, "not found: no such thing", http.StatusNotFound)
		case n == 1:
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			w.WriteHeader(code)
			_, _ = w.Write([]byte(strings.TrimSpace(strings.TrimPrefix(body, fmt.Sprint(code)))))
		default:
			_, _ = w.Write([]byte(body))
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *server) requestedPaths() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

func newClient(t *testing.T, settings Settings) *Client {
	t.Helper()
	c, err := NewClient(settings, 10_000)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

func infoJSON(version, at string) string { return fmt.Sprintf(`{"Version":%q,"Time":%q}`, version, at) }

const (
	modPath = "example.com/m"
	base    = "/" + modPath + "/"
	jan     = "2024-01-01T00:00:00Z"
	mar     = "2024-03-01T00:00:00Z"
	may     = "2024-05-01T00:00:00Z"
	commit1 = "v0.0.0-20240101000000-0123456789ab"
	commit2 = "v0.0.0-20240301000000-0123456789ab"
)

func parseTime(s string) time.Time {
	parsed, err := time.Parse(time.RFC3339, s)
	if err != nil {
		panic(err)
	}
	return parsed
}

func TestAsk(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		answers map[string]string
		path    string
		has     string
		want    Answer
		asked   []string
	}{
		{
			name:    "up to date takes one request",
			answers: map[string]string{base + "@latest": infoJSON("v1.0.0", jan)},
			has:     "v1.0.0",
			want:    Answer{Latest: Version{"v1.0.0", parseTime(jan)}, Current: Version{Version: "v1.0.0"}},
			asked:   []string{base + "@latest"},
		},
		{
			name: "behind",
			answers: map[string]string{
				base + "@latest":        infoJSON("v1.2.0", may),
				base + "@v/list":        "v1.2.0\nv1.0.0\nv1.1.0\nv1.3.0-rc.1\n",
				base + "@v/v1.0.0.info": infoJSON("v1.0.0", jan),
			},
			has:  "v1.0.0",
			want: Answer{Latest: Version{"v1.2.0", parseTime(may)}, Current: Version{"v1.0.0", parseTime(jan)}, Newer: 2},
		},
		{
			name: "no @latest: the list, a release before a prerelease",
			answers: map[string]string{
				base + "@v/list":        "v1.0.0\nv1.1.0\nv1.2.0-rc.1\n",
				base + "@v/v1.1.0.info": infoJSON("v1.1.0", mar),
				base + "@v/v1.0.0.info": infoJSON("v1.0.0", jan),
			},
			has:  "v1.0.0",
			want: Answer{Latest: Version{"v1.1.0", parseTime(mar)}, Current: Version{"v1.0.0", parseTime(jan)}, Newer: 1},
		},
		{
			name: "@latest is gone for good, which is the same",
			answers: map[string]string{
				base + "@latest":        "410 gone",
				base + "@v/list":        "v1.0.0\n",
				base + "@v/v1.0.0.info": infoJSON("v1.0.0", jan),
			},
			has:  "v1.0.0",
			want: Answer{Latest: Version{"v1.0.0", parseTime(jan)}, Current: Version{Version: "v1.0.0"}},
		},
		{
			name: "@latest is a prerelease, but there is a release",
			answers: map[string]string{
				base + "@latest":        infoJSON("v2.0.0-beta", may),
				base + "@v/list":        "v2.0.0-beta\nv1.5.0\n",
				base + "@v/v1.5.0.info": infoJSON("v1.5.0", mar),
			},
			has:  "v2.0.0-beta",
			want: Answer{Latest: Version{"v1.5.0", parseTime(mar)}, Current: Version{Version: "v2.0.0-beta"}},
		},
		{
			name: "prereleases only: they count",
			answers: map[string]string{
				base + "@v/list":               "v1.0.0-alpha\nv1.0.0-beta\nv1.0.0-rc.1\n",
				base + "@v/v1.0.0-rc.1.info":   infoJSON("v1.0.0-rc.1", mar),
				base + "@v/v1.0.0-alpha.info":  infoJSON("v1.0.0-alpha", jan),
				base + "@v/v1.0.0-beta.1.info": "500",
			},
			has:  "v1.0.0-alpha",
			want: Answer{Latest: Version{"v1.0.0-rc.1", parseTime(mar)}, Current: Version{"v1.0.0-alpha", parseTime(jan)}, Newer: 2},
		},
		{
			name:    "commits only: dates are in the versions",
			answers: map[string]string{base + "@latest": infoJSON(commit2, mar), base + "@v/list": ""},
			has:     commit1,
			want:    Answer{Latest: Version{commit2, parseTime(mar)}, Current: Version{commit1, parseTime(jan)}},
		},
		{
			name:    "commits in the list of a proxy without @latest",
			answers: map[string]string{base + "@v/list": commit1 + "\n" + commit2 + "\n"},
			has:     commit1,
			want:    Answer{Latest: Version{commit2, parseTime(mar)}, Current: Version{commit1, parseTime(jan)}},
		},
		{
			name:    "a listed commit does not beat @latest",
			answers: map[string]string{base + "@latest": infoJSON(commit1, jan), base + "@v/list": commit2},
			has:     commit1,
			want:    Answer{Latest: Version{commit1, parseTime(jan)}, Current: Version{Version: commit1}},
		},
		{
			name: "+incompatible",
			answers: map[string]string{
				base + "@latest":                     infoJSON("v3.0.0+incompatible", may),
				base + "@v/list":                     "v2.0.0+incompatible\nv2.1.0+incompatible\nv3.0.0+incompatible\n",
				base + "@v/v2.0.0+incompatible.info": infoJSON("v2.0.0+incompatible", jan),
			},
			has:  "v2.0.0+incompatible",
			want: Answer{Latest: Version{"v3.0.0+incompatible", parseTime(may)}, Current: Version{"v2.0.0+incompatible", parseTime(jan)}, Newer: 2},
		},
		{
			name: "capital letters are escaped, in paths and versions",
			answers: map[string]string{
				"/github.com/!burnt!sushi/toml/@latest":             infoJSON("v1.1.0", mar),
				"/github.com/!burnt!sushi/toml/@v/list":             "v1.0.0-RC\nv1.1.0\n",
				"/github.com/!burnt!sushi/toml/@v/v1.0.0-!r!c.info": infoJSON("v1.0.0-RC", jan),
			},
			path: "github.com/BurntSushi/toml",
			has:  "v1.0.0-RC",
			want: Answer{Latest: Version{"v1.1.0", parseTime(mar)}, Current: Version{"v1.0.0-RC", parseTime(jan)}, Newer: 1},
		},
		{
			name:    "the version in use was withdrawn, and there is no list",
			answers: map[string]string{base + "@latest": infoJSON("v1.2.0", may)},
			has:     "v1.0.0",
			want:    Answer{Latest: Version{"v1.2.0", parseTime(may)}, Current: Version{}, Newer: 1},
		},
		{
			name:    "a listed version without a date",
			answers: map[string]string{base + "@v/list": "v1.0.0"},
			has:     "v1.0.0",
			want:    Answer{Latest: Version{Version: "v1.0.0"}, Current: Version{Version: "v1.0.0"}},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, tt.answers)
			if tt.path == "" {
				tt.path = modPath
			}
			tt.want.Proxy = s.URL
			tt.want.Current.Version = tt.has
			got, err := newClient(t, Settings{GOPROXY: s.URL}).Ask(t.Context(), tt.path, tt.has)
			require.NoError(t, err)
			require.Equal(t, tt.want, got)
			if tt.asked != nil {
				require.Equal(t, tt.asked, s.requestedPaths())
			}
		})
	}
}

func TestAskFails(t *testing.T) {
	t.Parallel()
	huge := strings.Repeat("x", maxInfo+1)
	for _, tt := range []struct {
		name    string
		answers map[string]string
		is      error
		text    string // after the proxy's address
	}{
		{"not found", nil, ErrNotExist, "404 Not Found: not found: no such thing"},
		{"gone", map[string]string{"*": "410"}, ErrNotExist, "410 Gone"},
		{"no versions", map[string]string{base + "@v/list": ""}, ErrNotExist, "it lists no version of the module"},
		{"forbidden", map[string]string{"*": "403 not\n for\tyou"}, ErrForbidden, "403 Forbidden: not for you"},
		{"unauthorized", map[string]string{"*": "401"}, ErrForbidden, "401 Unauthorized"},
		{"too many", map[string]string{"*": "429 slow down"}, nil, "429 Too Many Requests: slow down"},
		{"broken", map[string]string{"*": "500"}, nil, "500 Internal Server Error"},
		{"a long story", map[string]string{"*": "502 " + strings.Repeat("é", 4000)}, nil, "502 Bad Gateway: " + strings.Repeat("é", maxReason/2) + "…"},
		{"not JSON", map[string]string{"*": "<html>sign in</html>"}, nil, "its answer is not the JSON of the module proxy protocol: invalid character '<' looking for beginning of value"},
		{"nothing", map[string]string{"*": ""}, nil, "its answer is not the JSON of the module proxy protocol: unexpected end of JSON input"},
		{"no version", map[string]string{"*": `{"Version":"latest"}`}, nil, `it answers with "latest", which is not a version`},
		{"no version at all", map[string]string{"*": `{}`}, nil, `it answers with "", which is not a version`},
		{"a bad time", map[string]string{"*": `{"Version":"v1.0.0","Time":"yesterday"}`}, nil, "its answer is not the JSON of the module proxy protocol: "},
		{"huge", map[string]string{"*": huge}, nil, fmt.Sprintf("its answer is larger than %d bytes", maxInfo)},
		{
			"another version",
			map[string]string{base + "@v/list": "v1.0.0", base + "@v/v1.0.0.info": infoJSON("v1.0.1", jan)},
			nil,
			"asked for v1.0.0, it answers with v1.0.1",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, tt.answers)
			_, err := newClient(t, Settings{GOPROXY: s.URL}).Ask(t.Context(), modPath, "v0.1.0")
			require.ErrorContains(t, err, s.URL+": "+tt.text)
			for _, kind := range []error{ErrNotExist, ErrForbidden, ErrPrivate, ErrNotAsked} {
				require.Equal(t, tt.is != nil && errors.Is(tt.is, kind), errors.Is(err, kind), "%v", kind)
			}
		})
	}
}

func TestHugeList(t *testing.T) {
	t.Parallel()
	s := startServer(t, map[string]string{base + "@v/list": strings.Repeat("v1.0.0\n", maxList/7+1)})
	_, err := newClient(t, Settings{GOPROXY: s.URL}).Ask(t.Context(), modPath, "v1.0.0")
	require.ErrorContains(t, err, "larger than")
}

func TestGatewayPagesAreNotReasons(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = w.Write([]byte("<html>a page</html>"))
	}))
	t.Cleanup(s.Close)
	_, err := newClient(t, Settings{GOPROXY: s.URL}).Ask(t.Context(), modPath, "v1.0.0")
	require.EqualError(t, err, s.URL+": 503 Service Unavailable")
}

func TestFileProxy(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) {
		name = filepath.Join(dir, filepath.FromSlash(name))
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o750))
		require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
	}
	write("example.com/!m/@v/list", "v1.0.0\nv1.1.0\n")
	write("example.com/!m/@v/v1.0.0.info", infoJSON("v1.0.0", jan))
	write("example.com/!m/@v/v1.1.0.info", infoJSON("v1.1.0", mar))
	list := "file://" + filepath.ToSlash(dir)
	c := newClient(t, Settings{GOPROXY: list + ",direct"})

	got, err := c.Ask(t.Context(), "example.com/M", "v1.0.0")
	require.NoError(t, err)
	require.Equal(t, Answer{Proxy: list, Latest: Version{"v1.1.0", parseTime(mar)}, Current: Version{"v1.0.0", parseTime(jan)}, Newer: 1}, got)

	_, err = c.Ask(t.Context(), "example.com/other", "v1.0.0")
	require.ErrorIs(t, err, ErrNotExist)
}

func TestTimeout(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	t.Cleanup(s.Close)
	t.Cleanup(func() { close(release) })
	second := startServer(t, nil)
	c := newClient(t, Settings{GOPROXY: s.URL + "|" + second.URL})

	// If a proxy is slow, the next one is asked. If this machine is so slow that the next one cannot answer in time either, the error is the next one's, and the test
	// gives both more time.
	var err error
	for c.http.Timeout = 500 * time.Millisecond; c.http.Timeout < time.Minute; c.http.Timeout *= 2 {
		if _, err = c.Ask(t.Context(), modPath, "v1.0.0"); err == nil || !strings.Contains(err.Error(), second.URL) {
			break
		}
	}
	require.ErrorContains(t, err, s.URL+": context deadline exceeded (Client.Timeout exceeded while awaiting headers)")
	asked := len(second.requestedPaths())
	require.NotZero(t, asked)

	// If the caller gives up, the next proxy is not asked.
	c.http.Timeout = 0
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = c.Ask(ctx, modPath, "v1.0.0")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Len(t, second.requestedPaths(), asked)
}

func TestErrorsNameNoModuleAndNoPassword(t *testing.T) {
	t.Parallel()
	c := newClient(t, Settings{GOPROXY: "http://me:secret@127.0.0.1:1"})
	_, err := c.Ask(t.Context(), modPath, "v1.0.0")
	require.EqualError(t, err, "http://me:xxxxx@127.0.0.1:1: dial tcp 127.0.0.1:1: connect: connection refused")
}

func TestRequestRateAndUserAgent(t *testing.T) {
	t.Parallel()
	var agents sync.Map
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		agents.Store(r.UserAgent(), true)
		_, _ = w.Write([]byte(infoJSON("v1.0.0", jan)))
	}))
	t.Cleanup(s.Close)
	c, err := NewClient(Settings{GOPROXY: s.URL}, 20)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	// Twenty at once, then twenty a second.
	const asks = 30
	began := time.Now()
	answers := make(chan error, asks)
	for range asks {
		go func() {
			_, err := c.Ask(t.Context(), modPath, "v1.0.0")
			answers <- err
		}()
	}
	for range asks {
		require.NoError(t, <-answers)
	}
	require.GreaterOrEqual(t, time.Since(began), 450*time.Millisecond)
	agents.Range(func(agent, _ any) bool {
		require.Equal(t, userAgent, agent)
		return true
	})
}

func TestRequestRateBeyondTheDeadline(t *testing.T) {
	t.Parallel()
	c, err := NewClient(Settings{GOPROXY: startServer(t, map[string]string{"*": infoJSON("v1.0.0", jan)}).URL}, 0.001)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err = c.Ask(ctx, modPath, "v1.0.0")
	require.NoError(t, err)
	_, err = c.Ask(ctx, modPath, "v1.0.0")
	require.ErrorContains(t, err, "waiting for a turn under the request rate of 0.001/s")
}

func TestPathThatNoModuleHas(t *testing.T) {
	t.Parallel()
	c := newClient(t, Settings{GOPROXY: "http://127.0.0.1:1"})
	_, err := c.Ask(t.Context(), "Not A Path", "v1.0.0")
	require.ErrorContains(t, err, "malformed module path")
}
