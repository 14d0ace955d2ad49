package proxy

import (
	"errors"
	"fmt"
	"net"
	"net/url"
)

// Final results of a lookup, for errors.Is. All other errors may be temporary: the network, the server's state, rate limits.
var (
	// ErrNotExist says that no proxy that may be asked has the module.
	ErrNotExist = errors.New("the proxy does not have the module")
	// ErrForbidden says that a proxy refuses to answer.
	ErrForbidden = errors.New("the proxy refuses to answer")
	// ErrPrivate says that the module is private: no proxy was asked.
	ErrPrivate = errors.New("the module is private")
	// ErrNotAsked says that the list has no proxy to ask.
	ErrNotAsked = errors.New("GOPROXY has no proxy to ask")
)

// replyError is the error of one proxy. Its text names the proxy but not the module, so that modules that fail for one reason can be grouped.
type replyError struct {
	proxy string
	text  string
	kind  error // one of the above, or nil
	cause error // may be nil
}

func (e *replyError) Error() string { return e.proxy + ": " + e.text }

func (e *replyError) Unwrap() []error {
	var errs []error
	for _, err := range []error{e.kind, e.cause} {
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// replyf returns the error of a proxy that has answered.
func (e Entry) replyf(kind error, format string, args ...any) error {
	return &replyError{proxy: e.String(), text: fmt.Sprintf(format, args...), kind: kind}
}

// unreachableError returns the error of a proxy that has not answered.
func (e Entry) unreachableError(err error) error {
	cause := err
	// Leave out the URL, which names the module, and the local port, which differs each time.
	if u := new(url.Error); errors.As(cause, &u) {
		cause = u.Err
	}
	text := cause.Error()
	if op := new(net.OpError); errors.As(cause, &op) {
		short := *op
		short.Source = nil
		text = short.Error()
	}
	return &replyError{proxy: e.String(), text: text, cause: err}
}
