package main

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/soak"
)

// invoice is listed by its account.
type invoice struct {
	Account string `json:"account"`
	Number  string `json:"number"`
}

func (o invoice) ID() string    { return o.Account + "/" + o.Number }
func (o invoice) Kind() string  { return "invoice" }
func (o invoice) Shard() string { return o.Account }
func (o invoice) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{Parallelism: 4, InformInterval: -1, CompleteListing: true, MaxDeleted: 1, MaxDeletedShare: 0.5}
}

// accounts is an upstream that has invoices by account.
type accounts struct {
	delta.WorkerDefaults[invoice]
	delta.InformerDefaults[invoice]
	mu   sync.Mutex
	all  map[string][]string
	down map[string]bool
}

func (a *accounts) Work(context.Context, *delta.Resource[invoice]) error { return nil }

func (a *accounts) Shards(context.Context) ([]string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Collect(maps.Keys(a.all)), nil
}

func (a *accounts) Inform(ctx context.Context, o *delta.InformOptions) (<-chan invoice, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.down[o.Shard] {
		return nil, errors.New("503 Service Unavailable")
	}
	out := make(chan invoice, len(a.all[o.Shard]))
	for _, number := range a.all[o.Shard] {
		out <- invoice{o.Shard, number}
	}
	close(out)
	return out, nil
}

func (a *accounts) changeAccounts(change func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change()
}

// startInvoices starts a client that lists invoices by account.
func (i *installation) startInvoices(a *accounts) {
	i.t.Helper()
	config := &delta.Config{
		Temporal: i.Temporal, TemporalNamespace: i.TemporalNamespace, WorkflowIDPrefix: i.Prefix,
		Logger: slog.New(slog.DiscardHandler), Controllers: delta.NewControllers(),
	}
	delta.AddController[invoice](config.Controllers, a)
	c, err := delta.NewClient(i.Pool, config)
	require.NoError(i.t, err)
	i.startClient(c)
}

func TestShardsAreListedShownAndDecidedOneByOne(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	i := newInstallation(t)
	upstream := &accounts{all: map[string][]string{"acct_1": {"1", "2", "3"}, "acct_2": {"1", "2", "3", "4"}, "the third": {"1"}}, down: map[string]bool{}}
	i.startInvoices(upstream)
	ok := func(args ...string) result {
		t.Helper()
		r := i.run(args...)
		require.Equal(t, exitOK, r.code, "%v: %s", args, r.stderr)
		t.Logf("$ delta %v\n%s%s", args, r.stdout, r.stderr)
		return r
	}
	shardsNow := func() map[string]shardJSON {
		t.Helper()
		all := map[string]shardJSON{}
		for _, s := range decode[kindsJSON](t, i.run("kinds", "invoice", "-o", "json")).Kinds[0].Informer.Shards {
			all[s.Shard] = s
		}
		return all
	}
	passes := func(args ...string) (shards []string) {
		t.Helper()
		for _, p := range decode[passesJSON](t, i.run(append(append([]string{"informs", "invoice"}, args...), "-o", "json")...)).Passes {
			shards = append(shards, p.Shard)
		}
		return shards
	}

	// List all shards, and one.
	require.Contains(t, ok("inform", "invoice", "--foreground").stdout, "invoice: 8 listed, 8 to sync; all have settled")
	require.ElementsMatch(t, []string{"acct_1", "acct_2", "the third"}, passes())
	require.Equal(t, "invoice: 1 listed, none to sync\n", ok("inform", "invoice", "--shard", "the third").stdout)
	require.Equal(t, []string{"the third", "the third"}, passes("--shard", "the third"))
	r := i.run("inform", "invoice", "--shard", "acct_9")
	require.Equal(t, exitFailure, r.code)
	require.Contains(t, r.stderr, `kind invoice has no shard "acct_9": its controller names "acct_1", "acct_2", "the third"`)
	require.Contains(t, ok("informs", "invoice", "--shard", "acct_9").stderr, "There are no passes of shard acct_9 yet")

	// List the resources of one shard.
	page := decode[pageJSON](t, i.run("resources", "list", "--shard", "acct_1", "-o", "json"))
	require.Len(t, page.Resources, 3)
	require.Equal(t, "acct_1", page.Resources[0].Shard)
	require.Equal(t, "4 resources: nothing was done\n", ok("resources", "invalidate", "--shard", "acct_2", "--dry-run").stdout)
	require.Equal(t, exitUsage, i.run("resources", "delete", "--shard", "", "--yes").code, "it would choose everything")

	// Pause one shard.
	require.Equal(t, "informer invoice acct_2 paused\n", ok("pause", "informer", "invoice", "--shard", "acct_2").stdout)
	require.True(t, shardsNow()["acct_2"].Paused)
	require.False(t, shardsNow()["acct_1"].Paused)
	require.Equal(t, pausedJSON{What: "informer", Kind: "invoice", Shard: "acct_2"}, decode[pausedJSON](t, i.run("resume", "informer", "invoice", "--shard", "acct_2", "-o", "json")))
	require.False(t, shardsNow()["acct_2"].Paused)
	r = i.run("pause", "informer", "invoice", "--shard", "acct_9")
	require.Equal(t, exitNotFound, r.code)
	require.Contains(t, r.stderr, `shard "acct_9" of kind invoice`)

	// One shard fails, one leaves out many resources, and one is gone.
	upstream.changeAccounts(func() {
		upstream.all = map[string][]string{"acct_1": {"1", "2", "3"}, "acct_2": {"1"}}
		upstream.down["acct_1"] = true
	})
	r = i.run("inform", "invoice")
	require.Equal(t, exitFailure, r.code)
	require.Contains(t, r.stderr, `1 of 3 shards failed: "acct_1"`)
	require.Contains(t, r.stderr, "503 Service Unavailable")
	r = ok("kinds", "invoice")
	for _, part := range []string{"SHARD", "acct_1", "failed", "gone", "3 of 4"} {
		require.Contains(t, r.stdout, part)
	}
	require.Contains(t, r.stderr, "invoice acct_2: the listings leave out 3 of 4 resources")
	require.Contains(t, r.stderr, `delta informs approve invoice --shard 'the third', or dismiss`)
	requireNarrow(t, i.runWith(streams{width: 80}, "kinds").stdout)
	now := shardsNow()
	require.NotNil(t, now["the third"].GoneSince)
	require.EqualValues(t, 3, now["acct_2"].Withheld.Missing)
	require.Contains(t, *now["acct_1"].Error, "503")
	r = i.run("doctor")
	for _, part := range []string{"shards invoice", "acct_1: its latest pass failed", "the third: no longer named", `delta informs approve invoice --shard acct_2`} {
		require.Contains(t, r.stdout, part)
	}

	// Decide on each shard separately.
	require.Equal(t, exitNotFound, i.run("informs", "approve", "invoice", "--yes").code, "not of the whole kind")
	require.Contains(t, ok("informs", "approve", "invoice", "--shard", "the third", "--yes").stdout, `delta inform invoice --shard 'the third' runs one`)
	require.Equal(t, "3 of 4: what the listings of invoice --shard acct_2 leave out is kept\n", ok("informs", "dismiss", "invoice", "--shard", "acct_2", "--yes").stdout)
	upstream.changeAccounts(func() { upstream.down = map[string]bool{} })
	require.Contains(t, ok("inform", "invoice").stdout, "1 gone and marked deleted")
	now = shardsNow()
	require.Equal(t, []string{"acct_1", "acct_2"}, slices.Sorted(maps.Keys(now)), "nothing is left of the other")
	require.Equal(t, "dismissed", now["acct_2"].Withheld.Decision)
	require.Len(t, decode[pageJSON](t, i.run("resources", "list", "--shard", "acct_2", "--state", "synced", "-o", "json")).Resources, 4)
}

func TestWhatWaitsForALimitKeyIsShown(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	c := i.newClient(nil)
	for _, path := range []string{"a", "b", "c", "d"} {
		_, err := c.Inform(t.Context(), page{Path: path}, nil)
		require.NoError(t, err)
	}
	i.execSQL(`insert into delta_controller (name, inform_interval, key_concurrency, key_rate) values ('page', '-1s', 1, 0.5)`)
	i.execSQL(`update delta_resource set limit_key = 'acct_1'`)
	i.execSQL(`update delta_resource set slot_key = 'acct_1', state = 'pending', due_at = null, claimed_until = now() + interval '1 hour' where object_id = 'a'`)
	i.execSQL(`update delta_resource set queued_at = now() - interval '20 minutes', dispatch_at = null where object_id <> 'a'`)

	r := i.run("resources", "get", "page", "b")
	require.Equal(t, exitOK, r.code, r.stderr)
	require.Regexp(t, `(?m)^limit key +acct_1: it waits for a slot, 20m\S* ago \(1 of 1 running, 0\.5/s, 3 waiting\)$`, r.stdout)
	require.Regexp(t, `(?m)^limit key +acct_1 \(1 of 1 running, 0\.5/s\)$`, i.run("resources", "get", "page", "a").stdout)
	require.Equal(t, "acct_1", decode[resourceJSON](t, i.run("resources", "get", "page", "b", "-o", "json")).LimitKey)

	r = i.run("kinds", "page")
	require.Contains(t, r.stderr, "page: 3 resources waiting for slots of 1 limit key, the first 20m")
	kind := decode[kindsJSON](t, i.run("kinds", "page", "-o", "json")).Kinds[0]
	require.EqualValues(t, 3, kind.Queued)
	require.EqualValues(t, 1, kind.QueuedKeys)
	require.WithinDuration(t, time.Now().Add(-20*time.Minute), *kind.OldestQueued, 15*time.Minute)

	r = i.run("doctor")
	require.Contains(t, r.stdout, "3 resources of 1 limit key wait for slots, the first for 20m")
	i.execSQL(`update delta_resource set queued_at = now() - interval '1 minute' where object_id <> 'a'`)
	require.NotContains(t, i.run("doctor").stdout, "wait for slots", "waiting for up to a quarter of an hour is normal")
}
