package proxy

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"path/filepath"
	"strings"
)

const (
	direct = "direct"
	off    = "off"
)

// List is a GOPROXY list, without entries after "direct" or "off", which are never reached.
type List []Entry

// Entry is one element of a [List].
type Entry struct {
	// URL is the proxy's URL; nil for the words "direct" and "off".
	URL *url.URL
	// Word is "direct" or "off", or empty.
	Word string
	// AnyError reports whether the next entry is tried after any error ('|' follows), and not only if this proxy does not have the module (',' follows).
	AnyError bool
}

// String formats the entry without a password.
func (e Entry) String() string {
	if e.URL == nil {
		return e.Word
	}
	return strings.TrimSuffix(e.URL.Redacted(), "/")
}

// String formats the list like GOPROXY, without passwords.
func (l List) String() string {
	var b strings.Builder
	for i, e := range l {
		if i > 0 && l[i-1].AnyError {
			b.WriteByte('|')
		} else if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(e.String())
	}
	return b.String()
}

// ParseList parses a GOPROXY list by the go command's rules.
func ParseList(goproxy string) (List, error) {
	var list List
	for rest := goproxy; rest != ""; {
		text, separator := rest, byte(0)
		if i := strings.IndexAny(rest, ",|"); i >= 0 {
			text, separator, rest = rest[:i], rest[i], rest[i+1:]
		} else {
			rest = ""
		}
		text = strings.TrimSpace(text)
		switch text {
		case "":
			continue
		case direct, off:
			// The go command never reaches entries after these words.
			return append(list, Entry{Word: text}), nil
		}
		u, err := parseURL(text)
		if err != nil {
			return nil, err
		}
		list = append(list, Entry{URL: u, AnyError: separator == '|'})
	}
	if len(list) == 0 {
		return nil, errors.New("GOPROXY names no proxy")
	}
	return list, nil
}

func parseURL(text string) (*url.URL, error) {
	// The go command treats a bare host as an HTTPS URL, but not a single word, because words are reserved.
	if strings.ContainsAny(text, ".:/") && !strings.Contains(text, ":/") && !filepath.IsAbs(text) && !path.IsAbs(text) {
		text = "https://" + text
	}
	u, err := url.Parse(text)
	if err != nil {
		// The error's text would show a password.
		return nil, errors.New("GOPROXY: one of the proxies is not a valid URL")
	}
	switch u.Scheme {
	case "http", "https":
		if u.Host == "" {
			return nil, fmt.Errorf("GOPROXY: %s: there is no host", u.Redacted())
		}
	case "file":
		if *u != (url.URL{Scheme: u.Scheme, Path: u.Path, RawPath: u.RawPath}) || u.Path == "" {
			return nil, fmt.Errorf("GOPROXY: %s: a file URL has a path only, as in file:///srv/modules", u.Redacted())
		}
	case "":
		return nil, fmt.Errorf("GOPROXY: %q is neither a URL nor one of the words direct and off", u.Redacted())
	default:
		return nil, fmt.Errorf("GOPROXY: %s: the scheme must be https, http or file", u.Redacted())
	}
	return u, nil
}
