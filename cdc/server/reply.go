package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/cdc/server/internal/body"
)

// problem is an answer that is not a success: its text is for people, its code for programs.
type problem struct {
	status int
	Code   string `json:"code"`
	Text   string `json:"error"`
}

func (p *problem) Error() string { return p.Text }

func newProblem(status int, code, text string) *problem { return &problem{status, code, text} }

// explainError returns the problem for an error. It hides the text of unknown errors, which is in the log only.
func explainError(err error) *problem {
	var ours *problem
	var invalid *cdc.InvalidError
	var database *pgconn.PgError
	var large *http.MaxBytesError
	var row *cdc.UndecodableError
	var resync *cdc.ResyncError
	text := strings.TrimPrefix(err.Error(), "cdc: ")
	switch {
	case errors.As(err, &ours):
		return ours
	case errors.As(err, &large):
		return newProblem(http.StatusRequestEntityTooLarge, "too_large", "the body is larger than "+strconv.FormatInt(large.Limit, 10)+" bytes")
	case errors.As(err, &invalid):
		// Members of the JSON and parameters have the names of Go's fields, in lower case.
		text = fmt.Sprintf("%s %q: it must be %s", strings.ToLower(string(invalid.Field)), invalid.Value, invalid.Rule)
		if invalid.Field == cdc.FieldWALLevel || invalid.Field == cdc.FieldServerVersion {
			return newProblem(http.StatusServiceUnavailable, "database", text)
		}
		return newProblem(http.StatusBadRequest, "invalid", text)
	case errors.As(err, new(*cdc.RowSecurityError)):
		return newProblem(http.StatusForbidden, "row_security", text)
	case errors.As(err, new(*cdc.AckError)):
		return newProblem(http.StatusBadRequest, "bad_ack", text)
	case errors.As(err, &resync) && resync.Reason == cdc.ConsumerCut:
		return newProblem(http.StatusGone, "resync_needed", fmt.Sprintf("the consumer is behind the changes that are kept for it (%s): connect again with resync=true", resync.Detail))
	case errors.Is(err, cdc.ErrConsumerRemoved):
		return errConsumerRemoved
	case errors.Is(err, cdc.ErrConsumerBusy):
		return newProblem(http.StatusConflict, "busy", "another client reads as the consumer: only one can at a time")
	case errors.Is(err, cdc.ErrResyncNeeded):
		return newProblem(http.StatusGone, "resync_needed", text)
	case errors.As(err, &row): // before the error of Postgres that it may hold
		return undecodableProblem(row, text)
	case errors.As(err, new(*cdc.TooLargeError)):
		return newProblem(http.StatusInsufficientStorage, "too_large", text)
	case errors.As(err, new(*cdc.SpillError)): // before the network: the file system's errors look like its own
		return newProblem(http.StatusInsufficientStorage, "spill_failed", text+": see --spill-folder")
	case errors.Is(err, cdc.ErrExists):
		return newProblem(http.StatusConflict, "exists", "there is a slot or a publication of this name")
	case errors.Is(err, cdc.ErrSlotBusy):
		return newProblem(http.StatusConflict, "busy", "another client reads the slot: only one can at a time")
	case errors.Is(err, cdc.ErrNotFound):
		return newProblem(http.StatusNotFound, "unknown_slot", "there is no slot of this name")
	case errors.Is(err, context.DeadlineExceeded):
		return newProblem(http.StatusServiceUnavailable, "timeout", "the database did not answer in time: try again")
	case errors.As(err, &database):
		return explainDatabase(database)
	case errors.Is(err, cdc.ErrStandby):
		return newProblem(http.StatusServiceUnavailable, "database", "the database is a standby: try again when it is promoted, or the primary is back")
	case isUnreachable(err):
		return newProblem(http.StatusServiceUnavailable, "database", "the database cannot be reached")
	}
	return newProblem(http.StatusInternalServerError, "internal", "an internal error: see the log of the server")
}

// explainSlotTimeout gives an error the reason why a slot, which what names, was not created in time; other errors are returned as they are.
// Only a new slot waits for transactions, so other requests that time out must not say so.
func explainSlotTimeout(err error, what string, patience time.Duration) error {
	if !errors.Is(err, context.DeadlineExceeded) || errors.As(err, new(*pgconn.ConnectError)) {
		return err
	}
	return fmt.Errorf("%w: %w", newProblem(http.StatusServiceUnavailable, "timeout", fmt.Sprintf("%s was not created within %s: "+
		"a new slot waits for the transactions that are running on the Postgres server. End those that are old (see xact_start in pg_stat_activity), and try again", what, patience)), err)
}

// isUnreachable reports whether a connection could not be made, or was lost. Since pgx 5.13, SafeToRetry is false for a connection that
// closes after the request was sent, because the statement may have run.
func isUnreachable(err error) bool {
	return errors.As(err, new(*pgconn.ConnectError)) || errors.As(err, new(net.Error)) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, pgconn.ErrConnClosed) || pgconn.SafeToRetry(err)
}

func explainDatabase(err *pgconn.PgError) *problem {
	switch class := err.Code[:min(2, len(err.Code))]; {
	case err.Code == "42501":
		return newProblem(http.StatusForbidden, "denied_by_database", err.Message+": the role needs REPLICATION, CREATE on the database, to own and read the tables, and BYPASSRLS where a policy hides rows")
	case err.Code == "53400", err.Code == "53300":
		return newProblem(http.StatusServiceUnavailable, "no_room", err.Message+": see max_replication_slots, max_wal_senders and max_connections")
	case class == "22":
		return newProblem(http.StatusBadRequest, "invalid", err.Message)
	case class == "08", class == "53", class == "57", class == "58", err.Code == "25006": // read_only_sql_transaction, from a standby
		return newProblem(http.StatusServiceUnavailable, "database", err.Message)
	}
	return newProblem(http.StatusInternalServerError, "database", err.Message)
}

// replyError answers with the problem for an error.
func (s *Server) replyError(w http.ResponseWriter, r *http.Request, err error) {
	p := explainError(err)
	if p.status >= http.StatusInternalServerError && r.Context().Err() == nil {
		s.config.Logger.Warn("cdc/server: a request failed", "method", r.Method, "path", r.URL.Path, "status", p.status, "error", err)
	}
	if p.status == http.StatusServiceUnavailable || p.Code == "busy" {
		w.Header().Set("Retry-After", "1")
	}
	replyJSON(w, p.status, p)
}

func replyJSON(w http.ResponseWriter, status int, body any) {
	data, err := json.Marshal(body)
	if err != nil {
		status, data = http.StatusInternalServerError, []byte(`{"code":"internal","error":"the answer cannot be written"}`)
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(append(data, '\n'))
}

// decodeBody reads a body that is one JSON object with known members only.
func (s *Server) decodeBody(w http.ResponseWriter, r *http.Request, into any) error {
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, s.config.MaxBody))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(into)
	if err == nil {
		// More would take a bracket that closes nothing for the end.
		if _, err = decoder.Token(); errors.Is(err, io.EOF) {
			err = nil
		} else if err == nil {
			err = errors.New("more than one value")
		}
	}
	if err == nil || errors.As(err, new(*http.MaxBytesError)) || errors.As(err, new(*cdc.InvalidError)) {
		return err
	}
	return newProblem(http.StatusBadRequest, "invalid", "the body is not the expected JSON: "+body.Explain(err))
}
