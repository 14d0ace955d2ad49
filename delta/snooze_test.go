package delta_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	historypb "go.temporal.io/api/history/v1"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// snoozing holds the first calls of Work until the test gives their results.
type snoozing struct {
	mode
	calls atomic.Int64
	begun chan string
	says  chan error
}

// work returns the test's result for the first calls, and nil for later ones.
func (s *snoozing) work(ctx context.Context, j job) error {
	if s.calls.Add(1) > 8 { // the Parallelism of the kinds
		return nil
	}
	s.begun <- j.ObjectID
	select {
	case err := <-s.says:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// fill starts a client, and informs enough resources that eight calls of Work run, and other due rows are dispatched and wait.
func (s *snoozing) fill(opts *delta.InformOpts, add ...func(*delta.Controllers)) *delta.Client {
	s.t.Helper()
	s.begun, s.says = make(chan string, 100), make(chan error)
	config := s.config(append(add, s.controller(s.work))...)
	config.ResourceWorkTimeout = 10 * patience
	config.Kinds = map[string]delta.ObjectSettings{s.kind: {HeartbeatTimeout: patience}} // so that a stall loses no claim, which would cost another call
	c := s.start(config)
	s.inform(c, opts, names("r", 30)...)
	for range 8 {
		got(s.t, s.begun)
	}
	for _, name := range names("r", 30) {
		s.awaitRow(name, func(r *deltatype.ResourceRow) bool { return r.DispatchAt.After(r.CreatedAt) })
	}
	return c
}

// requireWithheld waits until the rows that were dispatched when the snooze came are released, or wait for a timer, without a call of Work.
func (s *snoozing) requireWithheld() {
	s.t.Helper()
	for _, name := range names("r", 30) {
		s.awaitRow(name, func(r *deltatype.ResourceRow) bool { return r.ClaimedUntil == nil })
	}
	if s.kind == "each" { // the last dispatched single waits for a timer
		s.awaitEvent(s.Prefix+"/each/r29", func(e *historypb.HistoryEvent) bool { return e.GetTimerStartedEventAttributes() != nil })
	}
	require.EqualValues(s.t, 8, s.calls.Load(), "Work that ran goes on, and no other begins")
}

func TestASnoozeOfAKindStopsTheHerd(t *testing.T) {
	soak.Long(t)
	inEachMode(t, func(t *testing.T, g mode) {
		s := &snoozing{mode: g}
		c := s.fill(nil)
		s.says <- delta.SnoozeKind(time.Hour)
		var long time.Time
		until(t, func() bool {
			all, err := c.Snoozes(t.Context())
			require.NoError(t, err)
			if len(all) == 1 {
				require.Equal(t, g.kind, all[0].Kind)
				long = all[0].Until
			}
			return len(all) == 1
		})
		s.says <- delta.SnoozeKind(time.Millisecond)
		for range 6 {
			s.says <- nil
		}
		s.requireWithheld()
		all, err := c.Snoozes(t.Context())
		require.NoError(t, err)
		require.Equal(t, []delta.Snooze{{Kind: g.kind, Until: long}}, all, "a shorter snooze does not end a longer one")

		// Another client works no waiting or new resources of the kind either. It has tried once it has worked another kind.
		other := s.start(s.config(s.controller(s.work), with(&controller[serial]{})))
		g.inform(other, nil, names("late", 40)...)
		_, err = other.Inform(t.Context(), serial{account{Name: "free"}}, nil)
		require.NoError(t, err)
		s.eventually("serial", "free", synced(1))
		kinds, err := c.Kinds(t.Context())
		require.NoError(t, err)
		for _, kind := range kinds {
			require.Equal(t, kind.Kind == g.kind, kind.SnoozedUntil != nil)
		}
		require.EqualValues(t, 8, s.calls.Load())
		for _, name := range names("late", 40) {
			require.False(t, s.row(g.kind, name).DispatchAt.After(s.now()), "it is not leased")
		}

		require.NoError(t, c.ResumeKind(t.Context(), g.kind))
		snoozed := 0
		for _, name := range append(names("r", 30), names("late", 40)...) {
			if row := s.row(g.kind, name); row.Snoozes > 0 { // it snoozed itself
				snoozed++
				continue
			}
			row := g.awaitRow(name, synced(1))
			require.Equal(t, 1, row.Attempt, "no attempt is lost")
			require.Empty(t, row.Errors)
		}
		require.LessOrEqual(t, snoozed, 2)
	})
}

func TestASnoozeOfANamespaceHoldsAcrossKinds(t *testing.T) {
	soak.Long(t)
	inEachMode(t, func(t *testing.T, g mode) {
		s, slow := &snoozing{mode: g}, &delta.InformOpts{Namespace: "slow"}
		c := s.fill(slow, with(&controller[serial]{}))
		s.says <- delta.SnoozeNamespace(time.Hour)
		until(t, func() bool {
			all, err := c.Snoozes(t.Context())
			require.NoError(t, err)
			return len(all) == 1 && all[0].Namespace == "slow"
		})
		for range 7 {
			s.says <- nil
		}
		s.requireWithheld()

		_, err := c.Inform(t.Context(), serial{account{Name: "held"}}, slow)
		require.NoError(t, err)
		_, err = c.Inform(t.Context(), serial{account{Name: "free"}}, nil)
		require.NoError(t, err)
		s.eventually("serial", "free", synced(1))
		g.informEach(c, nil, "other")
		g.awaitRow("other", synced(1))
		require.Zero(t, s.row("serial", "held").Attempt)

		require.NoError(t, c.ResumeNamespace(t.Context(), "slow"))
		s.eventually("serial", "held", synced(1))
		for _, name := range names("r", 30) {
			if s.row(g.kind, name).Snoozes == 0 {
				require.Equal(t, 1, g.awaitRow(name, synced(1)).Attempt)
			}
		}
	})
}

// When the snooze ends, no client of two claims too early, and the waiting rows come back spread over time.
func TestASnoozeEndsByItself(t *testing.T) {
	soak.Long(t)
	inEachMode(t, func(t *testing.T, g mode) {
		s := &snoozing{mode: g}
		c := s.fill(nil)
		s.start(s.config(s.controller(s.work)))
		s.says <- delta.SnoozeKind(5 * time.Second)
		// The snooze may have ended before a busy machine reads it. The row shows that it happened.
		until(t, func() bool {
			return g.countRows("SELECT count(*) FROM delta_controller WHERE name = $1 AND snoozed_until IS NOT NULL", g.kind) == 1
		})
		for range 7 {
			s.says <- nil
		}
		g.inform(c, nil, names("late", 30)...)
		for _, name := range append(names("r", 30), names("late", 30)...) {
			require.Equal(t, 1, g.awaitRow(name, synced(1)).Attempt)
		}
		var early, counted, claims int
		require.NoError(t, g.Pool.QueryRow(t.Context(), `
			SELECT count(*) FILTER (WHERE r.attempted_at < c.snoozed_until + c.snooze_spread * ((r.id % 64) / 64.0)), count(*),
				count(DISTINCT r.attempted_at)
			FROM delta_resource r JOIN delta_controller c ON c.name = r.kind
			WHERE r.kind = $1 AND (r.snoozes > 0 OR r.attempted_at > c.snoozed_until - interval '4 s')`, g.kind).Scan(&early, &counted, &claims))
		require.Zero(t, early)
		require.GreaterOrEqual(t, counted, 30+30-7)
		require.Greater(t, claims, 1, "the rows are spread over time")
	})
}
