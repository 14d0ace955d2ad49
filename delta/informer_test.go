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

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta"
)

// listed is a kind with an informer, and objects that know when they were created.
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

// undated is listed, without a time of creation.
type undated struct{ account }

func (undated) Kind() string { return "undated" }
func (undated) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{InformInterval: time.Second}
}

func send[T any](ctx context.Context, objects ...T) <-chan T {
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

func (h *harness) cursor(kind string) time.Time {
	h.t.Helper()
	c, err := db.New().GetController(context.Background(), h.Pool, kind)
	require.NoError(h.t, err)
	return c.LastInformTime.UTC()
}

func (h *harness) trigger(kind string) {
	h.t.Helper()
	require.NoError(h.t, h.Temporal.ScheduleClient().GetHandle(context.Background(), h.Prefix+"/inform:"+kind).
		Trigger(context.Background(), client.ScheduleTriggerOptions{}))
}

func TestAnInformerRunsAtTheFirstStartAndGoesOnFromWhatItSaw(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	latest := time.Date(2026, 3, 4, 5, 6, 7, 891_000, time.UTC)
	options := make(chan delta.InformOptions, 10)
	h.start(h.config(with(&controller[listed]{inform: func(ctx context.Context, o *delta.InformOptions) (<-chan listed, error) {
		options <- *o
		var objects []listed
		for i := range 20 {
			objects = append(objects, listed{Name: fmt.Sprint(i), Made: latest.Add(-time.Duration(i) * time.Minute)})
		}
		return send(ctx, objects...), nil
	}})))
	require.Nil(t, (<-options).After, "the first pass asks for everything")
	for _, i := range []int{0, 10, 19} {
		h.eventually("listed", fmt.Sprint(i), synced(1))
	}
	require.Eventually(t, func() bool { return h.cursor("listed").Equal(latest) }, 10*time.Second, 10*time.Millisecond)
	require.Equal(t, latest, *h.row("listed", "0").ExternalCreatedAt)

	h.trigger("listed")
	require.Equal(t, latest.Add(-5*time.Minute), *(<-options).After, "the default overlap before the cursor")
}

func TestTheScheduleRepeatsAndUnchangedObjectsAreLeftAlone(t *testing.T) {
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
			at := time.Time{}
			if o.After != nil {
				at = *o.After
			}
			passes <- at
			return send(ctx, undated{account{Name: "ann"}}), nil
		},
	})))
	require.True(t, (<-passes).IsZero())
	second, third := <-passes, <-passes
	require.False(t, second.IsZero(), "without times of creation the start of a pass counts")
	require.True(t, third.After(second))
	h.eventually("undated", "ann", synced(1))
	require.EqualValues(t, 1, calls.Load())
}

func TestTheCursorMovesOnlyAfterACompletePass(t *testing.T) {
	t.Parallel()
	for name, pass := range map[string]func(ctx context.Context) (<-chan listed, error){
		"an error":   func(context.Context) (<-chan listed, error) { return nil, errors.New("upstream is down") },
		"no channel": func(context.Context) (<-chan listed, error) { return nil, nil },
		"a panic":    func(context.Context) (<-chan listed, error) { panic("broken") },
		"an end": func(context.Context) (<-chan listed, error) {
			runtime.Goexit() // as a failing test assertion does
			return nil, nil
		},
		"closed because the time is up": func(ctx context.Context) (<-chan listed, error) {
			out := make(chan listed)
			go func() {
				defer close(out)
				out <- listed{Name: "some", Made: time.Now()}
				<-ctx.Done()
			}()
			return out, nil
		},
		"an object that is refused": func(ctx context.Context) (<-chan listed, error) {
			return send(ctx, listed{Name: "some", Made: time.Now()}, listed{Name: ""}), nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			var once sync.Once
			tried := make(chan struct{})
			config := h.config(with(&controller[listed]{inform: func(ctx context.Context, _ *delta.InformOptions) (<-chan listed, error) {
				defer once.Do(func() { close(tried) })
				return pass(ctx)
			}}))
			config.ControllerInformTimeout = 500 * time.Millisecond
			c := h.start(config)
			<-tried
			require.NoError(t, c.Stop(t.Context()), "the pass is over")
			require.Zero(t, h.cursor("listed").Unix())
			if name == "an object that is refused" || name == "closed because the time is up" {
				require.NotNil(t, h.row("listed", "some"), "what was listed is taken all the same")
			}
		})
	}
}

func TestTheScheduleFollowsTheSettings(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	handle := h.Temporal.ScheduleClient().GetHandle(t.Context(), h.Prefix+"/inform:hourly")
	every := func() time.Duration {
		found, err := handle.Describe(t.Context())
		require.NoError(t, err)
		return found.Schedule.Spec.Intervals[0].Every
	}
	for _, interval := range []time.Duration{time.Hour, time.Hour, 2 * time.Hour} {
		config := h.config(with(&controller[hourly]{}))
		config.ResourceInformInterval = interval
		c := h.client(config)
		require.NoError(t, c.Start(t.Context()))
		require.NoError(t, c.Stop(t.Context()))
		require.Equal(t, interval, every())
		// An operator's pause holds.
		if interval == time.Hour {
			require.NoError(t, handle.Pause(t.Context(), client.SchedulePauseOptions{Note: "maintenance"}))
		}
	}
	found, err := handle.Describe(t.Context())
	require.NoError(t, err)
	require.True(t, found.Schedule.State.Paused)
	require.Equal(t, "maintenance", found.Schedule.State.Note)

	config := h.config(with(&controller[hourly]{}))
	config.ResourceInformInterval = -1
	c := h.client(config)
	require.NoError(t, c.Start(t.Context()))
	require.NoError(t, c.Stop(t.Context()))
	_, err = handle.Describe(t.Context())
	require.ErrorAs(t, err, new(*serviceerror.NotFound))
}

// hourly leaves its interval to the client.
type hourly struct{ account }

func (hourly) Kind() string                   { return "hourly" }
func (hourly) Settings() delta.ObjectSettings { return delta.ObjectSettings{} }

func TestAScheduleThatAnotherInstallationLeftIsTakenOver(t *testing.T) {
	t.Parallel()
	h, other := newHarness(t), newHarness(t)
	old := h.start(h.config(with(&controller[listed]{})))
	require.NoError(t, old.Stop(t.Context()))
	require.NoError(t, h.Temporal.ScheduleClient().GetHandle(t.Context(), h.Prefix+"/installation").Delete(t.Context()))

	passed := make(chan struct{}, 10)
	config := other.config(with(&controller[listed]{inform: func(ctx context.Context, _ *delta.InformOptions) (<-chan listed, error) {
		passed <- struct{}{}
		return send(ctx, listed{Name: "a"}), nil
	}}))
	config.WorkflowIDPrefix = h.Prefix
	other.start(config)
	// A run that the first installation left may still be there to be ended, and runs do not overlap.
	require.Eventually(t, func() bool {
		h.trigger("listed")
		return len(passed) > 0
	}, 30*time.Second, 200*time.Millisecond)
	other.eventually("listed", "a", synced(1))
	require.Nil(t, h.row("listed", "a"))
}

// Clients that differ, as while they are replaced, do not undo each other's schedules: one that is made anew runs at once.
func TestTheLastClientThatStartsDecidesTheSchedule(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	var passes atomic.Int64
	informs := &controller[hourly]{inform: func(ctx context.Context, _ *delta.InformOptions) (<-chan hourly, error) {
		passes.Add(1)
		return send[hourly](ctx), nil
	}}
	const look = 100 * time.Millisecond
	for _, interval := range []time.Duration{-1, time.Hour} {
		config := h.config(with(informs))
		config.ResourceInformInterval, config.MaintenanceJobInterval = interval, look
		h.start(config)
	}
	require.Eventually(t, func() bool { return passes.Load() > 0 }, 30*time.Second, look)
	time.Sleep(20 * look)
	require.EqualValues(t, 1, passes.Load())
	found, err := h.Temporal.ScheduleClient().GetHandle(t.Context(), h.Prefix+"/inform:hourly").Describe(t.Context())
	require.NoError(t, err)
	require.Equal(t, time.Hour, found.Schedule.Spec.Intervals[0].Every)
}

// Who pauses a schedule leaves a note of his own on it.
func TestAScheduleThatWasPausedIsNotWrittenAgainAndAgain(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	config := h.config(with(&controller[hourly]{}))
	const look = 100 * time.Millisecond
	config.MaintenanceJobInterval = look
	c := h.start(config)
	require.NoError(t, c.PauseInformer(t.Context(), "hourly"))
	require.NoError(t, c.ResumeInformer(t.Context(), "hourly"))
	found, err := h.Temporal.ScheduleClient().GetHandle(t.Context(), h.Prefix+"/inform:hourly").Describe(t.Context())
	require.NoError(t, err)
	before := found.Info.LastUpdateAt
	time.Sleep(10 * look)
	found, err = h.Temporal.ScheduleClient().GetHandle(t.Context(), h.Prefix+"/inform:hourly").Describe(t.Context())
	require.NoError(t, err)
	require.Equal(t, before, found.Info.LastUpdateAt)
}
