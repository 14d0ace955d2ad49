package v1

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/cdc/server/internal/body"
	"github.com/chariot-giving/delta/cdc/wal2json"
)

// flushBytes is how much of an answer is collected before it is written, in bytes.
const flushBytes = 64 << 10

// defaultWriteTimeout is how long a client may take to read such a piece. Tests change it.
const defaultWriteTimeout = 30 * time.Second

// malformedText is PGDeltaStream's answer to a body that does not match its fields.
const malformedText = "invalid input JSON"

// snapshotRequest is the body of a request for snapshot data.
type snapshotRequest struct {
	SlotName string `json:"slotName"`
	Table    string `json:"table"`
	Offset   int64  `json:"offset"`
	Limit    *int64 `json:"limit"`
	OrderBy  *struct {
		Column string `json:"column"`
		Order  string `json:"order"`
	} `json:"order_by"`
}

// parseRequest reads a request, and checks everything that can be checked without the database.
func (h *Handler) parseRequest(w http.ResponseWriter, r *http.Request) (*snapshotRequest, *problem, int) {
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, h.config.MaxBody))
	q := &snapshotRequest{}
	err := decoder.Decode(q)
	if err == nil {
		if _, err = decoder.Token(); errors.Is(err, io.EOF) {
			err = nil
		} else if err == nil {
			err = errors.New("there is more after the object")
		}
	}
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, &problem{Error: fmt.Sprintf("the body is larger than %d bytes", large.Limit)}, http.StatusRequestEntityTooLarge
	case err != nil:
		return nil, &problem{malformedText, body.Explain(err)}, http.StatusBadRequest
	}
	text, detail := "", ""
	switch {
	case q.Table == "":
		text, detail = malformedText, "required field 'table' missing"
	case q.Limit == nil:
		text, detail = malformedText, "required field 'limit' missing"
	case q.Offset < 0:
		text, detail = malformedText, fmt.Sprintf("offset is %d: it must be 0 or more", q.Offset)
	case *q.Limit < 0:
		text, detail = malformedText, fmt.Sprintf("limit is %d: it must be from 0 to %d", *q.Limit, h.config.MaxRows)
	case *q.Limit > int64(h.config.MaxRows):
		text = fmt.Sprintf("limit is %d: it must be from 0 to %d", *q.Limit, h.config.MaxRows)
	case q.OrderBy != nil && q.OrderBy.Column == "":
		text = "required field 'column' missing in 'order_by'"
	case q.OrderBy != nil && !strings.EqualFold(q.OrderBy.Order, "ASC") && !strings.EqualFold(q.OrderBy.Order, "DESC"):
		text = "order_by order direction can only be either 'ASC' or 'DESC'"
	}
	if text != "" {
		return nil, &problem{text, detail}, http.StatusBadRequest
	}
	return q, nil, 0
}

func (h *Handler) serveSnapshot(w http.ResponseWriter, r *http.Request) {
	const unavailable = "snapshot not available: call /init to initialize a new slot and snapshot"
	h.mu.Lock()
	s := h.session
	h.mu.Unlock()
	if s == nil {
		replyError(w, http.StatusServiceUnavailable, unavailable, "")
		return
	}
	q, wrong, status := h.parseRequest(w, r)
	if wrong != nil {
		replyJSON(w, status, wrong)
		return
	}
	if q.SlotName != "" && q.SlotName != s.slot {
		replyError(w, http.StatusServiceUnavailable, unavailable, fmt.Sprintf("the current snapshot belongs to slot %q", s.slot))
		return
	}
	done, there := s.useSnapshot(h.config.SnapshotIdle)
	if !there {
		replyError(w, http.StatusServiceUnavailable, unavailable, s.goneReason())
		return
	}
	defer done()
	// A client that does not read must not keep a connection, or the next init waiting.
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	controller := http.NewResponseController(w)
	defer context.AfterFunc(s.ctx, func() {
		cancel()
		_ = controller.SetWriteDeadline(time.Now())
	})()
	begun, err := h.writeRows(ctx, w, s.snapshot, q)
	if err == nil {
		return
	}
	var refused *refusal
	if !errors.As(err, &refused) {
		h.config.Logger.Warn("v1: reading a snapshot has failed", "slot", s.slot, "error", err)
	}
	switch {
	case begun: // abort the answer, so that the client does not take it for complete
		panic(http.ErrAbortHandler)
	case refused != nil:
		replyError(w, refused.status, "unable to get snapshot data", refused.text)
	case errors.Is(err, cdc.ErrClosed) || s.ctx.Err() != nil || isSnapshotLost(err):
		replyError(w, http.StatusServiceUnavailable, unavailable, "the snapshot is gone")
	default:
		status, cause := http.StatusInternalServerError, explainError(err)
		if hasNoOrder(err) {
			status = http.StatusBadRequest
		}
		replyError(w, status, "unable to get snapshot data", cause)
	}
}

// writeRows writes the requested rows, and reports whether it has begun to write.
func (h *Handler) writeRows(ctx context.Context, w http.ResponseWriter, snapshot *cdc.Snapshot, q *snapshotRequest) (begun bool, err error) {
	t, err := h.lookupTable(ctx, q.Table)
	if err != nil {
		return false, err
	}
	order, descending := "", false
	if q.OrderBy != nil {
		if order, err = t.findColumn(q.OrderBy.Column); err != nil {
			return false, err
		}
		descending = strings.EqualFold(q.OrderBy.Order, "DESC")
	}
	var names [][]byte
	for _, c := range t.Columns {
		names = append(names, append(wal2json.AppendString(nil, c.Name), ':'))
	}
	controller := http.NewResponseController(w)
	out := []byte{'['}
	flush := func() error {
		// Not supported by every writer: the server around the handler then needs its own timeout.
		_ = controller.SetWriteDeadline(time.Now().Add(h.writeTimeout))
		if err := ctx.Err(); err != nil { // the session has ended, and the line above has overwritten its deadline
			return err
		}
		if !begun {
			w.Header().Set("Content-Type", "application/json; charset=utf-8")
		}
		begun = true
		_, err := w.Write(out)
		out = out[:0]
		return err
	}
	defer func() { _ = controller.SetWriteDeadline(time.Time{}) }()
	first := true
	for row, err := range snapshot.Query(ctx, t.pageQuery(order, descending, q.Offset, *q.Limit)) {
		if err != nil {
			return begun, err
		}
		if !first {
			out = append(out, ',')
		}
		first = false
		out = append(out, '{')
		for i, value := range row {
			if i > 0 {
				out = append(out, ',')
			}
			out = appendValue(append(out, names[i]...), t.Columns[i].TypeOID, value)
		}
		out = append(out, '}')
		if len(out) >= flushBytes {
			if err := flush(); err != nil {
				return begun, err
			}
		}
	}
	out = append(out, ']')
	err = flush()
	return begun, err
}

// isSnapshotLost reports whether Postgres no longer has the snapshot: it was restarted, or the connection that holds the snapshot is gone.
func isSnapshotLost(err error) bool {
	if errors.Is(err, cdc.ErrSnapshotGone) {
		return true
	}
	var server *pgconn.PgError
	if !errors.As(err, &server) || !strings.Contains(err.Error(), "the snapshot of slot") {
		return false
	}
	return server.Code == "55000"
}

// hasNoOrder reports whether a column has a type without an order, such as json.
func hasNoOrder(err error) bool {
	var server *pgconn.PgError
	return errors.As(err, &server) && server.Code == "42883"
}
