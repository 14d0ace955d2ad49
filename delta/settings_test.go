package delta_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/internal/soak"
)

// tuned is a kind whose settings are under test.
type tuned struct{ account }

func (tuned) Kind() string { return "tuned" }
func (tuned) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{
		Parallelism: 20, InformInterval: -1, RateLimit: 10, HeartbeatTimeout: patience, // so that no machine loses a claim
		RetryPolicy: delta.RetryPolicy{InitialInterval: 20 * time.Millisecond, BackoffCoefficient: 1.5, MaximumInterval: 50 * time.Millisecond},
	}
}

func TestTheRetryPolicyAndTheHeartbeatOfAKindHold(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	c := h.start(h.config(with(&controller[tuned]{work: func(_ context.Context, r *delta.Resource[tuned]) error {
		if r.Attempt < 6 {
			return errors.New("not yet")
		}
		return nil
	}})))
	_, err := c.Inform(t.Context(), tuned{account{Name: "a"}}, nil)
	require.NoError(t, err)
	row := h.eventually("tuned", "a", synced(1))
	require.Equal(t, 6, row.Attempt)
	// Each timer's duration, within a tenth: 20 ms, 30 ms, 45 ms, and then the maximum.
	waits := h.timerDurations(row.WorkflowID)
	for i, want := range []float64{20, 30, 45, 50, 50} {
		require.InDelta(t, want, waits[i].Seconds()*1000, want/10+1, "%s", waits)
	}
	attempts := 0
	for _, event := range h.history(row.WorkflowID) {
		if scheduled := event.GetActivityTaskScheduledEventAttributes(); scheduled != nil {
			attempts++
			require.Equal(t, patience, scheduled.GetHeartbeatTimeout().AsDuration())
		}
	}
	require.GreaterOrEqual(t, attempts, 6)
}

func TestTheRateLimitOfAKindHolds(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	var mu sync.Mutex
	h := newHarness(t)
	var calls []time.Time
	work := &controller[tuned]{work: func(context.Context, *delta.Resource[tuned]) error {
		mu.Lock()
		defer mu.Unlock()
		calls = append(calls, time.Now())
		return nil
	}}
	// Two clients share the limit.
	c := h.start(h.config(with(work)))
	h.start(h.config(with(work)))
	before := time.Now()
	var objects []delta.Object
	for i := range 40 {
		objects = append(objects, tuned{account{Name: fmt.Sprint(i)}})
	}
	_, err := c.InformMany(t.Context(), objects, nil)
	require.NoError(t, err)
	for _, o := range objects {
		h.eventually("tuned", o.ID(), synced(1))
	}
	mu.Lock()
	defer mu.Unlock()
	// Measured from before the first call, which may begin late on a busy machine.
	took := calls[len(calls)-1].Sub(before)
	t.Logf("40 calls took %s", took)
	// Ten a second, in batches and as singles. Calls that two clients have reserved at the beginning may come at once.
	require.Greater(t, took, 2*time.Second)
}

// brisk is a kind with a heartbeat every second.
type brisk struct{ account }

func (brisk) Kind() string { return "brisk" }
func (brisk) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{Parallelism: 20, InformInterval: -1, HeartbeatTimeout: 4 * time.Second}
}

// Work that ends during a heartbeat must not log a warning. Without the fix, this logs some forty.
func TestTheEndOfWorkCutsNoHeartbeat(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	var logged logBuffer
	h := &harness{t: t, Env: deltatest.New(t, deltatest.WithTemporalOptions(func(o *client.Options) {
		o.Logger = log.NewStructuredLogger(logged.logger())
	}))}
	var calls atomic.Int64
	c := h.start(h.config(with(&controller[brisk]{work: func(context.Context, *delta.Resource[brisk]) error {
		time.Sleep(995*time.Millisecond + time.Duration(calls.Add(1)%10)*time.Millisecond)
		return nil
	}})))
	var objects []delta.Object
	for i := range 60 {
		objects = append(objects, brisk{account{Name: fmt.Sprint(i)}})
	}
	_, err := c.InformMany(t.Context(), objects, nil)
	require.NoError(t, err)
	for _, o := range objects {
		h.eventually("brisk", o.ID(), synced(1))
	}
	require.NotRegexp(t, `RecordActivityHeartbeat.*context canceled`, logged.String())
}

// badly is a kind with an invalid setting.
type badly struct{ account }

var badSettings delta.ObjectSettings

func (badly) Settings() delta.ObjectSettings { return badSettings }

//nolint:paralleltest // it changes what Settings returns
func TestSettingsThatBreakARuleAreRefused(t *testing.T) {
	for field, settings := range map[string]delta.ObjectSettings{
		"Parallelism":                     {Parallelism: 10_001},
		"RateLimit":                       {RateLimit: -1},
		"BatchSize":                       {BatchSize: -1},
		"BatchWait":                       {BatchWait: time.Minute},
		"HeartbeatTimeout":                {HeartbeatTimeout: time.Millisecond},
		"MaxDeletedShare":                 {MaxDeletedShare: 1.5},
		"RetryPolicy.InitialInterval":     {RetryPolicy: delta.RetryPolicy{InitialInterval: -1}},
		"RetryPolicy.MaximumInterval":     {RetryPolicy: delta.RetryPolicy{MaximumInterval: -1}},
		"RetryPolicy.BackoffCoefficient":  {RetryPolicy: delta.RetryPolicy{BackoffCoefficient: 0.5}},
		"BatchSize ":                      {BatchSize: 10_001},
		"RateLimit ":                      {RateLimit: math.NaN()},
		"RateLimit  ":                     {RateLimit: math.Inf(1)},
		"MaxDeletedShare ":                {MaxDeletedShare: math.NaN()},
		"RetryPolicy.BackoffCoefficient ": {RetryPolicy: delta.RetryPolicy{BackoffCoefficient: math.NaN()}},
		"RetryPolicy.MaximumInterval ":    {RetryPolicy: delta.RetryPolicy{MaximumInterval: math.MaxInt64}},
		"InformInterval":                  {InformInterval: time.Millisecond},
		"InformOverlap":                   {InformOverlap: math.MaxInt64},
	} {
		field = strings.TrimSpace(field)
		badSettings = settings
		err := delta.AddControllerSafely(delta.NewControllers(), &controller[badly]{})
		input := new(delta.InputError)
		require.ErrorAs(t, err, &input, field)
		require.Equal(t, field, input.Field)
		require.NotContains(t, input.Rule, "documentation", "the error has the rule")
	}
}
