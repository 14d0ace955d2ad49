package v1

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/chariot-giving/delta/cdc"
)

// problem is the body of every answer that is not a success. Error has the words of PGDeltaStream where it has any; Detail adds what they
// leave out.
type problem struct {
	Error  string `json:"error"`
	Detail string `json:"detail,omitempty"`
}

func replyError(w http.ResponseWriter, status int, text, detail string) {
	replyJSON(w, status, problem{text, detail})
}

func replyJSON(w http.ResponseWriter, status int, body any) {
	data, err := json.Marshal(body)
	if err != nil {
		status, data = http.StatusInternalServerError, []byte(`{"error":"the answer cannot be written"}`)
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(data)
}

// explainError returns the part of an error that clients may see: errors of input and settings, and those of the database. Errors of the
// network are only logged.
func explainError(err error) string {
	var invalid *cdc.InvalidError
	var resync *cdc.ResyncError
	var ack *cdc.AckError
	var large *cdc.TooLargeError
	var server *pgconn.PgError
	switch {
	case errors.As(err, &invalid):
		return strings.TrimPrefix(invalid.Error(), "cdc: ")
	case errors.As(err, &resync):
		return strings.TrimPrefix(resync.Error(), "cdc: ")
	case errors.As(err, &ack):
		return strings.TrimPrefix(ack.Error(), "cdc: ")
	case errors.As(err, &large):
		return strings.TrimPrefix(large.Error(), "cdc: ")
	case errors.As(err, new(*cdc.SpillError)):
		return strings.TrimPrefix(err.Error(), "cdc: ")
	case errors.As(err, new(*cdc.UndecodableError)):
		return strings.TrimPrefix(err.Error(), "cdc: ")
	case errors.As(err, new(*foreignPublicationError)):
		return err.Error()
	case errors.Is(err, cdc.ErrSlotBusy):
		return strings.TrimPrefix(err.Error(), "cdc: ")
	case errors.As(err, new(*pgconn.ConnectError)) && errors.As(err, &server):
		if server.Code == "42501" || server.Code == "28000" {
			return server.Message + ": does the role have REPLICATION (ALTER ROLE … REPLICATION), and pg_hba.conf let it in?"
		}
		return server.Message
	case errors.As(err, &server):
		return strings.TrimPrefix(err.Error(), "cdc: ")
	default:
		return ""
	}
}
