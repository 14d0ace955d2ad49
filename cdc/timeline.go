package cdc

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pglogrepl"
)

// queryTimeline is that on which the server writes its log. It changes when a standby is promoted. A standby writes none: zero.
func (c *connection) queryTimeline(ctx context.Context) (int32, error) {
	standby, err := c.queryValue(ctx, `SELECT pg_is_in_recovery()`)
	if err != nil || standby == "t" {
		return 0, err
	}
	system, err := pglogrepl.IdentifySystem(ctx, c.PgConn)
	if err != nil {
		return 0, fmt.Errorf("cdc: asking the server for its timeline: %w", err)
	}
	return system.Timeline, nil
}

// findSwitchPoint is where the history of a timeline left an earlier one, zero where it does not come from that.
func (c *connection) findSwitchPoint(ctx context.Context, earlier, timeline int32) (LSN, error) {
	history, err := pglogrepl.TimelineHistory(ctx, c.PgConn, timeline)
	if err != nil {
		return 0, fmt.Errorf("cdc: asking the server for the history of its timeline: %w", err)
	}
	for line := range strings.Lines(string(history.Content)) { // timeline, position, reason
		if fields := strings.Fields(line); len(fields) >= 2 && fields[0] == strconv.Itoa(int(earlier)) {
			return ParseLSN(fields[1])
		}
	}
	return 0, nil
}

// checkTimeline sees that the server's log has all that was received, as it was received. The log of a standby that was promoted may
// lack the last of it, and then has other things at the same places. Where that was nothing for this stream, only its
// position goes back.
func (s *Stream) checkTimeline(ctx context.Context, conn *connection, confirmed LSN) (LSN, error) {
	timeline, err := conn.queryTimeline(ctx)
	switch {
	case err != nil:
		return 0, err
	case timeline == 0 && s.timeline != 0: // what it has not got yet is not lost
		return 0, fmt.Errorf("%w: slot %q", ErrStandby, s.config.Slot)
	case timeline == 0:
		return confirmed, nil
	}
	if s.timeline != 0 && s.timeline != timeline {
		end, err := conn.findSwitchPoint(ctx, s.timeline, timeline)
		if err != nil {
			return 0, err
		}
		if received, ok := s.positions.rewind(end); !ok {
			return 0, &ResyncError{Slot: s.config.Slot, Reason: SlotDiverged, Detail: fmt.Sprintf(
				"%s was received, and the server that was promoted has what came before %s only: see synchronized_standby_slots", received, end)}
		}
		confirmed = min(confirmed, end)
	}
	s.timeline = timeline
	return confirmed, nil
}
