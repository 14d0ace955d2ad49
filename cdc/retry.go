package cdc

import (
	"errors"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/chariot-giving/delta/internal/backoff"
)

// isTransient reports whether an error is one that another connection can get over: of the network, and of a server that is restarted, has no
// room at the moment, or lets go of a slot a little later.
func isTransient(err error) bool {
	var server *pgconn.PgError
	if errors.Is(err, errSlowChunk) { // the next one is smaller
		return true
	}
	if errors.As(err, &server) {
		// A change that the server cannot decode is an internal error each time: to try it for ever would hide it.
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
