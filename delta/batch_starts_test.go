package delta_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// Members of a batch that cannot be started go to the next batch, and do not wait for the end of the lease.
func TestABatchThatCannotBeStartedIsNotHeldBackByItsLease(t *testing.T) {
	t.Parallel()
	var temporal starts
	h := temporal.harness(t)
	c := h.client(h.config(with(&controller[batched]{})))
	c.SetTiming(time.Minute, 0, 0)
	require.NoError(t, c.Start(t.Context()))
	t.Cleanup(func() { _ = c.Stop(context.Background()) })

	temporal.away.Store(true)
	all := names("some", 30)
	_, err := c.InformMany(t.Context(), manyBatched(all...), nil)
	require.NoError(t, err)
	row := h.eventually("batched", all[0], func(r *deltatype.ResourceRow) bool { return len(r.Errors) > 0 })
	require.Contains(t, row.Errors[0].Error, "its batch cannot be started: the test has it fail")
	temporal.away.Store(false)
	for _, name := range all {
		h.eventually("batched", name, synced(1))
	}
}

// A stopping client leaves batches that it has leased but not started to other clients.
func TestAStoppingClientLeavesUnstartedBatchesToAnother(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	var temporal starts
	h := temporal.harness(t)
	temporal.slow.Store(true)
	all := names("some", 600) // more batches than are started at once
	_, err := h.client(&delta.Config{}).InformMany(t.Context(), manyBatched(all...), nil)
	require.NoError(t, err)
	// Each batch is released by one statement, which has a second. On a busy machine some wait for the end of their lease, and after a stall all of them.
	until(t, func() bool {
		h.exec("UPDATE delta_resource SET dispatch_at = now(), workflow_id = NULL")
		c := h.client(h.config(with(&controller[batched]{})))
		c.SetTiming(time.Minute, 0, 0)
		require.NoError(t, c.Start(t.Context()))
		until(t, func() bool {
			return h.countRows("SELECT count(*) FROM delta_resource WHERE dispatch_at > now() + interval '20 seconds'") > 0
		})
		require.NoError(t, c.Stop(t.Context()))
		return h.countRows("SELECT count(*) FROM delta_resource WHERE dispatch_at <= now() AND workflow_id LIKE '%:batch/%'") > 0
	}, "no batch is released")
	temporal.slow.Store(false)

	h.start(h.config(with(&controller[batched]{})))
	for _, name := range all {
		h.eventually("batched", name, synced(1))
	}
}

// starts controls the starts of workflows in a test.
type starts struct {
	away, slow, late atomic.Bool
	// lose is the error of the next start, although Temporal has accepted it; 0 for none.
	lose atomic.Uint32
	// begun counts starts that Temporal has accepted, and whose answer is late or lost.
	begun atomic.Int32
}

// harness returns a harness whose Temporal client goes through the starts.
func (s *starts) harness(t *testing.T) *harness {
	t.Helper()
	intercept := func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		if strings.HasSuffix(method, "/StartWorkflowExecution") {
			if s.away.Load() {
				return status.Error(codes.InvalidArgument, "the test has it fail") // which the SDK does not try again
			}
			if s.slow.Load() {
				<-ctx.Done()
				return status.FromContextError(ctx.Err()).Err()
			}
			if code := s.lose.Swap(0); code != 0 {
				if err := invoke(ctx, method, req, reply, cc, opts...); err != nil {
					return err
				}
				reply.(*workflowservice.StartWorkflowExecutionResponse).Reset()
				s.begun.Add(1)
				return status.Error(codes.Code(code), "the test loses the answer")
			}
			if s.late.Load() {
				err := invoke(ctx, method, req, reply, cc, opts...)
				s.begun.Add(1)
				select {
				case <-ctx.Done():
					return status.FromContextError(ctx.Err()).Err()
				case <-time.After(300 * time.Millisecond):
					return err
				}
			}
		}
		return invoke(ctx, method, req, reply, cc, opts...)
	}
	return &harness{t: t, Env: deltatest.New(t, deltatest.WithTemporalOptions(func(o *client.Options) {
		o.ConnectionOptions.DialOptions = append(o.ConnectionOptions.DialOptions, grpc.WithChainUnaryInterceptor(intercept))
	}))}
}
