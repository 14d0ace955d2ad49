package cdc_test

import (
	"context"

	"github.com/chariot-giving/delta/cdc"
)

// leaveOut reads a slot without one row, whose position was in the error: it stays the same each time that the log is read.
func leaveOut(ctx context.Context, config cdc.Config, position cdc.LSN) (*cdc.Stream, error) {
	config.SkipUndecodable = func(row *cdc.UndecodableError) bool { return row.LSN == position }
	return cdc.Open(ctx, config)
}
