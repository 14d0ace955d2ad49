package cdc_test

import (
	"context"

	"github.com/chariot-giving/delta/cdc"
)

// leaveOut opens a slot and leaves out one row, given the position in its error, which is the same each time the log is
// read.
func leaveOut(ctx context.Context, config cdc.Config, position cdc.LSN) (*cdc.Stream, error) {
	config.SkipUndecodable = func(row *cdc.UndecodableError) bool { return row.LSN == position }
	return cdc.Open(ctx, config)
}
