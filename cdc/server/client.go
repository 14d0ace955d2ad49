package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/coder/websocket"

	"github.com/chariot-giving/delta/cdc"
)

// client is the other end of a stream. Except for ping, its methods are called by one goroutine.
type client interface {
	// send writes a message and returns how many bytes it had. It fails if the client does not read in time; each piece of a large message
	// has that time. token is where the client can resume after the message, or empty.
	send(kind string, message frame, token string) (int, error)
	// ping checks that the client is there. It may be called concurrently with send.
	ping(ctx context.Context) error
	// close tells the client why the stream ends; p is nil if the client is gone. Nothing can be sent after it.
	close(p *problem)
}

// errSlow ends a client that does not read.
var errSlow = newProblem(http.StatusRequestTimeout, "too_slow", "the client does not read its messages in time: resume from the last token")

// goneError says that the client has disconnected, and why.
type goneError struct{ reason string }

func (e *goneError) Error() string { return e.reason }

// explainClose turns the error of a websocket into one for the log, without the internal names of the websocket package.
func explainClose(err error) error {
	if closed := (websocket.CloseError{}); errors.As(err, &closed) {
		return &goneError{strings.TrimSpace(fmt.Sprintf("the client has closed it: %d %s", int(closed.Code), closed.Reason))}
	}
	for inner := err; inner != nil; inner = errors.Unwrap(inner) {
		err = inner
	}
	return &goneError{"the client is gone: " + err.Error()}
}

// acceptClient upgrades a request to a websocket if it asks for one, and otherwise to Server-Sent Events. After it, errors are sent with
// [client.close].
func (s *Server) acceptClient(w http.ResponseWriter, r *http.Request) (client, error) {
	if wantsSocket(r) {
		conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true}) // access has checked the origin
		if err != nil {
			return nil, err // Accept has written the answer
		}
		conn.SetReadLimit(4 << 10)
		return newSocket(s.graceCtx, conn, s.config.WriteTimeout), nil
	}
	header := w.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("X-Accel-Buffering", "no") // otherwise proxies would buffer it
	e := &events{w: w, control: http.NewResponseController(w), timeout: s.config.WriteTimeout, ctx: s.graceCtx}
	if err := e.control.SetReadDeadline(time.Time{}); err != nil {
		return nil, err
	}
	w.WriteHeader(http.StatusOK)
	if err := e.control.Flush(); err != nil {
		return nil, err
	}
	e.stopDeadline = context.AfterFunc(s.graceCtx, func() { _ = e.control.SetWriteDeadline(time.Now()) })
	return e, nil
}

// wantsSocket reports whether a request asks for a websocket.
func wantsSocket(r *http.Request) bool {
	return headerHas(r.Header.Values("Connection"), "upgrade") && headerHas(r.Header.Values("Upgrade"), "websocket")
}

// headerHas reports whether one of the lists in a header contains a word.
func headerHas(lists []string, word string) bool {
	for _, item := range splitList(lists) {
		if name, _, _ := strings.Cut(item, ";"); strings.EqualFold(strings.TrimSpace(name), word) {
			return true
		}
	}
	return false
}

// checkUpgrade refuses requests that cannot be upgraded, because [Server.acceptClient] cannot answer with a status any more.
func checkUpgrade(r *http.Request) error {
	switch {
	case wantsSocket(r):
		if r.Header.Get("Sec-Websocket-Version") != "13" || r.Header.Get("Sec-Websocket-Key") == "" || r.ProtoMajor != 1 {
			return newProblem(http.StatusBadRequest, "invalid", "the handshake of the websocket is not one of version 13 over HTTP/1.1")
		}
	case !headerHas(r.Header.Values("Accept"), "text/event-stream"):
		return newProblem(http.StatusNotAcceptable, "not_acceptable", "open a websocket, or send Accept: text/event-stream")
	}
	return nil
}

// socket is a websocket.
type socket struct {
	conn    *websocket.Conn
	timeout time.Duration
	ctx     context.Context //nolint:containedctx // Server.graceCtx: a stop also ends a client that does not read
	slow    *time.Timer     // ends ctx; a context for each message would cost more than writing the message
	cut     context.CancelCauseFunc
}

func newSocket(ctx context.Context, conn *websocket.Conn, timeout time.Duration) *socket {
	c := &socket{conn: conn, timeout: timeout}
	c.ctx, c.cut = context.WithCancelCause(ctx)
	c.slow = time.AfterFunc(timeout, func() { c.cut(errSlow) })
	c.slow.Stop()
	return c
}

func (c *socket) send(_ string, message frame, _ string) (written int, err error) {
	c.slow.Reset(c.timeout)
	defer c.slow.Stop()
	if message.isSmall() {
		written, err = len(message.text), c.conn.Write(c.ctx, websocket.MessageText, message.text)
	} else {
		written, err = c.sendLarge(message)
	}
	if err != nil && errors.Is(context.Cause(c.ctx), errSlow) {
		err = errSlow
	}
	return written, err
}

// sendLarge writes a message in pieces, each of which the client must read within the timeout.
func (c *socket) sendLarge(message frame) (int, error) {
	w, err := c.conn.Writer(c.ctx, websocket.MessageText)
	if err != nil {
		return 0, err
	}
	written, err := message.writeTo(writerFunc(func(data []byte) (int, error) {
		c.slow.Reset(c.timeout)
		return w.Write(data)
	}))
	if err != nil {
		return written, err
	}
	return written, w.Close()
}

// writerFunc is a function as an io.Writer.
type writerFunc func(data []byte) (int, error)

func (w writerFunc) Write(data []byte) (int, error) { return w(data) }

func (c *socket) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	return c.conn.Ping(ctx)
}

func (c *socket) close(p *problem) {
	defer c.cut(nil)
	defer c.conn.CloseNow() //nolint:errcheck // it is closed then
	if p == nil {
		return
	}
	code := websocket.StatusCode(4000 + p.status)
	if p.Code == errClosing.Code {
		code = websocket.StatusGoingAway
	}
	_ = c.conn.Close(code, p.Code)
}

// events is a client of Server-Sent Events.
type events struct {
	w            http.ResponseWriter
	control      *http.ResponseController
	timeout      time.Duration
	buffer       []byte
	ctx          context.Context //nolint:containedctx // as in socket
	stopDeadline func() bool
}

func (c *events) send(kind string, message frame, token string) (written int, err error) {
	c.buffer = append(append(c.buffer[:0], "event: "...), kind...)
	if token != "" {
		c.buffer = append(append(c.buffer, "\nid: "...), token...)
	}
	c.buffer = append(c.buffer, "\ndata: "...)
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	w := &deadlineWriter{c.ctx, c.w, c.control, c.timeout}
	if message.isSmall() {
		c.buffer = append(append(c.buffer, message.text...), "\n\n"...)
		written = len(message.text)
		_, err = w.Write(c.buffer)
	} else if _, err = w.Write(c.buffer); err == nil {
		if written, err = message.writeTo(w); err == nil {
			_, err = w.Write([]byte("\n\n"))
		}
	}
	if err == nil {
		err = c.control.Flush()
	}
	var late interface{ Timeout() bool }
	if errors.As(err, &late) && late.Timeout() {
		err = errSlow
	}
	return written, err
}

// deadlineWriter writes an answer; the client must read each piece within the timeout.
type deadlineWriter struct {
	ctx     context.Context //nolint:containedctx // that of the answer
	w       http.ResponseWriter
	control *http.ResponseController
	timeout time.Duration
}

func (p *deadlineWriter) Write(data []byte) (int, error) {
	if err := p.ctx.Err(); err != nil { // otherwise the new deadline would replace that of a server that stops
		return 0, err
	}
	if err := p.control.SetWriteDeadline(time.Now().Add(p.timeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return 0, err
	}
	return p.w.Write(data)
}

func (c *events) ping(context.Context) error { return nil } // Server-Sent Events have no ping; a write that fails ends the client

func (c *events) close(*problem) { c.stopDeadline() }

// errorMessage returns the last message to a client.
func errorMessage(p *problem) frame {
	e := newEncoder(nil)
	e.writeText(`{"type":"error","code":`)
	e.writeString(p.Code)
	e.writeText(`,"error":`)
	e.writeString(p.Text)
	e.writeText(`}`)
	return e.toFrame()
}

// parseAck parses the position of an acknowledgement.
func parseAck(text string) (cdc.LSN, error) {
	lsn, err := cdc.ParseLSN(text)
	if err != nil || lsn == 0 {
		return 0, newProblem(http.StatusBadRequest, "bad_ack", fmt.Sprintf(`an acknowledgement must be {"lsn":"0/16B3748"}, and not %.100q`, text))
	}
	return lsn, nil
}
