package delta_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/operatorservice/v1"
	sdkworker "go.temporal.io/sdk/worker"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/soak"
	"github.com/chariot-giving/delta/workflows"
)

// Temporal gives the tasks of a queue to any worker that polls it, so each worker must have all kinds of its queue.
func TestClientsWithDifferentKindsOnOneTaskQueueAreRefused(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	register := func(queue string, add ...func(*delta.Controllers)) (*delta.Client, sdkworker.Worker, error) {
		config := h.config(add...)
		config.TaskQueue = queue
		c := h.client(config)
		w := sdkworker.New(h.Temporal, queue, ownWorker())
		return c, w, c.Register(w)
	}
	shared := h.Prefix + "-shared"
	_, _, err := register(shared, with(&controller[account]{}))
	require.NoError(t, err)

	var input *delta.InputError
	_, _, err = register(shared, with(&controller[serial]{}))
	require.ErrorAs(t, err, &input)
	require.Equal(t, "Config.TaskQueue", input.Field)
	require.Contains(t, input.Value, shared)
	require.Contains(t, input.Rule, `"account"`)
	require.Contains(t, input.Rule, "UPDATE delta_controller SET task_queue = NULL WHERE name = 'account'")
	require.Zero(t, h.countRows("SELECT count(*) FROM delta_controller WHERE name = 'serial'"), "a refused start leaves nothing behind")

	_, _, err = register(h.Prefix+"-own", with(&controller[serial]{}))
	require.NoError(t, err, "another task queue is allowed")

	both, w, err := register(shared, with(&controller[account]{}), with(&controller[serial]{}))
	require.NoError(t, err, "one client may have both kinds")
	require.NoError(t, w.Start())
	t.Cleanup(w.Stop)
	require.NoError(t, both.Start(t.Context()))
	_, err = both.InformMany(t.Context(), []delta.Object{account{Name: "ann"}, serial{account{Name: "ann"}}}, nil)
	require.NoError(t, err)
	h.eventually("account", "ann", synced(1))
	h.eventually("serial", "ann", synced(1))
}

// A client must not write to a schema of an unknown version.
func TestAClientDoesNotStartOnAnotherSchemaVersion(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.exec("UPDATE delta_installation SET schema_version = 2")
	c := h.client(h.config(with(&controller[account]{})))
	err := c.Start(t.Context())
	require.ErrorContains(t, err, "schema 2")
	require.ErrorContains(t, err, "older")
	require.ErrorContains(t, err, "Update it")
	require.NotErrorIs(t, err, delta.ErrNoSchema)
	require.Zero(t, h.countRows("SELECT count(*) FROM delta_installation WHERE workflow_id_prefix IS NOT NULL"), "it has written nothing")

	h.exec("UPDATE delta_installation SET schema_version = 0")
	require.ErrorIs(t, c.Start(t.Context()), delta.ErrNoSchema)
	h.exec("UPDATE delta_installation SET schema_version = 1")
	require.NoError(t, c.Start(t.Context()), "a start that was refused can be tried again")
	require.NoError(t, c.Stop(t.Context()))
}

// An operator may remove Delta's search attributes from the Temporal namespace: workflows continue without them.
func TestSearchAttributesThatAreRemovedStopNothing(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	temporal := startTemporal(t).dial()
	var logs logBuffer
	config := h.config(with(&controller[batched]{}), with(&controller[each]{work: func(_ context.Context, r *delta.Resource[each]) error {
		if r.Object.Plan == "fails" && r.Attempt == 1 {
			return errors.New("once") // so that its state is another one, which is an attribute
		}
		return nil
	}}))
	config.Temporal, config.TemporalNamespace, config.Logger = temporal, "", slog.New(slog.NewTextHandler(&logs, nil))
	config.MaintenanceJobInterval = time.Second
	c := h.start(config)
	old := []delta.Object{each{account{Name: "old"}}, batched{account{Name: "old"}}}
	_, err := c.InformMany(t.Context(), old, nil)
	require.NoError(t, err)
	for _, o := range old {
		h.eventually(o.Kind(), "old", synced(1))
	}

	keys := []string{workflows.KindAttribute.GetName(), workflows.NamespaceAttribute.GetName(), workflows.StateAttribute.GetName()}
	_, err = temporal.OperatorService().RemoveSearchAttributes(t.Context(), &operatorservice.RemoveSearchAttributesRequest{
		Namespace: "default", SearchAttributes: keys,
	})
	require.NoError(t, err)
	// Temporal caches search attributes for a while: starts are refused once it has noticed.
	until(t, func() bool {
		for range 20 {
			_, err := c.InformMany(t.Context(), newObjects(), nil)
			require.NoError(t, err)
		}
		return strings.Contains(logs.String(), "Temporal refuses the search attributes of Delta")
	})
	until(t, func() bool { return h.countRows("SELECT count(*) FROM delta_resource WHERE state <> 'synced'") == 0 }, "all new resources are synced")
	require.Zero(t, h.countRows("SELECT count(*) FROM delta_resource WHERE cardinality(errors) > 0"), "and none of them has an error")

	// A workflow that was started with them and writes one continues too, once maintenance has created them again.
	for _, o := range []delta.Object{each{account{Name: "old", Plan: "fails"}}, batched{account{Name: "old", Plan: "new"}}} {
		_, err := c.Inform(t.Context(), o, nil)
		require.NoError(t, err)
	}
	h.eventually("batched", "old", synced(2))
	h.eventually("each", "old", synced(2))
	_, err = c.Invalidate(t.Context(), each{account{Name: "old"}})
	require.NoError(t, err)
	h.eventually("each", "old", synced(3))
}

var newcomer atomicCounter

// newObjects returns objects of both kinds that were not informed before.
func newObjects() []delta.Object {
	name := newcomer.next("new")
	return []delta.Object{each{account{Name: name}}, batched{account{Name: name}}}
}
