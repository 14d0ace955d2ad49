package delta_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/grpc"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/internal/soak"
)

func TestTheScheduleFollowsTheSettings(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	handle := h.Temporal.ScheduleClient().GetHandle(t.Context(), h.Prefix+"/inform:hourly")
	every := func() time.Duration {
		found, err := handle.Describe(t.Context())
		require.NoError(t, err)
		return found.Schedule.Spec.Intervals[0].Every
	}
	jitter := func() time.Duration {
		found, err := handle.Describe(t.Context())
		require.NoError(t, err)
		return found.Schedule.Spec.Jitter
	}
	for _, interval := range []time.Duration{time.Hour, time.Hour, 2 * time.Hour} {
		config := h.config(with(&controller[hourly]{}))
		config.ResourceInformInterval = interval
		c := h.client(config)
		require.NoError(t, c.Start(t.Context()))
		require.NoError(t, c.Stop(t.Context()))
		require.Equal(t, interval, every())
		require.Equal(t, 30*time.Second, jitter(), "a tenth of the interval, but not more")
		// A pause by an operator stays.
		if interval == time.Hour {
			require.NoError(t, handle.Pause(t.Context(), client.SchedulePauseOptions{Note: "maintenance"}))
		}
	}
	for given, want := range map[time.Duration]time.Duration{5 * time.Minute: 5 * time.Minute, -1: 0} {
		config := h.config(with(&controller[hourly]{}))
		config.ResourceInformJitter = given
		c := h.client(config)
		require.NoError(t, c.Start(t.Context()))
		require.NoError(t, c.Stop(t.Context()))
		require.Equal(t, want, jitter())
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

// hourly is a kind whose interval comes from the client's Config.
type hourly struct{ account }

func (hourly) Kind() string                   { return "hourly" }
func (hourly) Settings() delta.ObjectSettings { return delta.ObjectSettings{} }

func TestAScheduleThatAnotherInstallationLeftIsTakenOver(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h, other := newHarness(t), newHarness(t)
	old := h.start(h.config(with(&controller[listed]{})))
	require.NoError(t, old.Stop(t.Context()))
	require.NoError(t, h.Temporal.ScheduleClient().GetHandle(t.Context(), h.Prefix+"/installation:do-not-resume-or-delete").Delete(t.Context()))

	passed := make(chan struct{}, 10)
	config := other.config(with(&controller[listed]{inform: func(ctx context.Context, _ *delta.InformOptions) (<-chan listed, error) {
		passed <- struct{}{}
		return sendAll(ctx, listed{Name: "a"}), nil
	}}))
	config.WorkflowIDPrefix = h.Prefix
	other.start(config)
	// Runs do not overlap, so a leftover run of the first installation has to end first.
	until(t, func() bool {
		h.triggerInformer("listed")
		return len(passed) > 0
	})
	other.eventually("listed", "a", synced(1))
	require.Nil(t, h.row("listed", "a"))
}

// Clients with different settings, as during a deploy, do not undo each other's schedules. A recreated schedule would run at once.
func TestTheLastClientThatStartsDecidesTheSchedule(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	var passes atomic.Int64
	informs := &controller[hourly]{inform: func(ctx context.Context, _ *delta.InformOptions) (<-chan hourly, error) {
		passes.Add(1)
		return sendAll[hourly](ctx), nil
	}}
	looks := &looking{}
	h := &harness{t: t, Env: deltatest.New(t, deltatest.WithTemporalOptions(looks.count))}
	const look = 100 * time.Millisecond
	for _, interval := range []time.Duration{-1, time.Hour} {
		config := h.config(with(informs))
		config.ResourceInformInterval, config.MaintenanceJobInterval = interval, look
		h.start(config)
	}
	until(t, func() bool { return passes.Load() > 0 })
	looks.awaitMore(t, 40) // checks of two clients
	require.EqualValues(t, 1, passes.Load())
	found, err := h.Temporal.ScheduleClient().GetHandle(t.Context(), h.Prefix+"/inform:hourly").Describe(t.Context())
	require.NoError(t, err)
	require.Equal(t, time.Hour, found.Schedule.Spec.Intervals[0].Every)
}

// looking counts how often clients check their schedules: each check begins with the mark of their installation.
type looking struct{ n atomic.Int64 }

func (l *looking) count(o *client.Options) {
	o.ConnectionOptions.DialOptions = append(o.ConnectionOptions.DialOptions, grpc.WithChainUnaryInterceptor(
		func(ctx context.Context, method string, in, out any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			err := invoke(ctx, method, in, out, cc, opts...)
			if asked, ok := in.(*workflowservice.DescribeScheduleRequest); ok && strings.HasSuffix(asked.GetScheduleId(), "/installation:do-not-resume-or-delete") {
				l.n.Add(1)
			}
			return err
		}))
}

// awaitMore waits for a number of further checks.
func (l *looking) awaitMore(t *testing.T, times int64) {
	t.Helper()
	before := l.n.Load()
	until(t, func() bool { return l.n.Load() >= before+times })
}

// An operator who pauses a schedule leaves a note on it.
func TestAScheduleThatWasPausedIsNotWrittenAgainAndAgain(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	looks := &looking{}
	h := &harness{t: t, Env: deltatest.New(t, deltatest.WithTemporalOptions(looks.count))}
	config := h.config(with(&controller[hourly]{}))
	const look = 100 * time.Millisecond
	config.MaintenanceJobInterval = look
	c := h.start(config)
	require.NoError(t, c.PauseInformer(t.Context(), "hourly"))
	require.NoError(t, c.ResumeInformer(t.Context(), "hourly"))
	looks.awaitMore(t, 4) // a check that began before the pause may still write
	found, err := h.Temporal.ScheduleClient().GetHandle(t.Context(), h.Prefix+"/inform:hourly").Describe(t.Context())
	require.NoError(t, err)
	before := found.Info.LastUpdateAt
	looks.awaitMore(t, 10)
	found, err = h.Temporal.ScheduleClient().GetHandle(t.Context(), h.Prefix+"/inform:hourly").Describe(t.Context())
	require.NoError(t, err)
	require.Equal(t, before, found.Info.LastUpdateAt)
}
