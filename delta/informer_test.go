package delta_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// listed is a kind with an informer, whose objects have a creation time.
type listed struct {
	Name string
	Made time.Time
}

func (l listed) ID() string           { return l.Name }
func (l listed) Kind() string         { return "listed" }
func (l listed) CreatedAt() time.Time { return l.Made }
func (l listed) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{Parallelism: 8, InformInterval: time.Hour}
}

// undated is a listed kind without creation times.
type undated struct{ account }

func (undated) Kind() string { return "undated" }
func (undated) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{InformInterval: time.Second}
}

func sendAll[T any](ctx context.Context, objects ...T) <-chan T {
	out := make(chan T)
	go func() {
		defer close(out)
		for _, o := range objects {
			select {
			case out <- o:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

func (h *harness) readCursor(kind string) time.Time {
	h.t.Helper()
	s, err := db.New().GetShard(context.Background(), h.Pool, db.GetShardParams{Kind: kind})
	if errors.Is(err, pgx.ErrNoRows) {
		return time.Unix(0, 0).UTC()
	}
	require.NoError(h.t, err)
	return s.LastInformTime.UTC()
}

func (h *harness) triggerInformer(kind string) {
	h.t.Helper()
	h.triggerSchedule("inform:" + kind)
}

func (h *harness) triggerSchedule(name string) {
	h.t.Helper()
	require.NoError(h.t, h.Temporal.ScheduleClient().GetHandle(context.Background(), h.Prefix+"/"+name).
		Trigger(context.Background(), client.ScheduleTriggerOptions{}))
}

func TestAnInformerRunsAtTheFirstStartAndKeepsItsCursor(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	latest := time.Date(2026, 3, 4, 5, 6, 7, 891_000, time.UTC)
	options := make(chan delta.InformOptions, 1000)
	h.start(h.config(with(&controller[listed]{inform: func(ctx context.Context, o *delta.InformOptions) (<-chan listed, error) {
		options <- *o
		var objects []listed
		for i := range 20 {
			objects = append(objects, listed{Name: fmt.Sprint(i), Made: latest.Add(-time.Duration(i) * time.Minute)})
		}
		return sendAll(ctx, objects...), nil
	}})))
	require.Equal(t, time.Unix(0, 0).UTC(), *(<-options).After, "the first pass lists everything, as in Delta on River")
	for _, i := range []int{0, 10, 19} {
		h.eventually("listed", fmt.Sprint(i), synced(1))
	}
	until(t, func() bool { return h.readCursor("listed").Equal(latest) })
	require.Equal(t, latest, *h.row("listed", "0").ExternalCreatedAt)

	for len(options) > 0 { // of a pass that was retried before its cursor was moved
		<-options
	}
	until(t, func() bool { // a run is not started while the last one is ending
		h.triggerInformer("listed")
		return len(options) > 0
	})
	require.Equal(t, latest.Add(-5*time.Minute), *(<-options).After, "the default overlap before the cursor")
}

func TestTheScheduleRepeatsAndUnchangedObjectsAreLeftAlone(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	var calls atomic.Int32
	passes := make(chan time.Time, 100)
	h.start(h.config(with(&controller[undated]{
		work: func(context.Context, *delta.Resource[undated]) error {
			calls.Add(1)
			return nil
		},
		inform: func(ctx context.Context, o *delta.InformOptions) (<-chan undated, error) {
			passes <- *o.After
			return sendAll(ctx, undated{account{Name: "ann"}}), nil
		},
	})))
	first := receive(t, passes)
	require.Zero(t, first.Unix())
	afterwards := func(before time.Time) (next time.Time) { // a pass that stood still is repeated, from the same time
		for next = before; next.Equal(before); {
			next = receive(t, passes)
		}
		return next
	}
	second := afterwards(first)
	require.NotZero(t, second.Unix(), "without creation times, the start of the pass counts")
	require.True(t, afterwards(second).After(second))
	h.eventually("undated", "ann", synced(1))
	require.EqualValues(t, 1, calls.Load())
}

func TestTheCursorMovesOnlyAfterACompletePass(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	for name, pass := range map[string]func(ctx context.Context, tried func()) (<-chan listed, error){
		"an error": func(_ context.Context, tried func()) (<-chan listed, error) {
			defer tried()
			return nil, errors.New("upstream is down")
		},
		"no channel": func(_ context.Context, tried func()) (<-chan listed, error) {
			defer tried()
			return nil, nil
		},
		"a panic": func(_ context.Context, tried func()) (<-chan listed, error) {
			defer tried()
			panic("broken")
		},
		"an end": func(_ context.Context, tried func()) (<-chan listed, error) {
			defer tried()
			runtime.Goexit() // as a failing test assertion does
			return nil, nil
		},
		"closed because the time is up": func(ctx context.Context, tried func()) (<-chan listed, error) {
			out := make(chan listed)
			go func() {
				defer close(out)
				select {
				case out <- listed{Name: "some", Made: time.Now()}:
					tried()
				case <-ctx.Done(): // canceled before it was listed: the pass is repeated
				}
				<-ctx.Done()
			}()
			return out, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			tried := make(chan struct{})
			once := sync.OnceFunc(func() { close(tried) })
			config := h.config(with(&controller[listed]{inform: func(ctx context.Context, _ *delta.InformOptions) (<-chan listed, error) {
				return pass(ctx, once)
			}}))
			if name == "closed because the time is up" {
				config.ControllerInformTimeout = 2 * time.Second
			}
			c := h.start(config)
			<-tried
			if name == "closed because the time is up" {
				// Objects listed before an error are informed anyway, a while later. On a busy machine that may be too late: the pass is repeated.
				h.eventually("listed", "some", func(r *deltatype.ResourceRow) bool { return r != nil })
			}
			require.NoError(t, c.Stop(t.Context()), "the pass is over")
			require.Zero(t, h.readCursor("listed").Unix())
		})
	}
}

// timing is a controller whose InformTimeout depends on the run.
type timing struct {
	yields[mirror]
	asked chan delta.InformArgs[mirror]
}

func (c *timing) InformTimeout(args *delta.InformArgs[mirror]) time.Duration {
	c.asked <- *args
	return 0
}

func TestTheTimeoutOfAPassKnowsItsArgumentsAndTheHistoryThePass(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	controller := &timing{asked: make(chan delta.InformArgs[mirror], 10)}
	controller.list = func(_ context.Context, _ *delta.InformOptions, yield func(mirror, error) bool) {
		yield(mirror{Name: "a"}, nil)
	}
	c := h.start(h.config(addTo[mirror](controller)))
	options := &delta.InformOptions{Labels: map[string]string{"team": "blue"}, Limit: 3}
	run, err := c.RunInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "mirror", ProcessExisting: true, RunForeground: true}, options)
	require.NoError(t, err)
	require.Equal(t, delta.InformArgs[mirror]{ResourceKind: "mirror", ProcessExisting: true, RunForeground: true, Options: options}, <-controller.asked)
	_, err = c.RunInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "mirror", FullListing: true}, nil)
	require.NoError(t, err)
	require.Equal(t, delta.InformArgs[mirror]{ResourceKind: "mirror", FullListing: true, Options: &delta.InformOptions{}}, <-controller.asked)

	all, err := c.InformPasses(t.Context(), "mirror", "", 0)
	require.NoError(t, err)
	require.Len(t, all, 2)
	first := all[1]
	require.NotNil(t, first.EndedAt)
	require.Equal(t, delta.InformPass{
		ID: first.ID, Kind: "mirror", Trigger: "request", WorkflowID: run.WorkflowID, RunID: run.RunID, Attempt: 1,
		StartedAt: first.StartedAt, EndedAt: first.EndedAt, Listed: 1, New: 1,
	}, first)
	require.True(t, all[0].FullListing)
	require.EqualValues(t, 1, all[0].Unchanged)
	latest, err := c.InformPasses(t.Context(), "", "", 1)
	require.NoError(t, err)
	require.Equal(t, all[:1], latest)
	_, err = c.InformPasses(t.Context(), "mirror", "", -1)
	require.ErrorAs(t, err, new(*delta.InputError))
}

// named is a listed kind with tags, which may be invalid.
type named struct{ mirror }

func (named) Kind() string                       { return "named" }
func (n named) InformOpts() delta.InformOpts     { return delta.InformOpts{Tags: []string{n.Note}} }
func (n named) Compare(delta.Object) (int, bool) { return 0, false }

func TestRefusedObjectsAreShownUntilTheyAreTaken(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	outside := &upstream[named]{}
	c := h.start(h.config(with(&controller[named]{inform: outside.inform})))
	note := func(id, tag string) named { return named{mirror{Name: id, Note: tag}} }
	run := func(all ...named) *delta.InformRun {
		outside.set(all...)
		run, err := c.RunInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "named", RunForeground: true}, nil)
		require.NoError(t, err)
		return run
	}
	require.Zero(t, run(note("a", "tagged"), note("b", "tagged"), note("c", "tagged")).Refused)
	before := h.readCursor("named")
	got := run(note("a", "no"), note("b", "tagged"), note("", "tagged"))
	require.Equal(t, 2, got.Refused)
	require.Equal(t, 1, got.Deleted)
	require.True(t, h.readCursor("named").After(before))
	require.Equal(t, deltatype.ResourceStateSynced, h.row("named", "a").State)
	refused, err := c.Refused(t.Context(), "named")
	require.NoError(t, err)
	require.Len(t, refused, 2)
	require.Empty(t, refused[0].ObjectID)
	require.Contains(t, refused[0].Rule, "must not be empty")
	require.Equal(t, "a", refused[1].ObjectID)
	require.Contains(t, refused[1].Rule, `tags[0] "no": must match`)
	require.WithinRange(t, refused[1].Since, before, h.now())
	kinds, err := c.Kinds(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 2, kinds[0].Refused)

	require.Zero(t, run(note("a", "yes"), note("b", "tagged")).Refused)
	require.Equal(t, []string{"yes"}, h.row("named", "a").Tags)
	refused, err = c.Refused(t.Context(), "")
	require.NoError(t, err)
	require.Empty(t, refused)
}
