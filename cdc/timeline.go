package cdc

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pglogrepl"
)

// queryTimeline returns the timeline on which the server writes its log, which changes when a standby is promoted. A
// standby writes no log: zero.
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

// findSwitchPoint returns the position at which the history of a timeline has left an earlier one, zero if it does not
// descend from that.
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

// checkTimeline checks that the server's log contains everything that was received. The log of a promoted standby may
// lack the last part of it, and continue differently from there. If that part held nothing for this stream, only its
// position goes back.
func (s *Stream) checkTimeline(ctx context.Context, conn *connection, confirmed LSN) (LSN, error) {
	timeline, err := conn.queryTimeline(ctx)
	switch {
	case err != nil:
		return 0, err
	case timeline == 0 && s.timeline != 0: // the standby may still receive the rest
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
				"%s was received, but the promoted server has only the log before %s: see synchronized_standby_slots", received, end)}
		}
		confirmed = min(confirmed, end)
	}
	s.timeline = timeline
	return confirmed, nil
}
