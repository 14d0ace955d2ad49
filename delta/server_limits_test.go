package delta_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/soak"
)

// tightSettings are the dynamic configuration of a server whose operator allows little. docs/operations.md has a table of them.
var tightSettings = []string{
	"frontend.enableCancelWorkerPollsOnShutdown=false",
	"system.enableEagerWorkflowStart=false",
	"limit.blobSize.error=32768",
	"limit.blobSize.warn=16384",
	"limit.maxIDLength=255", // that of SQL persistence
	"history.maximumSignalsPerExecution=3",
	"system.namespaceMinRetentionLocal=\"1s\"",
	"history.retentionTimerJitterDuration=\"0s\"",
}

// On a server with tight limits everything works.
func TestAllWorksWithinTightLimitsOfTheServer(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	server := startTemporal(t, tightSettings...)
	for name, test := range map[string]func(*testing.T, *harness, *delta.Config){
		"signals of a run":     testFewSignals,
		"size of payloads":     testSmallPayloads,
		"after a restart":      testRestartWithoutPollCompletion,
		"retention of history": testShortRetention,
		"length of ids":        testLongNames,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			h.TemporalAddress = server.TemporalAddress
			h.useNamespaceOf(server.dial())
			test(t, h, h.config())
		})
	}
}

// useNamespaceOf gives the test a Temporal namespace of its own, which forgets workflows a second after their end, so that the limits hold for the test
// alone.
func (h *harness) useNamespaceOf(temporal client.Client) {
	h.t.Helper()
	h.TemporalNamespace = h.Prefix
	_, err := temporal.WorkflowService().RegisterNamespace(h.t.Context(), &workflowservice.RegisterNamespaceRequest{
		Namespace: h.TemporalNamespace, WorkflowExecutionRetentionPeriod: durationpb.New(time.Second),
	})
	require.NoError(h.t, err)
	h.Temporal, err = dialTemporal(client.Options{HostPort: h.TemporalAddress, Namespace: h.TemporalNamespace})
	require.NoError(h.t, err)
	h.t.Cleanup(h.Temporal.Close)
}

// withControllers returns the configuration of a test, with controllers.
func withControllers(config *delta.Config, add ...func(*delta.Controllers)) *delta.Config {
	config.Controllers = delta.NewControllers()
	for _, a := range add {
		a(config.Controllers)
	}
	return config
}

// A workflow whose run may get no more signals is replaced. Otherwise nothing could wake it before its timer fires.
func testFewSignals(t *testing.T, h *harness, config *delta.Config) {
	var logs logBuffer
	config.Logger = logs.logger()
	c := h.start(withControllers(config, with(&controller[account]{})))
	row, err := c.Sync(t.Context(), account{Name: "ann"}, nil)
	require.NoError(t, err)
	for n := range 8 {
		_, err := c.Inform(t.Context(), account{Name: "ann", Plan: fmt.Sprint(n)}, nil)
		require.NoError(t, err)
		h.eventually("account", "ann", synced(int64(n+2)))
	}
	require.Empty(t, h.row("account", "ann").Errors, "no start has failed")
	require.Contains(t, logs.String(), "history.maximumSignalsPerExecution")
	require.LessOrEqual(t, h.countWakeUps("account", "ann"), 4, "a start and three signals")
	require.Equal(t, row.WorkflowID, h.row("account", "ann").WorkflowID)
}

// What a batch says to people is left out if Temporal does not take that much.
func testSmallPayloads(t *testing.T, h *harness, config *delta.Config) {
	c := h.start(withControllers(config, with(&controller[batched]{})))
	all := names(strings.Repeat(`"`, 500), 50) // 50 kB as JSON
	_, err := c.InformMany(t.Context(), manyBatched(all...), nil)
	require.NoError(t, err)
	for _, name := range all {
		require.Empty(t, h.eventually("batched", name, synced(1)).Errors, "no start has failed")
	}
	id := h.row("batched", all[0]).WorkflowID
	require.Equal(t, len(all), h.countRows("SELECT count(*) FROM delta_resource WHERE workflow_id = $1", id))
	input := h.history(id)[0].GetWorkflowExecutionStartedEventAttributes().GetInput().GetPayloads()
	require.Len(t, input, 1)
}

// Without the end of polls, the server may give a task to a client that has stopped, and waits ten seconds for it.
func testRestartWithoutPollCompletion(t *testing.T, h *harness, config *delta.Config) {
	withControllers(config, with(&controller[account]{}))
	for n := range 3 {
		c := h.client(config)
		require.NoError(t, c.Start(t.Context()))
		_, err := c.Inform(t.Context(), account{Name: "ann", Plan: fmt.Sprint(n)}, nil)
		require.NoError(t, err)
		row := h.eventually("account", "ann", synced(int64(n+1)))
		require.Empty(t, row.Errors)
		require.Equal(t, 1, row.Attempt)
		require.NoError(t, c.Stop(t.Context()))
	}
	require.False(t, h.startAttributes("account", "ann").GetEagerExecutionAccepted())
}

// Temporal may forget a workflow as soon as it has ended: everything that is needed is in Postgres.
func testShortRetention(t *testing.T, h *harness, config *delta.Config) {
	config.Namespaces = map[string]delta.NamespaceConfig{"default": {DeletedResourceRetentionPeriod: time.Millisecond}}
	c := h.start(withControllers(config, with(&controller[account]{}), with(&controller[listed]{
		inform: func(ctx context.Context, _ *delta.InformOptions) (<-chan listed, error) {
			return sendAll(ctx, listed{Name: "a"}), nil
		},
	})))
	isForgotten := func(id string) bool {
		_, err := h.Temporal.DescribeWorkflow(t.Context(), id, "")
		return errors.As(err, new(*serviceerror.NotFound))
	}
	for range 2 {
		row, err := c.Sync(t.Context(), account{Name: "ann"}, nil)
		require.NoError(t, err)
		_, err = c.Delete(t.Context(), "account", "ann")
		require.NoError(t, err)
		until(t, func() bool { return h.row("account", "ann") == nil })
		until(t, func() bool { return isForgotten(row.WorkflowID) })
	}
	run, err := c.RunInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "listed", RunForeground: true}, nil)
	require.NoError(t, err)
	require.Equal(t, 1, run.Listed)
	passes, err := c.InformPasses(t.Context(), "listed", "", 0)
	require.NoError(t, err)
	until(t, func() bool { return isForgotten(passes[0].WorkflowID) })
	passes, err = c.InformPasses(t.Context(), "listed", "", 0)
	require.NoError(t, err)
	require.EqualValues(t, 1, passes[0].Listed)
	status, err := c.TemporalStatus(t.Context(), "listed")
	require.NoError(t, err)
	require.NoError(t, status.Kinds["listed"].Error)
}

// longest is of a kind with the longest name.
type longest struct{ account }

func (longest) Kind() string { return strings.Repeat("k", 127) }
func (longest) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{Parallelism: 4, InformInterval: time.Hour}
}

// The ids of workflows, schedules and task queues fit into the columns of SQL persistence, however long names are.
func testLongNames(t *testing.T, h *harness, config *delta.Config) {
	h.Prefix += strings.Repeat("-", 127-len(h.Prefix))
	config.WorkflowIDPrefix = h.Prefix
	c := h.start(withControllers(config, with(&controller[longest]{
		inform: func(ctx context.Context, _ *delta.InformOptions) (<-chan longest, error) {
			return sendAll(ctx, longest{account{Name: "listed"}}), nil
		},
	})))
	for _, name := range []string{"ann", strings.Repeat("x", 512), strings.Repeat("%", 512)} {
		_, err := c.Sync(t.Context(), longest{account{Name: name}}, nil)
		require.NoError(t, err)
	}
	many := make([]delta.Object, 0, 300)
	for _, name := range names(strings.Repeat("y", 500), cap(many)) {
		many = append(many, longest{account{Name: name}})
	}
	_, err := c.InformMany(t.Context(), many, nil)
	require.NoError(t, err)
	for _, o := range many {
		require.Empty(t, h.eventually(o.Kind(), o.ID(), synced(1)).Errors)
	}
	run, err := c.RunInform(t.Context(), delta.ScheduleInformParams{ResourceKind: longest{}.Kind(), RunForeground: true}, nil)
	require.NoError(t, err)
	require.Equal(t, 1, run.Listed)
	require.Positive(t, h.countRows("SELECT count(*) FROM delta_resource WHERE workflow_id LIKE '%:batch/%'"), "some are in a batch")
}

// A server that takes fewer long polls than clients need refuses the others. A kind may have none then, so the log says so.
func TestTheLogNamesLongPollsThatTheServerRefuses(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	server := startTemporal(t, append(slices.Clone(tightSettings), "frontend.namespaceCount=1")...)
	h := newHarness(t)
	h.TemporalAddress = server.TemporalAddress
	h.useNamespaceOf(server.dial())
	var logs logBuffer
	config := h.config()
	config.Logger, config.Temporal, config.TemporalNamespace = logs.logger(), nil, h.TemporalNamespace
	config.TemporalOptions = func(o *client.Options) { o.HostPort = h.TemporalAddress }
	h.start(withControllers(config, with(&controller[account]{})))
	until(t, func() bool {
		return strings.Contains(logs.String(), "Failed to poll for task") && strings.Contains(logs.String(), "concurrent")
	}, "%s", &logs)
}
