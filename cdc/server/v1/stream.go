package v1

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/cdc/wal2json"
	"github.com/chariot-giving/delta/internal/backoff"
)

const (
	// maxAck limits an acknowledgement, in bytes.
	maxAck = 4 << 10
	// maxReason limits the reason of a close frame, in bytes.
	maxReason = 120
	// grace is how long a frame that is being written may still take when the stream ends.
	writeGrace = 2 * time.Second
	// lookupTimeout is how long the names of types are looked up while the database is away.
	lookupTimeout = time.Minute
	// shortestLookup and longestLookup limit the delay between attempts.
	shortestLookup, longestLookup = 50 * time.Millisecond, 10 * time.Second
)

// streamClient is one client.
type streamClient struct {
	handler *Handler
	stream  *cdc.Stream
	conn    *websocket.Conn
	stop    context.CancelCauseFunc
	// released is closed when the slot is free.
	released chan struct{}
	// sent is the end of the last transaction that the client may have received completely.
	sent atomic.Uint64
}

// closeError is an error that the client is told before the websocket is closed.
type closeError struct {
	code websocket.StatusCode
	text string
}

func (c *closeError) Error() string { return c.text }

// errGone says that the client has disconnected.
var errGone = errors.New("the client is gone")

func (h *Handler) serveStream(w http.ResponseWriter, r *http.Request) {
	slot := r.URL.Query().Get("slotName")
	if slot == "" {
		replyError(w, http.StatusBadRequest, "no slotName provided", "")
		return
	}
	if !wantsWebsocket(r) {
		replyError(w, http.StatusBadRequest, noUpgradeText, "")
		return
	}
	ctx, stop := context.WithCancelCause(r.Context())
	defer stop(nil)
	s := &streamClient{handler: h, stop: stop, released: make(chan struct{})}
	release := sync.OnceFunc(func() {
		if s.stream != nil {
			s.stream.Close()
		}
		close(s.released)
	})
	defer release()
	h.mu.Lock()
	h.streams[s] = true
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		delete(h.streams, s)
		h.mu.Unlock()
	}()
	schema := r.URL.Query().Get("schema")
	if schema != "" && schema != "true" && schema != "false" {
		replyError(w, http.StatusBadRequest, fmt.Sprintf("schema %.100q: it must be true or false", schema), "")
		return
	}
	if status, text := s.openStream(ctx, slot, schema == "true"); status != 0 {
		replyError(w, status, text, "")
		return
	}
	defer h.config.StreamOpened(slot, s.stream)()
	var err error
	// The origin was checked.
	s.conn, err = websocket.Accept(&upgradeWriter{ResponseWriter: w}, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return
	}
	s.conn.SetReadLimit(maxAck)
	// When the stream ends, a frame that is being written gets writeGrace to be completed, and afterwards the frame of the end.
	life, cut := context.WithCancel(context.WithoutCancel(ctx))
	writes, written := context.WithCancel(life)
	defer written()
	defer context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(writeGrace, cut)
		context.AfterFunc(writes, func() { timer.Stop() })
	})()
	var work sync.WaitGroup
	work.Go(func() { s.readAcks(life) })
	work.Go(func() { s.pingClient(life, cut) })
	err = s.run(ctx, life)
	written()
	stop(err)
	release() // first, so that the slot is free for the next client at once
	defer time.AfterFunc(writeGrace, cut).Stop()
	s.closeClient(life, err)
	cut()
	_ = s.conn.CloseNow()
	work.Wait()
}

// openStream finds the slot and opens its stream; a status other than 0 says why not. schema adds schema changes to the frames.
func (s *streamClient) openStream(ctx context.Context, slot string, schema bool) (status int, text string) {
	h := s.handler
	made, err := h.hasMade(ctx, slot)
	if err == nil && !made {
		return http.StatusNotFound, fmt.Sprintf("unknown slot %.100q: call /v1/init, and use the slotName that it answers with", slot)
	}
	if err == nil {
		config := h.config.Stream
		config.Conn, config.Slot, config.Logger, config.Start = h.config.Conn, slot, h.config.Logger, 0
		config.BeforeConnect = h.config.BeforeConnect
		config.Publications, config.SchemaChanges = []string{h.markers.changes, h.markers.inserts}, schema
		s.stream, err = cdc.Open(ctx, config)
	}
	var resync *cdc.ResyncError
	switch {
	case err == nil:
		return 0, ""
	case errors.Is(err, cdc.ErrSlotBusy):
		return http.StatusConflict, fmt.Sprintf("slot %.100q is in use by another client", slot)
	case errors.As(err, &resync) && resync.Reason == cdc.SlotMissing:
		return http.StatusNotFound, fmt.Sprintf("unknown slot %.100q: it was dropped: call /v1/init", slot)
	case errors.As(err, &resync):
		return http.StatusGone, explainError(err) + ": call /v1/init"
	}
	h.config.Logger.Error("v1: a stream cannot be opened", "slot", slot, "error", err)
	text = "could not create stream"
	if detail := explainError(err); detail != "" {
		text += ": " + detail
	}
	return http.StatusInternalServerError, text
}

// run streams until an error, and returns it. It waits for transactions while ctx lasts, and writes while life does.
func (s *streamClient) run(ctx, life context.Context) error {
	encoder := wal2json.NewEncoder(s.lookupTypes)
	for {
		transaction, err := s.stream.Next(ctx)
		if err == nil && ctx.Err() == nil {
			err = s.sendTransaction(life, encoder, transaction)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return err
		}
	}
}

// sendTransaction writes a transaction as one message, in as many pieces as it takes.
func (s *streamClient) sendTransaction(ctx context.Context, encoder *wal2json.Encoder, t *cdc.Transaction) error {
	w, err := s.conn.Writer(ctx, websocket.MessageText)
	if err != nil {
		return fmt.Errorf("%w: %w", errGone, err)
	}
	if err := encoder.Encode(ctx, w, t); err != nil {
		return err
	}
	s.sent.Store(uint64(t.EndLSN)) // before the client can have received the end
	if err := w.Close(); err != nil {
		return fmt.Errorf("%w: %w", errGone, err)
	}
	return nil
}

// lookupTypes returns the names of types. It retries while the database restarts, because the stream survives that, too.
func (s *streamClient) lookupTypes(ctx context.Context, columns []cdc.Column) (_ []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	for retry := backoff.New(shortestLookup, longestLookup); ; {
		names, failure := wal2json.Catalog(s.handler.pool)(ctx, columns)
		if failure == nil {
			return names, nil
		}
		if err == nil || ctx.Err() == nil {
			err = failure // the cause, rather than the timeout
		}
		if backoff.Pause(ctx, retry.Delay()) != nil {
			return nil, err
		}
	}
}

// readAcks takes acknowledgements until the client disconnects or sends an invalid one.
func (s *streamClient) readAcks(ctx context.Context) {
	for {
		_, data, err := s.conn.Read(ctx)
		if err != nil {
			s.stop(errGone)
			return
		}
		if err := s.ackTransaction(data); err != nil {
			s.stop(err)
			return
		}
	}
}

func (s *streamClient) ackTransaction(data []byte) error {
	var ack struct {
		LSN *string `json:"lsn"`
	}
	if err := json.Unmarshal(data, &ack); err != nil {
		return &closeError{websocket.StatusInvalidFramePayloadData, `invalid acknowledgement: it must be a JSON object such as {"lsn":"0/170FCB0"}`}
	}
	if ack.LSN == nil {
		return &closeError{websocket.StatusInvalidFramePayloadData, "invalid acknowledgement: required field 'lsn' missing"}
	}
	lsn, err := cdc.ParseLSN(*ack.LSN)
	if err != nil {
		return &closeError{websocket.StatusInvalidFramePayloadData, "invalid acknowledgement: " + explainError(err)}
	}
	if sent := cdc.LSN(s.sent.Load()); sent != 0 && lsn > sent {
		return &closeError{websocket.StatusPolicyViolation, fmt.Sprintf("acknowledgement of %s: it is beyond what was delivered (%s)", lsn, sent)}
	}
	switch err := s.stream.Ack(lsn); {
	case errors.Is(err, cdc.ErrClosed):
		return errGone
	case err != nil:
		return &closeError{websocket.StatusPolicyViolation, explainError(err)}
	}
	return nil
}

// pingClient ends a client that does not answer pings.
func (s *streamClient) pingClient(ctx context.Context, cut context.CancelFunc) {
	ticker := time.NewTicker(s.handler.config.PingInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		limited, cancel := context.WithTimeout(ctx, s.handler.config.PingTimeout)
		err := s.conn.Ping(limited)
		cancel()
		if err != nil {
			s.stop(errGone)
			cut()
			return
		}
	}
}

// closeClient tells the client the reason, and closes the websocket.
func (s *streamClient) closeClient(life context.Context, err error) {
	var told *closeError
	switch {
	case errors.Is(err, errGone):
		return
	case errors.As(err, &told):
	case errors.Is(err, errClosing), errors.Is(err, errReplaced):
		told = &closeError{websocket.StatusGoingAway, err.Error()}
	default:
		s.handler.config.Logger.Error("v1: a stream has ended", "error", err)
		told = &closeError{websocket.StatusInternalError, "the stream has ended"}
		if detail := explainError(err); detail != "" {
			told.text += ": " + detail
		}
	}
	frame, err := json.Marshal(problem{Error: told.text})
	if err == nil {
		err = s.conn.Write(life, websocket.MessageText, frame)
	}
	if err == nil {
		_ = s.conn.Close(told.code, strings.ToValidUTF8(told.text[:min(len(told.text), maxReason)], ""))
	}
}
