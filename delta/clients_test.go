package delta_test

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

func TestTwoClientsOnOneDatabaseEachWorkTheirKind(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	kinds := make(chan string, 100)
	accounts := h.startWorker(func(context.Context, *delta.Resource[account]) error {
		kinds <- "account"
		return nil
	})
	serials := h.start(h.config(with(&controller[serial]{work: func(context.Context, *delta.Resource[serial]) error {
		kinds <- "serial"
		return nil
	}})))
	informer := h.client(&delta.Config{})
	for i := range 5 {
		a, s := account{Name: fmt.Sprint(i)}, serial{account{Name: fmt.Sprint(i)}}
		_, err := informer.InformMany(t.Context(), []delta.Object{a, s}, nil)
		require.NoError(t, err)
	}
	for i := range 5 {
		h.eventually("account", fmt.Sprint(i), synced(1))
		h.eventually("serial", fmt.Sprint(i), synced(1))
	}
	_, err := accounts.Inform(t.Context(), serial{account{Name: "x"}}, nil)
	require.ErrorContains(t, err, "serial")
	_, err = serials.Inform(t.Context(), account{Name: "x"}, nil)
	require.ErrorContains(t, err, "account")
	require.Len(t, kinds, 10)
}

func TestAnotherPrefixOnTheSameDatabaseIsRefused(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.startWorker(nil)
	config := h.config(with(&controller[serial]{}))
	config.WorkflowIDPrefix = h.Prefix + "-other"
	err := h.client(config).Start(t.Context())
	require.ErrorContains(t, err, h.Prefix+"-other")
	require.ErrorContains(t, err, "two workflows")
}

// With two names, a resource would have two workflows, and concurrent calls of Work.
func TestClientsAgreeWhetherIDsAreHashed(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	config := h.config(with(&controller[account]{}))
	// This client connected before either setting was stored.
	early := h.client(&delta.Config{Temporal: h.Temporal, WorkflowIDPrefix: h.Prefix})
	_, err := early.TemporalStatus(t.Context())
	require.NoError(t, err)

	config.HashObjectIDs = true
	hashing := h.start(config)
	config.HashObjectIDs = false
	var input *delta.InputError
	require.ErrorAs(t, h.client(config).Start(t.Context()), &input)
	require.Equal(t, "Config.HashObjectIDs", input.Field)
	require.Contains(t, input.Rule, "two workflows")

	// Clients that are not started use the stored setting.
	for i, c := range []*delta.Client{early, h.client(&delta.Config{Temporal: h.Temporal, WorkflowIDPrefix: h.Prefix}), hashing} {
		row, err := c.Sync(t.Context(), account{Name: "ann", Plan: strconv.Itoa(i)}, nil)
		require.NoError(t, err)
		require.Equal(t, h.Prefix+"/account/"+row.HashedID, row.WorkflowID)
	}
	_, err = h.Temporal.DescribeWorkflow(t.Context(), h.Prefix+"/account/ann", "")
	require.ErrorAs(t, err, new(*serviceerror.NotFound))
}

func TestAnotherDatabaseWithTheSamePrefixIsRefused(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h, other := newHarness(t), newHarness(t)
	h.startWorker(nil)
	config := other.config(with(&controller[account]{}))
	config.WorkflowIDPrefix = h.Prefix
	err := other.client(config).Start(t.Context())
	require.ErrorIs(t, err, delta.ErrOtherInstallation)
	require.ErrorContains(t, err, "schedule delete")

	// Follow the error's advice: use another prefix.
	another := other.client(other.config(with(&controller[account]{})))
	require.NoError(t, another.Start(t.Context()))
	require.NoError(t, another.Stop(t.Context()))
	_, err = other.Pool.Exec(t.Context(), "UPDATE delta_installation SET workflow_id_prefix = NULL")
	require.NoError(t, err)

	// Or free the prefix, if the other database is gone for good.
	require.NoError(t, h.Temporal.ScheduleClient().GetHandle(t.Context(), h.Prefix+"/installation:do-not-resume-or-delete").Delete(t.Context()))
	require.NoError(t, other.client(config).Start(t.Context()))
}

func TestAWorkflowOfAnotherDatabaseIsEndedAndTheRowGetsItsOwn(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h, other := newHarness(t), newHarness(t)
	old := h.startWorker(nil)
	_, err := old.Inform(t.Context(), account{Name: "ann"}, nil)
	require.NoError(t, err)
	h.eventually("account", "ann", synced(1))
	require.NoError(t, old.Stop(t.Context()))
	require.NoError(t, h.Temporal.ScheduleClient().GetHandle(t.Context(), h.Prefix+"/installation:do-not-resume-or-delete").Delete(t.Context()))

	// The other database takes the prefix while the first one's workflow still waits there.
	config := other.config(with(&controller[account]{}))
	config.WorkflowIDPrefix = h.Prefix
	c := other.client(config)
	c.SetTiming(0, 200*time.Millisecond, 0)
	require.NoError(t, c.Start(t.Context()))
	defer c.Stop(context.Background()) //nolint:errcheck // the test is over
	_, err = c.Inform(t.Context(), account{Name: "ann"}, nil)
	require.NoError(t, err)
	other.eventually("account", "ann", synced(1))
	require.EqualValues(t, 1, h.row("account", "ann").Generation, "the first database is not touched")
}

func TestADispatcherThatDiedIsReplacedWhenItsLeaseRunsOut(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.client(&delta.Config{})
	_, err := c.Inform(t.Context(), account{Name: "ann"}, nil)
	require.NoError(t, err)
	// A dispatcher leases the row, and dies before it wakes the workflow.
	due := h.leaseDue("account", "", time.Second)
	require.Len(t, due, 1)

	worker := h.client(h.config(with(&controller[account]{})))
	worker.SetTiming(0, 50*time.Millisecond, 0)
	require.NoError(t, worker.Start(t.Context()))
	defer worker.Stop(context.Background()) //nolint:errcheck // the test is over
	row := h.eventually("account", "ann", synced(1))
	require.False(t, row.AttemptedAt.Before(*due[0].DispatchAt), "not before the lease has run out")
}

// dialRefusing dials Temporal by a connection that refuses calls for which the function returns an error.
func (h *harness) dialRefusing(refuse func(method string) error) client.Client {
	h.t.Helper()
	return h.dialRefusingRequests(func(method string, _ any) error { return refuse(method) })
}

// dialRefusingRequests is dialRefusing for a function that gets the requests too.
func (h *harness) dialRefusingRequests(refuse func(method string, request any) error) client.Client {
	h.t.Helper()
	temporal, err := dialTemporal(client.Options{
		HostPort:  h.TemporalAddress,
		Namespace: h.TemporalNamespace,
		Logger:    log.NewStructuredLogger(slog.New(slog.DiscardHandler)),
		ConnectionOptions: client.ConnectionOptions{DialOptions: []grpc.DialOption{grpc.WithChainUnaryInterceptor(
			func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
				if err := refuse(method, req); err != nil {
					return err
				}
				return invoke(ctx, method, req, reply, cc, opts...)
			},
		)}},
	})
	require.NoError(h.t, err)
	h.t.Cleanup(temporal.Close)
	return temporal
}

func TestTemporalThatRefusesIsAskedAgainAndNothingIsLost(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	var refuse atomic.Bool
	var refused atomic.Int32
	temporal := h.dialRefusing(func(method string) error {
		if refuse.Load() && strings.HasSuffix(method, "/StartWorkflowExecution") {
			refused.Add(1)
			return status.Error(codes.ResourceExhausted, "slow down")
		}
		return nil
	})
	config := h.config(with(&controller[account]{}))
	config.Temporal = temporal
	c := h.client(config)
	require.NoError(t, c.Start(t.Context()))
	defer c.Stop(context.Background()) //nolint:errcheck // the test is over
	refuse.Store(true)
	_, err := c.Inform(t.Context(), account{Name: "ann"}, nil)
	require.NoError(t, err)
	until(t, func() bool { return refused.Load() > 0 })
	require.Equal(t, deltatype.ResourceStateScheduled, h.row("account", "ann").State)
	refuse.Store(false)
	h.eventually("account", "ann", synced(1))
}

func TestAWrappedTemporalClientIsAnErrorAndNoPanic(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	config := h.config(with(&controller[account]{}))
	config.Temporal = struct{ client.Client }{h.Temporal}
	require.ErrorContains(t, h.client(config).Start(t.Context()), "Config.Temporal")
}
