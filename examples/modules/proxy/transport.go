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

	// Limits of responses: a list has a line for each version, all others are a small JSON object.
	maxList  = 8 << 20
	maxInfo  = 64 << 10
	maxError = 1 << 10
	// maxReason limits the text of a proxy's explanation.
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

// fetch reads a path of a proxy, for instance "$module/@v/list".
func (c *Client) fetch(ctx context.Context, e Entry, path string, limit int64) ([]byte, error) {
	if e.URL.Scheme == "file" {
		return e.readFile(path, limit)
	}
	if err := awaitRate(ctx, c.limiter); err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, e.URL.JoinPath(path).String(), nil)
	if err != nil {
		return nil, e.unreachableError(err)
	}
	request.Header.Set("User-Agent", userAgent)
	response, err := c.http.Do(request)
	if err != nil {
		return nil, e.unreachableError(err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return nil, e.statusError(response)
	}
	return e.readBounded(response.Body, limit)
}

func awaitRate(ctx context.Context, limiter *rate.Limiter) error {
	if err := limiter.Wait(ctx); err != nil {
		return fmt.Errorf("waiting for a turn under the request rate of %v/s: %w", limiter.Limit(), err)
	}
	return nil
}

// readFile is fetch for a proxy that is a directory.
func (e Entry) readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(filepath.FromSlash(e.URL.JoinPath(path).Path))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, e.replyf(ErrNotExist, "no such file")
	case errors.Is(err, fs.ErrPermission):
		return nil, e.replyf(ErrForbidden, "permission denied")
	case err != nil:
		return nil, e.unreachableError(err)
	}
	defer func() { _ = f.Close() }()
	return e.readBounded(f, limit)
}

// readBounded reads at most limit bytes, and returns an error if there are more.
func (e Entry) readBounded(r io.Reader, limit int64) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, e.unreachableError(err)
	}
	if int64(len(body)) > limit {
		return nil, e.replyf(nil, "its answer is larger than %d bytes", limit)
	}
	return body, nil
}

// statusError returns the error of a response that is not OK.
func (e Entry) statusError(response *http.Response) error {
	var kind error
	switch response.StatusCode {
	case http.StatusNotFound, http.StatusGone:
		kind = ErrNotExist
	case http.StatusForbidden, http.StatusUnauthorized:
		kind = ErrForbidden
	}
	status := fmt.Sprintf("%d %s", response.StatusCode, http.StatusText(response.StatusCode))
	if why := readReason(response); why != "" {
		return e.replyf(kind, "%s: %s", strings.TrimSpace(status), why)
	}
	return e.replyf(kind, "%s", strings.TrimSpace(status))
}

// readReason returns the proxy's own explanation on one line. Only plain text is an explanation; other content types are pages of gateways.
func readReason(response *http.Response) string {
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

// trimRune removes an incomplete character at the end.
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
