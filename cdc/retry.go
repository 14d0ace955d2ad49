package cdc

import (
	"errors"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/chariot-giving/delta/internal/backoff"
)

// isTransient reports whether another connection can succeed after the error: an error of the network, or of a server
// that restarts, lacks resources at the moment, or will release the slot soon.
func isTransient(err error) bool {
	var server *pgconn.PgError
	if errors.Is(err, errSlowChunk) { // the next one is smaller
		return true
	}
	if errors.As(err, &server) {
		// A change that the server cannot decode is an internal error each time. Retrying it for ever would hide it.
		return backoff.IsTransientCode(server.Code) && server.Code != "XX000"
	}
	var invalid *InvalidError
	var hidden *RowSecurityError
	var large *TooLargeError
	var spill *SpillError
	var row *UndecodableError
	return !errors.As(err, &invalid) && !errors.As(err, &hidden) && !errors.As(err, &large) && !errors.As(err, &spill) && !errors.As(err, &row) &&
		!errors.Is(err, ErrResyncNeeded) && !errors.Is(err, ErrProtocol)
}
