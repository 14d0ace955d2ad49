package delta_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// Related resources are named by their relation, up to a bound. Resources of another kind, or with similar ids, are not.
func TestRelatedResourcesAreNamed(t *testing.T) {
	t.Parallel()
	env := deltatest.New(t)
	client, err := delta.NewClient(env.Pool, &delta.Config{Temporal: env.Temporal, TemporalNamespace: env.TemporalNamespace, WorkflowIDPrefix: env.Prefix})
	require.NoError(t, err)
	batch := env.Prefix + "/child:batch/1"
	_, err = env.Pool.Exec(t.Context(), `
		INSERT INTO delta_resource (kind, object_id, object, hash, namespace, max_attempts, state, parents, awaited_parents, limit_key, slot_key, queued_at, dispatch_at, workflow_id)
		SELECT k, i, '{}', '\x00', 'default', 10, s::delta_resource_state, p::text[], a::text[], l, h, q, d, w FROM (VALUES
			('parent', 'a/b', 'synced', NULL, NULL, NULL, NULL, NULL::timestamptz, NULL::timestamptz, NULL),
			('child', '1', 'scheduled', '{parent/a/b,parent/none}', '{parent/none}', 'key', NULL, NULL, now() + interval '1 minute', $1::text),
			('child', '2', 'pending', '{parent/a/b}', '{parent/a/b}', 'key', 'key', NULL, now() + interval '1 minute', $1),
			('child', '3', 'scheduled', '{parent/a}', NULL, 'key', NULL, now() + interval '2 s', NULL, NULL),
			('child', '4', 'scheduled', NULL, NULL, 'key', NULL, now() + interval '1 s', NULL, NULL),
			('child', 'settled', 'synced', NULL, NULL, 'key', NULL, NULL, now() + interval '1 minute', $1),
			('child', 'another', 'pending', NULL, NULL, 'other', 'other', NULL, now() + interval '1 minute', $1 || '0'),
			('stranger', '2', 'pending', NULL, NULL, 'key', 'key', NULL, now() + interval '1 minute', $1)
		) AS v (k, i, s, p, a, l, h, q, d, w)`, batch)
	require.NoError(t, err)
	related := func(kind, id string, limit int) *delta.RelatedResources {
		t.Helper()
		found, err := client.RelatedResources(t.Context(), kind, id, limit)
		require.NoError(t, err)
		return found
	}
	one := func(kind, id string, state deltatype.ResourceState, isAwaited bool) delta.RelatedResource {
		return delta.RelatedResource{Ref: delta.Ref{Kind: kind, ObjectID: id}, State: state, IsAwaited: isAwaited}
	}

	require.Equal(t, &delta.RelatedResources{
		Parents:      delta.RelatedSet{Resources: []delta.RelatedResource{one("parent", "a/b", "synced", false), one("parent", "none", "", true)}},
		KeyHolders:   delta.RelatedSet{Resources: []delta.RelatedResource{one("child", "2", "pending", false)}},
		KeyWaiters:   delta.RelatedSet{Resources: []delta.RelatedResource{one("child", "4", "scheduled", false), one("child", "3", "scheduled", false)}},
		BatchMembers: delta.RelatedSet{Resources: []delta.RelatedResource{one("child", "2", "pending", false)}},
	}, related("child", "1", 0))
	children := related("parent", "a/b", 0)
	require.ElementsMatch(t, []delta.RelatedResource{one("child", "1", "scheduled", false), one("child", "2", "pending", true)}, children.Children.Resources)
	require.False(t, children.Children.HasMore)
	children = related("parent", "a/b", 1)
	require.Len(t, children.Children.Resources, 1)
	require.True(t, children.Children.HasMore)
	require.True(t, related("child", "1", 1).KeyWaiters.HasMore)
	require.Empty(t, related("stranger", "2", 0), "a limit key, and a batch, is within its kind")
	require.Empty(t, related("nothing", "there", 0))
	for _, limit := range []int{-1, 1001} {
		_, err = client.RelatedResources(t.Context(), "child", "1", limit)
		require.ErrorAs(t, err, new(*delta.InputError))
	}
	_, err = client.RelatedResources(t.Context(), "child", "\x00", 0)
	require.ErrorAs(t, err, new(*delta.InputError))
}

// The previous version is the synced one, or the latest different one in the log.
func TestThePreviousObjectIsFound(t *testing.T) {
	t.Parallel()
	env := deltatest.New(t)
	client, err := delta.NewClient(env.Pool, &delta.Config{Temporal: env.Temporal, TemporalNamespace: env.TemporalNamespace, WorkflowIDPrefix: env.Prefix})
	require.NoError(t, err)
	exec := func(sql string) {
		t.Helper()
		_, err := env.Pool.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	previous := func() *delta.PreviousObject {
		t.Helper()
		found, err := client.PreviousObject(t.Context(), "thing", "a")
		require.NoError(t, err)
		return found
	}
	_, err = client.PreviousObject(t.Context(), "thing", "a")
	require.ErrorIs(t, err, delta.ErrNotFound)
	_, err = client.PreviousObject(t.Context(), "thing", "\x00")
	require.ErrorAs(t, err, new(*delta.InputError))

	exec(`INSERT INTO delta_resource (kind, object_id, object, hash, namespace, max_attempts, state) VALUES ('thing', 'a', '{"v": 2}', '\x00', 'default', 10, 'synced')`)
	require.Equal(t, &delta.PreviousObject{}, previous())
	exec(`INSERT INTO delta_controller (name, inform_interval, logs_changes) VALUES ('thing', '1 hour', TRUE)`)
	require.Equal(t, &delta.PreviousObject{IsLogged: true}, previous())
	exec(`SELECT delta_append_change('updated', delta_order_xid(null), 1, 'thing', 'a', 'default', 2, 2, '{"v": 0}', '{"v": 1}', null, null);
		SELECT delta_append_change('updated', delta_order_xid(null), 1, 'thing', 'a', 'default', 3, 3, '{"v": 1}', '{"v": 2}', null, null);
		SELECT delta_append_change('updated', delta_order_xid(null), 1, 'thing', 'a', 'default', 4, 4, '{"v": 2}', '{"v": 2}', null, null);
		SELECT delta_append_change('updated', delta_order_xid(null), 1, 'thing', 'b', 'default', 4, 4, '{"v": 9}', '{"v": 2}', null, null);
		UPDATE delta_resource SET synced_object = '{"v": 2}'`)
	changes, err := client.ResourceChanges(t.Context(), "thing", "a", 0, 0)
	require.NoError(t, err)
	found := previous()
	require.JSONEq(t, `{"v": 1}`, string(found.Object))
	require.False(t, found.IsSynced)
	require.Equal(t, changes[1].At, *found.Until)
	exec(`UPDATE delta_resource SET object = '{"v": 3}'`)
	found = previous()
	require.JSONEq(t, `{"v": 2}`, string(found.Object))
	require.True(t, found.IsSynced)
	require.Nil(t, found.Until)
}
