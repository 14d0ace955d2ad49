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

// Client asks the proxies of a list. It is safe for concurrent use.
type Client struct {
	list    List
	private string
	http    *http.Client
	limiter *rate.Limiter
}

// NewClient makes a client that sends at most perSecond requests a second, to all proxies together. It returns an error
// for a GOPROXY that cannot be read.
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

// List is what the client walks.
func (c *Client) List() List { return c.list }

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Version is a version and when it was made.
type Version struct {
	Version string
	// Time is zero where the proxy does not tell.
	Time time.Time
}

// Answer is what a proxy knows about a module.
type Answer struct {
	// Proxy is who answered, without a password.
	Proxy string
	// Latest is the version that the go command would choose for "latest".
	Latest Version
	// Current is the version that was asked about. Its time is only looked up where Latest is newer.
	Current Version
	// Newer counts the releases after Current, up to Latest. Where Latest is a mere commit it is 0.
	Newer int
}

// Behind tells whether Latest is newer than Current.
func (a Answer) Behind() bool { return semver.Compare(a.Latest.Version, a.Current.Version) > 0 }

// Ask asks for the latest version of a module and how far behind it a version is. It walks the list as the go command
// does: past a proxy that does not have the module, and past one that fails if a '|' follows.
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
			return Answer{}, ended(failure, "direct, which means asking version control systems: this example does not")
		case off:
			return Answer{}, ended(failure, "off: nothing may be looked up")
		}
		answer, err := c.ask(ctx, e, modulePath, escaped, version)
		if err == nil {
			return answer, nil
		}
		missing := errors.Is(err, ErrNotExist)
		// That a proxy fails says more than that another one does not have the module: it may be there.
		if failure == nil || !missing {
			failure = err
		}
		if ctx.Err() != nil || (!missing && !e.AnyError) {
			break
		}
	}
	return Answer{}, failure
}

// ended is the error of a list that comes to a word: what the proxies before it said, if there were any.
func ended(failure error, word string) error {
	if failure == nil {
		return fmt.Errorf("%w: it is %s", ErrNotAsked, word)
	}
	return fmt.Errorf("%w (then comes %s)", failure, word)
}

// ask asks one proxy.
func (c *Client) ask(ctx context.Context, e Entry, modulePath, escaped, version string) (Answer, error) {
	answer := Answer{Proxy: e.String(), Current: Version{Version: version}}
	latest, versions, listed, err := c.latest(ctx, e, modulePath, escaped)
	if err != nil {
		return answer, err
	}
	answer.Latest = latest
	if !answer.Behind() {
		return answer, nil
	}
	if !listed {
		if versions, err = c.versions(ctx, e, modulePath, escaped); err != nil && !errors.Is(err, ErrNotExist) {
			return answer, err
		}
	}
	answer.Newer = newer(versions, version, latest.Version)
	current, err := c.info(ctx, e, escaped, version)
	// A version that was withdrawn has no date, and that is all that is wrong.
	if err != nil && !errors.Is(err, ErrNotExist) {
		return answer, err
	}
	answer.Current.Time = current.Time
	return answer, nil
}

// latest asks for the latest version. "@latest" is optional in the protocol, and may name a commit or a prerelease where
// the list has a release.
func (c *Client) latest(ctx context.Context, e Entry, modulePath, escaped string) (latest Version, versions []string, listed bool, err error) {
	latest, missing := c.decode(ctx, e, path.Join(escaped, "@latest"))
	if missing != nil && !errors.Is(missing, ErrNotExist) {
		return latest, nil, false, missing
	}
	if missing == nil && rank(latest.Version) >= rankIncompatible {
		return latest, nil, false, nil
	}
	versions, err = c.versions(ctx, e, modulePath, escaped)
	switch {
	case errors.Is(err, ErrNotExist) && missing == nil:
		return latest, nil, true, nil
	case err != nil:
		return latest, nil, false, err
	}
	found := best(versions)
	switch {
	case found == "" && missing != nil:
		return latest, nil, true, e.replyf(ErrNotExist, "it lists no version of the module")
	case missing == nil && !better(found, latest.Version):
		return latest, versions, true, nil
	}
	latest, err = c.info(ctx, e, escaped, found)
	if errors.Is(err, ErrNotExist) {
		latest, err = Version{Version: found}, nil // listed, but without a date
	}
	return latest, versions, true, err
}

func (c *Client) versions(ctx context.Context, e Entry, modulePath, escaped string) ([]string, error) {
	body, err := c.get(ctx, e, path.Join(escaped, "@v", "list"), maxList)
	if err != nil {
		return nil, err
	}
	return parseVersions(body, modulePath), nil
}

// info asks when a version was made; the version of a commit tells it itself.
func (c *Client) info(ctx context.Context, e Entry, escaped, version string) (Version, error) {
	if at, err := module.PseudoVersionTime(version); err == nil {
		return Version{Version: version, Time: at}, nil
	}
	escapedVersion, err := module.EscapeVersion(version)
	if err != nil {
		return Version{}, err
	}
	got, err := c.decode(ctx, e, path.Join(escaped, "@v", escapedVersion+".info"))
	if err == nil && got.Version != version {
		return Version{}, e.replyf(nil, "asked about %s, it answers about %s", version, got.Version)
	}
	return got, err
}

// decode reads a version and its time as the protocol has them.
func (c *Client) decode(ctx context.Context, e Entry, path string) (Version, error) {
	body, err := c.get(ctx, e, path, maxInfo)
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
