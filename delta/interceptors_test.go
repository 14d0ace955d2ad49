package delta_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/interceptor"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// failing is a user's interceptor, of the client and of its workers, that fails while the test wants.
type failing struct {
	interceptor.InterceptorBase
	starts, attempts atomic.Bool
}

var errAudit = errors.New("the audit service is down")

func (f *failing) fail(is *atomic.Bool) error {
	if !is.Load() {
		return nil
	}
	return errAudit
}

func (f *failing) InterceptClient(next interceptor.ClientOutboundInterceptor) interceptor.ClientOutboundInterceptor {
	return &failingCalls{interceptor.ClientOutboundInterceptorBase{Next: next}, f}
}

type failingCalls struct {
	interceptor.ClientOutboundInterceptorBase
	f *failing
}

func (c *failingCalls) ExecuteWorkflow(ctx context.Context, in *interceptor.ClientExecuteWorkflowInput) (client.WorkflowRun, error) {
	if err := c.f.fail(&c.f.starts); err != nil {
		return nil, err
	}
	return c.Next.ExecuteWorkflow(ctx, in)
}

func (c *failingCalls) SignalWithStartWorkflow(ctx context.Context, in *interceptor.ClientSignalWithStartWorkflowInput) (client.WorkflowRun, error) {
	if err := c.f.fail(&c.f.starts); err != nil {
		return nil, err
	}
	return c.Next.SignalWithStartWorkflow(ctx, in)
}

func (f *failing) InterceptActivity(_ context.Context, next interceptor.ActivityInboundInterceptor) interceptor.ActivityInboundInterceptor {
	return &failingActivities{interceptor.ActivityInboundInterceptorBase{Next: next}, f}
}

type failingActivities struct {
	interceptor.ActivityInboundInterceptorBase
	f *failing
}

func (a *failingActivities) ExecuteActivity(ctx context.Context, in *interceptor.ExecuteActivityInput) (any, error) {
	if name := activity.GetInfo(ctx).ActivityType.Name; name == activities.AttemptName || name == activities.AttemptBatchName {
		if err := a.f.fail(&a.f.attempts); err != nil {
			return nil, err
		}
	}
	return a.Next.ExecuteActivity(ctx, in)
}

// While a user's interceptor fails, resources wait, and the interceptor's error is shown. Nothing is lost.
func TestAnInterceptorThatFailsIsNamedAndLosesNothing(t *testing.T) {
	soak.Long(t)
	inEachMode(t, func(t *testing.T, g mode) {
		faulty := &failing{}
		config := g.config(g.controller(func(context.Context, job) error { return nil }))
		temporal, err := dialTemporal(client.Options{
			HostPort: g.TemporalAddress, Namespace: g.TemporalNamespace, Interceptors: []interceptor.ClientInterceptor{faulty},
		})
		require.NoError(t, err)
		t.Cleanup(temporal.Close)
		config.Temporal = temporal
		c := g.start(config)

		faulty.starts.Store(true)
		g.inform(c, nil, "ann")
		row := g.awaitRow("ann", func(r *deltatype.ResourceRow) bool { return len(r.Errors) > 0 })
		require.Contains(t, row.Errors[0].Error, "cannot be started: "+errAudit.Error())
		require.Zero(t, row.Errors[0].Attempt, "no attempt has begun")
		faulty.starts.Store(false)
		row = g.awaitRow("ann", synced(1))
		require.Equal(t, 1, row.Attempt)

		faulty.attempts.Store(true)
		g.inform(c, nil, "bob")
		until(t, func() bool {
			explained, err := c.Explain(t.Context(), g.kind, "bob")
			require.NoError(t, err)
			for _, reason := range explained.Reasons {
				if reason.Code == delta.ReasonWorkflowFailing {
					require.Contains(t, reason.Text, errAudit.Error())
					return true
				}
			}
			return false
		})
		faulty.attempts.Store(false)
		row = g.awaitRow("bob", synced(1))
		require.Equal(t, 1, row.Attempt)
		require.Empty(t, row.Errors)
	})
}
