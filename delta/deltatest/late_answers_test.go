package deltatest

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
)

// callTimes records the time until the deadline of the latest call when it is sent.
type callTimes struct {
	stats.Handler
	left atomic.Int64
}

func (c *callTimes) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	deadline, _ := ctx.Deadline()
	c.left.Store(int64(time.Until(deadline)))
	return ctx
}

func (c *callTimes) HandleRPC(context.Context, stats.RPCStats)                         {}
func (c *callTimes) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (c *callTimes) HandleConn(context.Context, stats.ConnStats)                       {}

func TestCallsWaitForLateAnswers(t *testing.T) {
	t.Parallel()
	times := new(callTimes)
	env := New(t, WithTemporalOptions(func(o *client.Options) {
		o.ConnectionOptions.DialOptions = append(o.ConnectionOptions.DialOptions, grpc.WithStatsHandler(times))
	}))
	require.Greater(t, time.Duration(times.left.Load()), sdkTimeout, "connecting")
	missing := new(serviceerror.NotFound)
	_, err := env.Temporal.DescribeWorkflow(t.Context(), env.Prefix, "")
	require.ErrorAs(t, err, &missing)
	require.Greater(t, time.Duration(times.left.Load()), sdkTimeout)

	// The caller's own deadline is kept.
	times.left.Store(0)
	ctx, cancel := context.WithTimeout(t.Context(), sdkTimeout/2)
	defer cancel()
	_, _ = env.Temporal.DescribeWorkflow(ctx, env.Prefix, "") // may time out
	require.LessOrEqual(t, time.Duration(times.left.Load()), sdkTimeout/2)
}

func TestACallThatWaitsEndsWithTheContextOfItsCaller(t *testing.T) {
	t.Parallel()
	until := func(ctx context.Context, method string) (err error) {
		invoke := func(ctx context.Context, _ string, _, _ any, _ *grpc.ClientConn, _ ...grpc.CallOption) error {
			<-ctx.Done()
			return ctx.Err()
		}
		return waitForLateAnswers(ctx, method, nil, nil, nil, invoke)
	}
	ctx, cancel := context.WithTimeout(t.Context(), sdkTimeout)
	ended := make(chan error, 1)
	go func() { ended <- until(ctx, "/StartWorkflowExecution") }()
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)

	// A query may never be answered, so it keeps the SDK's deadline.
	ctx, cancel = context.WithDeadline(t.Context(), time.Now().Add(sdkTimeout))
	defer cancel()
	require.NoError(t, waitForLateAnswers(ctx, "/QueryWorkflow", nil, nil, nil,
		func(given context.Context, _ string, _, _ any, _ *grpc.ClientConn, _ ...grpc.CallOption) error {
			require.Equal(t, ctx, given)
			return nil
		}))
}

func TestReadsThatTimeOutInTheServerAreRepeated(t *testing.T) {
	t.Parallel()
	for method, want := range map[string]int{"/DescribeSchedule": 3, "/GetWorkflowExecutionHistory": 3, "/SignalWorkflowExecution": 1} {
		ctx, cancel := context.WithTimeout(t.Context(), sdkTimeout)
		defer cancel()
		calls := 0
		err := waitForLateAnswers(ctx, method, nil, nil, nil, func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error {
			if calls++; calls < 3 {
				return status.Error(codes.DeadlineExceeded, "history did not answer")
			}
			return nil
		})
		require.Equal(t, want, calls, method)
		require.Equal(t, want == 1, err != nil, method)
	}
}
