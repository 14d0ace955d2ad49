package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path"
	"time"

	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
	"golang.org/x/time/rate"
)

// Client looks up modules at the proxies of a list. It is safe for concurrent use.
type Client struct {
	list    List
	private string
	http    *http.Client
	limiter *rate.Limiter
}

// NewClient returns a client that sends at most perSecond requests a second to all proxies together. It returns an error if GOPROXY is invalid.
func NewClient(settings Settings, perSecond float64) (*Client, error) {
	list, err := ParseList(settings.GOPROXY)
	if err != nil {
		return nil, err
	}
	return &Client{
		list:    list,
		private: settings.GONOPROXY,
		http:    newHTTPClient(),
		limiter: rate.NewLimiter(rate.Limit(perSecond), max(1, int(perSecond))),
	}, nil
}

// List returns the list of proxies.
func (c *Client) List() List { return c.list }

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Version is a version and its time.
type Version struct {
	Version string
	// Time is zero if the proxy does not report it.
	Time time.Time
}

// Answer is the answer of a proxy about a module.
type Answer struct {
	// Proxy is the URL of the proxy that answered, without a password.
	Proxy string
	// Latest is the version that the go command would choose as "latest".
	Latest Version
	// Current is the requested version. Its time is looked up only if Latest is newer.
	Current Version
	// Newer is the number of releases after Current, up to Latest; 0 if Latest is a commit.
	Newer int
}

// Behind reports whether Latest is newer than Current.
func (a Answer) Behind() bool { return semver.Compare(a.Latest.Version, a.Current.Version) > 0 }

// Ask looks up the latest version of a module, and how far a version is behind it. It walks the list like the go command: past a proxy that does not have the
// module, and past a failing one if a '|' follows.
func (c *Client) Ask(ctx context.Context, modulePath, version string) (Answer, error) {
	if module.MatchPrefixPatterns(c.private, modulePath) {
		return Answer{}, fmt.Errorf("%w: GONOPROXY or GOPRIVATE (%s) keeps it from proxies", ErrPrivate, c.private)
	}
	escaped, err := module.EscapePath(modulePath)
	if err != nil {
		return Answer{}, err
	}
	var failure error
	for _, e := range c.list {
		switch e.Word {
		case direct:
			return Answer{}, endOfListError(failure, "direct, which means asking version control systems: this example does not")
		case off:
			return Answer{}, endOfListError(failure, "off: nothing may be looked up")
		}
		answer, err := c.askProxy(ctx, e, modulePath, escaped, version)
		if err == nil {
			return answer, nil
		}
		missing := errors.Is(err, ErrNotExist)
		// A failure takes precedence over a missing module, because the failing proxy may have the module.
		if failure == nil || !missing {
			failure = err
		}
		if ctx.Err() != nil || (!missing && !e.AnyError) {
			break
		}
	}
	return Answer{}, failure
}

// endOfListError returns the error of the proxies before the word "direct" or "off", if there were any.
func endOfListError(failure error, word string) error {
	if failure == nil {
		return fmt.Errorf("%w: it is %s", ErrNotAsked, word)
	}
	return fmt.Errorf("%w (then comes %s)", failure, word)
}

// askProxy looks up a module at one proxy.
func (c *Client) askProxy(ctx context.Context, e Entry, modulePath, escaped, version string) (Answer, error) {
	answer := Answer{Proxy: e.String(), Current: Version{Version: version}}
	latest, versions, listed, err := c.fetchLatest(ctx, e, modulePath, escaped)
	if err != nil {
		return answer, err
	}
	answer.Latest = latest
	if !answer.Behind() {
		return answer, nil
	}
	if !listed {
		if versions, err = c.fetchVersions(ctx, e, modulePath, escaped); err != nil && !errors.Is(err, ErrNotExist) {
			return answer, err
		}
	}
	answer.Newer = countNewer(versions, version, latest.Version)
	current, err := c.fetchInfo(ctx, e, escaped, version)
	// A withdrawn version only has no date, which is not an error.
	if err != nil && !errors.Is(err, ErrNotExist) {
		return answer, err
	}
	answer.Current.Time = current.Time
	return answer, nil
}

// fetchLatest fetches the latest version. "@latest" is optional in the protocol, and may name a commit or a prerelease although the list has a release.
func (c *Client) fetchLatest(ctx context.Context, e Entry, modulePath, escaped string) (latest Version, versions []string, listed bool, err error) {
	latest, missing := c.fetchVersion(ctx, e, path.Join(escaped, "@latest"))
	if missing != nil && !errors.Is(missing, ErrNotExist) {
		return latest, nil, false, missing
	}
	if missing == nil && rankVersion(latest.Version) >= rankIncompatible {
		return latest, nil, false, nil
	}
	versions, err = c.fetchVersions(ctx, e, modulePath, escaped)
	switch {
	case errors.Is(err, ErrNotExist) && missing == nil:
		return latest, nil, true, nil
	case err != nil:
		return latest, nil, false, err
	}
	found := bestVersion(versions)
	switch {
	case found == "" && missing != nil:
		return latest, nil, true, e.replyf(ErrNotExist, "it lists no version of the module")
	case missing == nil && !isBetter(found, latest.Version):
		return latest, versions, true, nil
	}
	latest, err = c.fetchInfo(ctx, e, escaped, found)
	if errors.Is(err, ErrNotExist) {
		latest, err = Version{Version: found}, nil // listed, but without a date
	}
	return latest, versions, true, err
}

func (c *Client) fetchVersions(ctx context.Context, e Entry, modulePath, escaped string) ([]string, error) {
	body, err := c.fetch(ctx, e, path.Join(escaped, "@v", "list"), maxList)
	if err != nil {
		return nil, err
	}
	return parseVersions(body, modulePath), nil
}

// fetchInfo fetches the time of a version; a pseudo-version contains its time.
func (c *Client) fetchInfo(ctx context.Context, e Entry, escaped, version string) (Version, error) {
	if at, err := module.PseudoVersionTime(version); err == nil {
		return Version{Version: version, Time: at}, nil
	}
	escapedVersion, err := module.EscapeVersion(version)
	if err != nil {
		return Version{}, err
	}
	got, err := c.fetchVersion(ctx, e, path.Join(escaped, "@v", escapedVersion+".info"))
	if err == nil && got.Version != version {
		return Version{}, e.replyf(nil, "asked for %s, it answers with %s", version, got.Version)
	}
	return got, err
}

// fetchVersion fetches a version and its time in the protocol's JSON.
func (c *Client) fetchVersion(ctx context.Context, e Entry, path string) (Version, error) {
	body, err := c.fetch(ctx, e, path, maxInfo)
	if err != nil {
		return Version{}, err
	}
	var v Version
	if err := json.Unmarshal(body, &v); err != nil {
		return Version{}, e.replyf(nil, "its answer is not the JSON of the module proxy protocol: %v", err)
	}
	if module.CanonicalVersion(v.Version) != v.Version || v.Version == "" {
		return Version{}, e.replyf(nil, "it answers with %q, which is not a version", v.Version)
	}
	return v, nil
}
