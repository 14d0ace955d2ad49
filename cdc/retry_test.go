package cdc_test

import (
	"fmt"
	"io"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc"
)

// If a stream retried for ever what the server cannot decode, it would look as if it waited for the server.
func TestUndecodableChangesAreNotRetried(t *testing.T) {
	t.Parallel()
	for code, transient := range map[string]bool{"57P01": true, "55006": true, "08006": true, "XX000": false, "42704": false} {
		require.Equal(t, transient, cdc.IsTransient(fmt.Errorf("receiving: %w", &pgconn.PgError{Code: code})), code)
	}
	require.True(t, cdc.IsTransient(io.ErrUnexpectedEOF))
}
