package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// finalizingPages also clears up after pages that are deleted.
type finalizingPages struct{ *pages }

func (finalizingPages) Finalize(context.Context, *delta.Resource[page]) error { return nil }

func TestDoctorLooksAtFullListings(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	i := newInstallation(t)
	c := i.startClient(i.newConfiguredClient(&pages{}, map[string]delta.ObjectSettings{"page": {FullListingInterval: 24 * time.Hour}}))
	full := func() checkJSON { return decodeChecks(t, i.run("doctor", "-o", "json"))["full listing page"] }
	require.Equal(t, delta.CheckOK, full().Status)
	require.Contains(t, full().Detail, "every 1d, next in ")

	schedule := i.Temporal.ScheduleClient().GetHandle(t.Context(), i.Prefix+"/inform-full:page")
	require.NoError(t, schedule.Pause(t.Context(), client.SchedulePauseOptions{}))
	require.Equal(t, delta.CheckWarning, full().Status)
	require.Contains(t, full().Detail, "paused in Temporal by an operator")
	require.Equal(t, delta.CheckOK, decodeChecks(t, i.run("doctor", "-o", "json"))["informer page"].Status, "that has a schedule of its own")
	require.Equal(t, exitOK, i.run(strings.Fields(full().Remedy[strings.Index(full().Remedy, "delta ")+len("delta "):])...).code)
	require.Equal(t, delta.CheckOK, full().Status)

	require.NoError(t, c.Stop(t.Context()))
	require.NoError(t, schedule.Delete(t.Context()))
	require.Equal(t, delta.CheckWarning, full().Status)
	require.Contains(t, full().Detail, "missing in Temporal")

	i.execSQL(`update delta_controller set full_listing_interval = '0'`)
	require.Empty(t, full(), "nothing is missing where there are no full listings")
}

func TestDoctorFindsWhatWaitsForAFinalizer(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	i := newInstallation(t)
	first := i.newConfiguredClient(finalizingPages{&pages{}}, nil)
	require.NoError(t, first.Start(t.Context()))
	i.inform(first, deltatype.ResourceStateSynced, nil, "a", "b")
	require.NoError(t, first.Stop(t.Context()))

	later := i.startController(&pages{})
	for _, id := range []string{"a", "b"} {
		_, err := later.Delete(t.Context(), "page", id)
		require.NoError(t, err)
	}
	i.execSQL(`update delta_resource set due_at = now() - interval '2 hours', dispatch_at = now() + interval '10 minutes'`)
	found := decodeChecks(t, i.run("doctor", "-o", "json"))
	require.NotContains(t, found, "finalizer page", "a client has taken them, and is busy")
	require.Equal(t, delta.CheckWarning, found["late page"].Status)

	i.execSQL(`update delta_resource set dispatch_at = now() - interval '2 hours'`)
	found = decodeChecks(t, i.run("doctor", "-o", "json"))
	require.Equal(t, delta.CheckWarning, found["finalizer page"].Status)
	require.Contains(t, found["finalizer page"].Detail, "2 resources deleted and not finalized, the first for 2h: no client that runs has a Finalizer")
	require.NotContains(t, found, "late page", "more workers do not help")
	require.NotContains(t, found, "late", "they are late")
	requireNarrow(t, i.runWith(streams{width: 80}, "doctor").stdout)

	_, statements, _ := strings.Cut(found["finalizer page"].Remedy, "without it: ")
	i.execSQL(statements)
	require.Eventually(t, func() bool {
		found = decodeChecks(t, i.run("doctor", "-o", "json"))
		return found["finalizer page"].Status == "" && found["late"].Status == delta.CheckOK
	}, testTimeout, 100*time.Millisecond, "the rows are kept for their retention")
}

func TestDoctorFindsWhatIsStaleInPassAfterPass(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	i.execSQL(`insert into delta_controller (name, inform_interval) values ('page', '1h'), ('o''k', '-1s')`)
	i.execSQL(`insert into delta_stale (kind, object_id, pass, passes) values
		('page', 'once', gen_random_uuid(), 2), ('page', 'a', gen_random_uuid(), 3), ('page', 'b', gen_random_uuid(), 7), ('o''k', 'c', gen_random_uuid(), 3)`)
	found := decodeChecks(t, i.run("doctor", "-o", "json", "--prefix", i.Prefix))
	require.Equal(t, delta.CheckWarning, found["stale page"].Status)
	require.Contains(t, found["stale page"].Detail, "2 objects listed in an older version than the stored one")
	require.Contains(t, found["stale page"].Remedy, "delta inform page --force")
	require.Contains(t, found["stale o'k"].Remedy, "kind = 'o''k'")
}

func TestDoctorAndKindsCountWhatHasNoShard(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	i.execSQL(`insert into delta_controller (name, inform_interval) values ('page', '1h'), ('whole', '1h')`)
	i.execSQL(`insert into delta_shard (kind, shard, gone_at) values ('page', '', null), ('page', 'eu', null), ('whole', '', null), ('whole', 'us', now())`)
	i.execSQL(`insert into delta_resource (kind, object_id, namespace, state, max_attempts, hash, object, shard)
		select k, n, 'default', case n when 'deleted' then 'deleted' else 'synced' end::delta_resource_state, 3, '', '{}', case n when 'sharded' then 'eu' end
		from unnest(array['page', 'whole']) k, unnest(array['a', 'b', 'deleted', 'sharded']) n`)
	found := decodeChecks(t, i.run("doctor", "-o", "json", "--prefix", i.Prefix))
	require.Equal(t, delta.CheckWarning, found["shards page"].Status)
	require.Contains(t, found["shards page"].Detail, "2 resources without a shard: no listing marks them deleted")
	require.Contains(t, found["shards page"].Remedy, "delta inform page --full")
	require.NotContains(t, found["shards whole"].Detail, "without a shard", "its controller names none any more")
	shown := i.run("kinds", "page", "--prefix", i.Prefix)
	require.Contains(t, shown.stdout+shown.stderr, "page: 2 resources without a shard")
	require.Contains(t, i.run("kinds", "-o", "json", "--prefix", i.Prefix).stdout, `"shardless": 2`)
}

func TestDoctorAndKindsFindWhatNoWorkerUnderstands(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	i.execSQL(`insert into delta_controller (name, inform_interval) values ('page', '1h')`)
	i.execSQL(`insert into delta_resource (kind, object_id, namespace, state, max_attempts, hash, object, attempted_at, errors)
		select 'page', n, 'default', 'scheduled', 3, '', '{}', case n when 'informed' then null else now() end,
			array[jsonb_build_object('at', now(), 'attempt', 0, 'error', case n when 'unstarted' then 'its workflow cannot be started: ' else 'it does not decode' end)]
		from unnest(array['a', 'b', 'informed', 'unstarted']) n`)
	found := decodeChecks(t, i.run("doctor", "-o", "json", "--prefix", i.Prefix))
	require.Equal(t, delta.CheckWarning, found["undecodable page"].Status)
	require.Contains(t, found["undecodable page"].Detail, "2 resources waiting")
	require.Contains(t, found["undecodable page"].Remedy, "Upgrade")
	shown := i.run("kinds", "page", "--prefix", i.Prefix)
	require.Contains(t, shown.stdout+shown.stderr, "page: 2 resources waiting for a worker that understands their stored objects")
}

func TestDoctorFindsSourcesThatDoNotRun(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	i.startController(&pages{})
	// However long the commands take, it was just heard of.
	i.execSQL(`insert into delta_source (kind, name, epoch, runner, seen_at) values ('page', 'table public.page', 1, 'test', now() + interval '1 hour')`)
	found := func() checkJSON { return decodeChecks(t, i.run("doctor", "-o", "json"))["source page"] }
	require.Empty(t, found(), "it runs")
	i.execSQL(`update delta_source set failures = 3, error = 'there is no table'`)
	require.Equal(t, delta.CheckFailure, found().Status)
	require.Contains(t, found().Detail, `source "table public.page" fails, 3 times in a row: there is no table`)
	i.execSQL(`update delta_source set seen_at = now() - interval '2 hours'`)
	require.Contains(t, found().Detail, `source "table public.page" does not run: nothing was heard of it for 2h`)
	requireNarrow(t, i.runWith(streams{width: 80}, "doctor").stdout)
}
