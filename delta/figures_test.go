package delta_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/soak"
)

// figured is a kind whose object names decide the outcome of Work.
type figured struct{ account }

func (figured) Kind() string { return "figured" }
func (figured) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{InformInterval: -1, RetryPolicy: delta.RetryPolicy{InitialInterval: 10 * time.Millisecond}}
}

func workFigured(_ context.Context, r *delta.Resource[figured]) error {
	switch plan := r.Object.Plan; {
	case plan == "hopeless":
		return delta.ResourceDegrade(errors.New("no such plan"))
	case plan == "gone":
		return delta.ResourceDelete(errors.New("404"))
	case plan == "retried" && r.Attempt == 1:
		return errors.New("503")
	case plan == "snoozed" && r.Snoozes == 0:
		return delta.ResourceSnooze(10 * time.Millisecond)
	}
	return nil
}

// sumAttempts returns the sums over all minutes of a kind, and the number of minutes.
func (h *harness) sumAttempts(c *delta.Client, kind string) (sums map[delta.Outcome]int64, minutes int) {
	h.t.Helper()
	all, err := c.Figures(h.t.Context(), kind, time.Now().Add(-time.Hour))
	require.NoError(h.t, err)
	sums = map[delta.Outcome]int64{}
	for _, f := range all {
		require.Equal(h.t, kind, f.Kind)
		require.Equal(h.t, f.Minute.Truncate(time.Minute), f.Minute)
		require.Equal(h.t, time.UTC, f.Minute.Location())
		require.Positive(h.t, f.P50)
		require.GreaterOrEqual(h.t, f.P95, f.P50)
		require.NotEmpty(h.t, f.Attempts)
		for outcome, n := range f.Attempts {
			require.Positive(h.t, n)
			sums[outcome] += n
		}
	}
	return sums, len(all)
}

func TestFiguresAddUpTheAttemptsOfAllClients(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	began := h.now()
	reader := h.client(h.config())
	one, other := h.client(h.config(with(&controller[figured]{work: workFigured}))), h.client(h.config(with(&controller[figured]{work: workFigured})))
	require.NoError(t, one.Start(context.Background()))
	require.NoError(t, other.Start(context.Background()))
	var objects []delta.Object
	for i := range 40 {
		plan := [...]string{"fine", "hopeless", "gone", "retried", "snoozed"}[i%5]
		objects = append(objects, figured{account{Name: fmt.Sprint(i), Plan: plan}})
	}
	_, err := reader.InformMany(t.Context(), objects, nil)
	require.NoError(t, err)
	until(t, func() bool {
		return h.countRows("SELECT count(*)::int FROM delta_resource WHERE state IN ('synced', 'degraded', 'deleted')") == len(objects)
	})
	require.NoError(t, one.Stop(t.Context()))
	require.NoError(t, other.Stop(t.Context()))
	// A third client adds to the stored figures.
	third := h.start(h.config(with(&controller[figured]{work: workFigured})))
	_, err = third.Sync(t.Context(), figured{account{Name: "later", Plan: "fine"}}, nil)
	require.NoError(t, err)
	require.NoError(t, third.Stop(t.Context()))

	wanted := map[delta.Outcome]int64{
		delta.OutcomeSynced: 8 + 8 + 8 + 1, delta.OutcomeDegraded: 8, delta.OutcomeDeleted: 8, delta.OutcomeFailed: 8, delta.OutcomeSnoozed: 8,
	}
	sums, minutes := h.sumAttempts(reader, "figured")
	require.Equal(t, wanted, sums)
	require.LessOrEqual(t, minutes, int(h.now().Truncate(time.Minute).Sub(began.Truncate(time.Minute))/time.Minute)+1, "clients share the row of a minute")
	var synced, degraded int64
	require.NoError(t, h.Pool.QueryRow(t.Context(), "SELECT synced, degraded FROM delta_figure WHERE minute = '-infinity'").Scan(&synced, &degraded))
	require.Equal(t, [2]int64{25, 8}, [2]int64{synced, degraded}, "the counters of figures")

	later, err := reader.Figures(t.Context(), "", h.now().Add(time.Minute))
	require.NoError(t, err)
	require.Empty(t, later)
	_, err = reader.Figures(t.Context(), "no/kind", time.Time{})
	input := new(delta.InputError)
	require.ErrorAs(t, err, &input)
	all, err := reader.Figures(t.Context(), "", time.Time{})
	require.NoError(t, err)
	require.Len(t, all, minutes)
}

// statements counts the statements of a pool that contain a text.
type statements struct {
	text string
	n    atomic.Int64
}

func (s *statements) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	if strings.Contains(data.SQL, s.text) {
		s.n.Add(1)
	}
	return ctx
}

func (*statements) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func TestFiguresOfAllKindsAreOneStatement(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	settings, err := pgxpool.ParseConfig(h.DatabaseURL)
	require.NoError(t, err)
	written := &statements{text: "-- name: AddFigures"}
	settings.ConnConfig.Tracer = written
	pool, err := pgxpool.NewWithConfig(t.Context(), settings)
	require.NoError(t, err)
	defer pool.Close()
	c, err := delta.NewClient(pool, h.config(with(&controller[account]{}), with(&controller[figured]{})))
	require.NoError(t, err)
	c.SetFiguresInterval(100 * 365 * 24 * time.Hour) // so the end of the minute does not write them
	require.NoError(t, c.Start(context.Background()))
	for i := range 5 {
		_, err := c.Sync(t.Context(), account{Name: fmt.Sprint(i)}, nil)
		require.NoError(t, err)
		_, err = c.Sync(t.Context(), figured{account{Name: fmt.Sprint(i)}}, nil)
		require.NoError(t, err)
	}
	require.Zero(t, written.n.Load())
	require.NoError(t, c.Stop(t.Context()))
	require.EqualValues(t, 1, written.n.Load())
	for _, kind := range []string{"account", "figured"} {
		sums, _ := h.sumAttempts(c, kind)
		require.Equal(t, map[delta.Outcome]int64{delta.OutcomeSynced: 5}, sums, kind)
	}
	idle, err := delta.NewClient(pool, h.config(with(&controller[account]{})))
	require.NoError(t, err)
	require.NoError(t, idle.Start(context.Background()))
	require.NoError(t, idle.Stop(t.Context()))
	require.EqualValues(t, 1, written.n.Load(), "an idle client writes nothing")
}

func TestFiguresAreWrittenPeriodicallyAndAfterAFailure(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	var log lockedBuffer
	config := h.config(with(&controller[account]{}))
	config.Logger = slog.New(slog.NewTextHandler(&log, nil))
	c := h.client(config)
	c.SetFiguresInterval(200 * time.Millisecond)
	require.NoError(t, c.Start(context.Background()))
	defer c.Stop(context.Background()) //nolint:errcheck // stopped below
	reader := h.client(h.config())
	become := func(synced int64) {
		t.Helper()
		until(t, func() bool {
			sums, _ := h.sumAttempts(reader, "account")
			return sums[delta.OutcomeSynced] == synced
		})
	}
	_, err := c.Sync(t.Context(), account{Name: "ann"}, nil)
	require.NoError(t, err)
	become(1)
	_, err = h.Pool.Exec(t.Context(), "ALTER TABLE delta_figure RENAME TO away")
	require.NoError(t, err)
	_, err = c.Sync(t.Context(), account{Name: "bob"}, nil)
	require.NoError(t, err)
	until(t, func() bool { return strings.Contains(log.String(), "writing figures of attempts failed") })
	_, err = h.Pool.Exec(t.Context(), "ALTER TABLE away RENAME TO delta_figure")
	require.NoError(t, err)
	become(2)
	_, err = c.Sync(t.Context(), account{Name: "cay"}, nil)
	require.NoError(t, err)
	require.NoError(t, c.Stop(t.Context()))
	sums, _ := h.sumAttempts(reader, "account")
	require.Equal(t, map[delta.Outcome]int64{delta.OutcomeSynced: 3}, sums)
}

func TestFiguresAreKeptForTwoDays(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	config := h.config(with(&controller[account]{}))
	config.MaintenanceJobInterval = 20 * time.Millisecond
	_, err := h.Pool.Exec(t.Context(), `INSERT INTO delta_figure SELECT 'account', m, 1, 0, 0, 0, 0, 0, 0, 1, '{1}' FROM unnest(ARRAY[
		'-infinity', date_trunc('minute', now() - interval '47 hours'), date_trunc('minute', now() - interval '49 hours'), now() - interval '1 year'
	]::timestamptz[]) AS m`)
	require.NoError(t, err)
	h.start(config)
	until(t, func() bool { return h.countRows("SELECT count(*)::int FROM delta_figure") == 2 })
	all, err := h.client(h.config()).Figures(t.Context(), "account", time.Time{})
	require.NoError(t, err)
	require.Len(t, all, 1)
	require.Equal(t, 1, h.countRows("SELECT count(*)::int FROM delta_figure WHERE minute = '-infinity'"), "the sums are unchanged")
}

func TestDurationsAreCountedInBuckets(t *testing.T) {
	t.Parallel()
	require.Zero(t, delta.BucketOf(1))
	last := 24
	for b := range last {
		bound := delta.BoundOf(b)
		require.Equal(t, b, delta.BucketOf(bound), bound)
		require.Equal(t, b+1, delta.BucketOf(bound+1), bound)
	}
	require.Equal(t, last, delta.BucketOf(1000*time.Hour))
}

// Quantiles of counted durations are exact to a factor of 2.
func TestQuantilesOfBuckets(t *testing.T) {
	t.Parallel()
	durations := make([]int64, 25)
	require.Zero(t, delta.Quantile(durations, .5))
	durations[24] = 3
	require.Equal(t, delta.BoundOf(23), delta.Quantile(durations, .5), "longer than all bounds")
	durations = make([]int64, 25)
	durations[3] = 4 // within (4 ms, 8 ms]
	require.Equal(t, 6*time.Millisecond, delta.Quantile(durations, .5))
	require.Equal(t, 7800*time.Microsecond, delta.Quantile(durations, .95))

	for seed := range uint64(50) {
		random := rand.New(rand.NewPCG(seed, 1))
		clear(durations)
		var all []time.Duration
		for range 1 + random.IntN(200) {
			took := time.Duration(1 + random.Int64N(int64(time.Millisecond)<<random.IntN(20)))
			all = append(all, took)
			durations[delta.BucketOf(took)]++
		}
		slices.Sort(all)
		for _, share := range []float64{.5, .95} {
			exact := all[int(float64(len(all))*share+.999999)-1]
			estimated := delta.Quantile(durations, share)
			require.LessOrEqual(t, estimated, max(2*exact, time.Millisecond), "seed %d", seed)
			require.GreaterOrEqual(t, 2*estimated, exact-2*time.Millisecond, "seed %d", seed)
		}
	}
}

// Every attempt is counted, so counting must be cheap.
func TestCountingAnAttemptTakesNoMemory(t *testing.T) {
	pool, err := pgxpool.New(t.Context(), "postgres://127.0.0.1:1/none")
	require.NoError(t, err)
	defer pool.Close()
	controllers := delta.NewControllers()
	delta.AddController(controllers, &controller[account]{})
	c, err := delta.NewClient(pool, &delta.Config{Controllers: controllers})
	require.NoError(t, err)
	c.SetFiguresInterval(100 * 365 * 24 * time.Hour)
	require.Zero(t, testing.AllocsPerRun(1000, func() { c.CountAttempt("account", time.Second) }))
}

func TestManyClientsWriteFiguresAtOnce(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	var all sync.WaitGroup
	const clients = 4
	for range clients {
		c := h.client(h.config(with(&controller[account]{}), with(&controller[figured]{}), with(&controller[serial]{})))
		for range 100 {
			for _, kind := range []string{"account", "figured", "serial"} {
				c.CountAttempt(kind, time.Second)
			}
		}
		all.Go(func() {
			if err := c.Stop(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	require.Equal(t, 3*100*clients, h.countRows("SELECT sum(synced)::int FROM delta_figure WHERE minute = '-infinity' AND seconds = synced AND durations[11] = synced"))
	require.Equal(t, 3*100*clients, h.countRows("SELECT sum(synced)::int FROM delta_figure WHERE minute > '-infinity'"))
}
