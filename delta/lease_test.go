package delta_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/internal/soak"
)

// A set that makes half a batch is leased to one as it is written, so no dispatcher has to.
func TestASetIsSyncedWithoutADispatcherThatGathersIt(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.client(h.config(with(&controller[batched]{})))
	c.SetTiming(0, time.Hour, 0)
	require.NoError(t, c.Start(t.Context()))
	t.Cleanup(func() { _ = c.Stop(context.Background()) })
	// Those that share the time of their inform came in one statement: the dispatcher would have gathered both sets.
	for _, prefix := range []string{"first", "second"} {
		all := names(prefix, 30)
		results, err := c.InformMany(t.Context(), manyBatched(all...), nil)
		require.NoError(t, err)
		batch := results[0].Resource.WorkflowID
		require.True(t, strings.HasPrefix(batch, h.Prefix+"/batched:batch/"), batch)
		for _, r := range results {
			require.Equal(t, batch, r.Resource.WorkflowID)
		}
		for _, name := range all {
			require.Equal(t, batch, h.eventually("batched", name, synced(1)).WorkflowID)
		}
	}

	// Too few for a batch of their own wait for others.
	results, err := c.InformMany(t.Context(), manyBatched(names("few", 10)...), nil)
	require.NoError(t, err)
	require.Empty(t, results[0].Resource.WorkflowID)
	for _, name := range names("few", 10) {
		h.eventually("batched", name, synced(1))
	}
}

// What was leased cannot be started, so it is due again at once; and sets are leased no more until Temporal answers.
func TestASetThatIsLeasedWhileTemporalIsAwayIsNotHeldBack(t *testing.T) {
	t.Parallel()
	var temporal starts
	h := temporal.harness(t)
	c := h.client(h.config(with(&controller[batched]{})))
	c.SetTiming(time.Hour, 0, 0)
	require.NoError(t, c.Start(t.Context()))
	t.Cleanup(func() { _ = c.Stop(context.Background()) })

	temporal.away.Store(true)
	first := names("first", 30)
	_, err := c.InformMany(t.Context(), manyBatched(first...), nil)
	require.NoError(t, err)
	until(t, func() bool {
		row := h.row("batched", first[0])
		return row != nil && !row.DispatchAt.After(time.Now().Add(time.Minute))
	}, "the lease of an hour is given up")
	until(t, func() bool {
		results, err := c.InformMany(t.Context(), manyBatched(names("second", 30)...), nil)
		return err == nil && !results[0].Resource.DispatchAt.After(time.Now().Add(time.Minute))
	})

	temporal.away.Store(false)
	for _, name := range append(first, names("second", 30)...) {
		h.eventually("batched", name, synced(1))
	}
}

// A client that stops leaves what it has leased to others.
func TestASetThatIsLeasedByAClientThatStopsIsSyncedByAnother(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	var temporal starts
	h := temporal.harness(t)
	temporal.slow.Store(true)
	c := h.client(h.config(with(&controller[batched]{})))
	c.SetTiming(time.Hour, 0, 0)
	require.NoError(t, c.Start(t.Context()))
	all := names("some", 600) // more than are started at once
	_, err := c.InformMany(t.Context(), manyBatched(all...), nil)
	require.NoError(t, err)
	require.NoError(t, c.Stop(t.Context()))
	temporal.slow.Store(false)

	h.start(h.config(with(&controller[batched]{})))
	for _, name := range all {
		h.eventually("batched", name, synced(1))
	}
}

// What was leased and whose answer is lost is in the table, or not: nobody knows its members, and it waits for nobody.
func TestASetWhoseAnswerIsLostIsNotHeldBackByItsLease(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"the connection breaks", "the context ends", "the client stops"} {
		t.Run("as "+how, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var lose atomic.Bool
			settings, err := pgxpool.ParseConfig(h.DatabaseURL)
			require.NoError(t, err)
			dial := settings.ConnConfig.DialFunc
			settings.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
				conn, err := dial(ctx, network, addr)
				return &deafConn{Conn: conn, deaf: func() bool {
					if !lose.CompareAndSwap(true, false) {
						return false
					}
					if how != "the connection breaks" {
						cancel()
					}
					return true
				}}, err
			}
			pool, err := pgxpool.NewWithConfig(t.Context(), settings)
			require.NoError(t, err)
			defer pool.Close()
			c, err := delta.NewClient(pool, h.config(with(&controller[batched]{})))
			require.NoError(t, err)
			c.SetTiming(time.Hour, time.Second, 0)
			require.NoError(t, c.Start(t.Context()))
			defer c.Stop(context.Background()) //nolint:errcheck // the test is over

			lose.Store(true)
			all := names("some", 30)
			_, err = c.InformMany(ctx, manyBatched(all...), nil)
			require.Error(t, err)
			require.False(t, lose.Load(), "an answer was lost")
			if how == "the client stops" {
				require.NoError(t, c.Stop(t.Context()))
				h.start(h.config(with(&controller[batched]{})))
			}
			for _, name := range all {
				h.eventually("batched", name, synced(1))
			}
			require.NotEmpty(t, h.row("batched", all[0]).WorkflowID)
		})
	}
}

// deafConn loses the answer to an insert of thirty rows that took effect.
type deafConn struct {
	net.Conn
	deaf func() bool
	// tail is the end of what was read before: an answer may come in two parts.
	tail []byte
}

func (c *deafConn) Read(p []byte) (int, error) {
	const answer = "INSERT 0 30\x00"
	n, err := c.Conn.Read(p)
	if err != nil {
		return n, err
	}
	read := append(c.tail, p[:n]...)
	if bytes.Contains(read, []byte(answer)) && c.deaf() {
		_ = c.Close()
		return 0, io.ErrUnexpectedEOF
	}
	c.tail = bytes.Clone(read[max(len(read)-len(answer)+1, 0):])
	return n, err
}

// starts is what a test does to the starting of workflows.
type starts struct {
	away, slow, late atomic.Bool
	// lose is what the next one fails with, although Temporal has answered; 0 for nothing.
	lose atomic.Uint32
	// begun counts those that Temporal has answered, and whose answer is late or lost.
	begun atomic.Int32
}

// harness is one whose Temporal client goes through it.
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
