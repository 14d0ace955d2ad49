package messagedb_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/messagedb"
)

// A second version is built beside the live one, from the beginning, and replaces it when it has caught up.
func TestAProjectionIsBuiltAnewBesideTheLiveOne(t *testing.T) {
	t.Parallel()
	s := newTallied(t, "tally2")
	all := fillCategory(t, s, "a", 2, 50)
	_, err := s.pool.Exec(t.Context(), "CREATE VIEW public.current AS SELECT * FROM public.tally")
	require.NoError(t, err)
	old := newTestProjector(t, s, messagedb.ProjectorConfig{Handler: tallyInto("tally")})
	oldEnded := runProjector(t, old)
	requireTally(t, s, "current", all)

	// The new one waits in the middle, while the old one goes on.
	middle, goOn := make(chan struct{}), make(chan struct{})
	switched, halfway := 0, all[60].GlobalPosition
	config := messagedb.ProjectorConfig{
		Version: 2,
		Handler: func(ctx context.Context, tx pgx.Tx, m *messagedb.Message) error {
			if m.GlobalPosition == halfway {
				close(middle)
				<-goOn
			}
			return tallyInto("tally2")(ctx, tx, m)
		},
		Switch: func(ctx context.Context, tx pgx.Tx) error {
			switched++
			var less bool
			err := tx.QueryRow(ctx, "SELECT (SELECT sum(messages) FROM public.tally2) < (SELECT sum(messages) FROM public.tally)").Scan(&less)
			if err != nil {
				return err
			}
			if less {
				return errors.New("it has less than the live one")
			}
			_, err = tx.Exec(ctx, "CREATE OR REPLACE VIEW public.current AS SELECT * FROM public.tally2")
			return err
		},
	}
	next := newTestProjector(t, s, config)
	nextEnded := runProjector(t, next)
	<-middle
	require.Equal(t, messagedb.ProjectionBuilding, readProjection(t, s, 2).State)
	require.False(t, next.Stats().Live)
	all = append(all, fillCategory(t, s, "a", 2, 10)[100:]...)
	requireTally(t, s, "current", all)
	close(goOn)
	require.Eventually(t, func() bool { return next.Stats().Live }, soon, time.Millisecond)
	require.Equal(t, messagedb.ProjectionRetired, readProjection(t, s, 1).State)
	require.Equal(t, messagedb.ProjectionLive, readProjection(t, s, 2).State)
	requireTally(t, s, "current", all)
	requireTally(t, s, "tally2", all)

	// Later messages go only to the new version, and the old one ends.
	before := all
	all = append(all, fillCategory(t, s, "a", 2, 10)[120:]...)
	superseded := new(messagedb.ProjectionError)
	require.ErrorAs(t, take(t, oldEnded), &superseded)
	require.Equal(t, messagedb.ProjectionSuperseded, superseded.Reason)
	requireTally(t, s, "current", all)
	requireTally(t, s, "tally", before)
	require.ErrorAs(t, take(t, runProjector(t, newTestProjector(t, s, messagedb.ProjectorConfig{Handler: tallyInto("tally")}))), &superseded, "nor does it come back")
	require.NoError(t, next.Stop(t.Context()))
	require.NoError(t, take(t, nextEnded))
	require.Equal(t, 1, switched)
}

// While a version replaces the live one, the live one waits, so Switch sees its tables in their final state.
func TestTheLiveVersionDoesNotMoveDuringASwitch(t *testing.T) {
	t.Parallel()
	s := newTallied(t, "tally2")
	all := fillCategory(t, s, "a", 2, 20)
	old := newTestProjector(t, s, messagedb.ProjectorConfig{Handler: tallyInto("tally")})
	ended := runProjector(t, old)
	requireTally(t, s, "tally", all)
	next := newTestProjector(t, s, messagedb.ProjectorConfig{Version: 2, Handler: tallyInto("tally2"), Switch: func(ctx context.Context, tx pgx.Tx) error {
		if _, err := s.client.WriteMessage(ctx, "a-0", messagedb.ProposedMessage{Type: "T0", Data: 1}, messagedb.AnyVersion); err != nil {
			return err
		}
		for waits := false; !waits; {
			if err := s.pool.QueryRow(ctx, "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'").Scan(&waits); err != nil {
				return err
			}
			if old.Stats().Handled > 40 {
				return errors.New("the live one went on")
			}
		}
		return nil
	}})
	failed := runProjector(t, next)
	require.Eventually(t, func() bool { return next.Stats().Live || len(failed) > 0 }, soon, time.Millisecond)
	require.Empty(t, failed)
	stopped := new(messagedb.ProjectionError)
	require.ErrorAs(t, take(t, ended), &stopped)
	requireTally(t, s, "tally", all)
	after, err := s.client.ReadCategory(t.Context(), "a", messagedb.CategoryOptions{})
	require.NoError(t, err)
	require.Len(t, after, 41)
	requireTally(t, s, "tally2", after)
}

// If a version reads fewer messages than the live one, its last message may be before the live one's position. It has caught up all the same.
func TestAVersionThatReadsLessCatchesUp(t *testing.T) {
	t.Parallel()
	s := newTallied(t, "tally2")
	all := fillCategory(t, s, "a", 2, 20) // the messages of a-0 are of another correlation than those of a-1
	old := newTestProjector(t, s, messagedb.ProjectorConfig{Handler: tallyInto("tally")})
	runProjector(t, old)
	requireTally(t, s, "tally", all)
	next := newTestProjector(t, s, messagedb.ProjectorConfig{Version: 2, Correlation: "from0", Handler: tallyInto("tally2")})
	runProjector(t, next)
	require.Eventually(t, func() bool { return next.Stats().Live }, soon, time.Millisecond)
	requireTally(t, s, "tally2", all[:20])
}

func TestASwitchThatFailsSwitchesNothing(t *testing.T) {
	t.Parallel()
	s := newTallied(t, "tally2")
	all := fillCategory(t, s, "a", 2, 20)
	old := newTestProjector(t, s, messagedb.ProjectorConfig{Handler: tallyInto("tally")})
	runProjector(t, old)
	requireTally(t, s, "tally", all)
	for want, fail := range map[string]func(ctx context.Context, tx pgx.Tx) error{
		"boom":                       func(context.Context, pgx.Tx) error { return errors.New("boom") },
		"panic: boom":                func(context.Context, pgx.Tx) error { panic("boom") },
		"division by zero":           func(ctx context.Context, tx pgx.Tx) error { _, err := tx.Exec(ctx, "SELECT 1/0"); return err },
		"was ended by what it is fo": func(ctx context.Context, tx pgx.Tx) error { return tx.Rollback(ctx) },
	} {
		next := newTestProjector(t, s, messagedb.ProjectorConfig{Version: 2, Handler: tallyInto("tally2"), Switch: fail})
		err := take(t, runProjector(t, next))
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, "the switch to this version")
		require.Equal(t, messagedb.ProjectionLive, readProjection(t, s, 1).State)
		require.Equal(t, messagedb.ProjectionBuilding, readProjection(t, s, 2).State)
	}
	victim := true
	next := newTestProjector(t, s, messagedb.ProjectorConfig{Version: 2, Handler: tallyInto("tally2"), Switch: func(ctx context.Context, tx pgx.Tx) error {
		if victim {
			victim = false
			_, err := tx.Exec(ctx, "DO $$ BEGIN RAISE EXCEPTION 'victim' USING ERRCODE = '40001'; END $$")
			return err
		}
		return nil
	}})
	runProjector(t, next)
	require.Eventually(t, func() bool { return next.Stats().Live }, soon, time.Millisecond)
	requireTally(t, s, "tally2", all)
}
