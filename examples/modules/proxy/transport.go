package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/time/rate"
)

const (
	userAgent = "delta-example-modules (https://github.com/chariot-giving/delta)"

	dialTimeout    = 5 * time.Second
	headerTimeout  = 15 * time.Second
	requestTimeout = 20 * time.Second

	// Bounds on what is read: a list has a line a version, the rest is a small JSON object.
	maxList  = 8 << 20
	maxInfo  = 64 << 10
	maxError = 1 << 10
	// maxReason is how much of a proxy's explanation is kept.
	maxReason = 300
)

func newHTTPClient() *http.Client {
	return &http.Client{
		Timeout: requestTimeout,
		Transport: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: dialTimeout}).DialContext,
			TLSHandshakeTimeout:   dialTimeout,
			ResponseHeaderTimeout: headerTimeout,
			ForceAttemptHTTP2:     true,
			MaxIdleConnsPerHost:   16,
			IdleConnTimeout:       30 * time.Second,
		},
	}
}

// get reads what a proxy has under a path, "$module/@v/list" for instance.
func (c *Client) get(ctx context.Context, e Entry, path string, limit int64) ([]byte, error) {
	if e.URL.Scheme == "file" {
		return e.read(path, limit)
	}
	if err := wait(ctx, c.limiter); err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, e.URL.JoinPath(path).String(), nil)
	if err != nil {
		return nil, e.unreachable(err)
	}
	request.Header.Set("User-Agent", userAgent)
	response, err := c.http.Do(request)
	if err != nil {
		return nil, e.unreachable(err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return nil, e.refused(response)
	}
	return e.bounded(response.Body, limit)
}

func wait(ctx context.Context, limiter *rate.Limiter) error {
	if err := limiter.Wait(ctx); err != nil {
		return fmt.Errorf("waiting for a turn under the request rate of %v/s: %w", limiter.Limit(), err)
	}
	return nil
}

// read is get for a proxy that is a directory.
func (e Entry) read(path string, limit int64) ([]byte, error) {
	f, err := os.Open(filepath.FromSlash(e.URL.JoinPath(path).Path))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, e.replyf(ErrNotExist, "no such file")
	case errors.Is(err, fs.ErrPermission):
		return nil, e.replyf(ErrForbidden, "permission denied")
	case err != nil:
		return nil, e.unreachable(err)
	}
	defer func() { _ = f.Close() }()
	return e.bounded(f, limit)
}

// bounded reads at most limit bytes, and fails when there are more.
func (e Entry) bounded(r io.Reader, limit int64) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, e.unreachable(err)
	}
	if int64(len(body)) > limit {
		return nil, e.replyf(nil, "its answer is larger than %d bytes", limit)
	}
	return body, nil
}

// refused reads an answer that is not OK.
func (e Entry) refused(response *http.Response) error {
	var kind error
	switch response.StatusCode {
	case http.StatusNotFound, http.StatusGone:
		kind = ErrNotExist
	case http.StatusForbidden, http.StatusUnauthorized:
		kind = ErrForbidden
	}
	status := fmt.Sprintf("%d %s", response.StatusCode, http.StatusText(response.StatusCode))
	if why := reason(response); why != "" {
		return e.replyf(kind, "%s: %s", strings.TrimSpace(status), why)
	}
	return e.replyf(kind, "%s", strings.TrimSpace(status))
}

// reason is a proxy's own explanation, on one line. Only plain text is meant for people; what else comes with an error
// is the page of some gateway.
func reason(response *http.Response) string {
	if kind, _, err := mime.ParseMediaType(response.Header.Get("Content-Type")); err == nil && kind != "text/plain" {
		return ""
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxError))
	if err != nil || !utf8.Valid(trimRune(body)) {
		return ""
	}
	text := strings.Join(strings.FieldsFunc(string(trimRune(body)), func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r)
	}), " ")
	if len(text) > maxReason {
		text = string(trimRune([]byte(text[:maxReason]))) + "…"
	}
	return text
}

// trimRune removes a character at the end that was cut in half.
func trimRune(b []byte) []byte {
	for i := 1; i <= min(utf8.UTFMax, len(b)); i++ {
		if at := len(b) - i; utf8.RuneStart(b[at]) {
			if !utf8.FullRune(b[at:]) {
				return b[:at]
			}
			break
		}
	}
	return b
}
