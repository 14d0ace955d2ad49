package proxy

import (
	"errors"
	"fmt"
	"net"
	"net/url"
)

// What an answer came to, for errors.Is. Any other error may well pass: the network, the server's state, its pace.
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

// replyError is the error of one proxy. Its text names the proxy, but not the module: many that fail for one reason are
// then seen to.
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

// replyf makes the error of a proxy that did answer.
func (e Entry) replyf(kind error, format string, args ...any) error {
	return &replyError{proxy: e.String(), text: fmt.Sprintf(format, args...), kind: kind}
}

// unreachable makes the error of a proxy that did not answer.
func (e Entry) unreachable(err error) error {
	cause := err
	// The URL would name the module, and the local port is another one each time.
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
