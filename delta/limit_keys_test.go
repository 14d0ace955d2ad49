package delta_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// tenant is an object with a limit key. Its kinds are worked in different modes.
type tenant struct{ Name, Key string }

func (o tenant) ID() string       { return o.Name }
func (o tenant) LimitKey() string { return o.Key }

const keySlots = 2

func keySettings(batch int) delta.ObjectSettings {
	return delta.ObjectSettings{Parallelism: 16, InformInterval: -1, BatchSize: batch, KeyConcurrency: keySlots}
}

type singleTenant struct{ tenant }

func (singleTenant) Kind() string                   { return "single_tenant" }
func (singleTenant) Settings() delta.ObjectSettings { return keySettings(1) }

type autoTenant struct{ tenant }

func (autoTenant) Kind() string                   { return "auto_tenant" }
func (autoTenant) Settings() delta.ObjectSettings { return keySettings(0) }

type batchedTenant struct{ tenant }

func (batchedTenant) Kind() string                   { return "batched_tenant" }
func (batchedTenant) Settings() delta.ObjectSettings { return keySettings(50) }

// manyTenant is a kind with a WorkBatch.
type manyTenant struct{ tenant }

func (manyTenant) Kind() string                   { return "many_tenant" }
func (manyTenant) Settings() delta.ObjectSettings { return keySettings(50) }

// ratedTenant is a kind with a rate.
type ratedTenant struct{ tenant }

func (ratedTenant) Kind() string { return "rated_tenant" }
func (ratedTenant) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{Parallelism: 16, InformInterval: -1, KeyRate: 4}
}

// tenantMode makes objects and controllers of a kind.
type tenantMode struct {
	kind       string
	object     func(tenant) delta.Object
	controller func(work func(context.Context, *deltatype.ResourceRow) error) func(*delta.Controllers)
}

func modeOf[T delta.Object](object func(tenant) T) tenantMode {
	return tenantMode{
		kind:   object(tenant{}).Kind(),
		object: func(o tenant) delta.Object { return object(o) },
		controller: func(work func(context.Context, *deltatype.ResourceRow) error) func(*delta.Controllers) {
			return with(&controller[T]{work: func(ctx context.Context, r *delta.Resource[T]) error { return work(ctx, r.ResourceRow) }})
		},
	}
}

// manyTenants is a controller with a WorkBatch that works its resources in parallel.
type manyTenants struct {
	controller[manyTenant]
	one func(context.Context, *deltatype.ResourceRow) error
}

func (m *manyTenants) Finalize(ctx context.Context, r *delta.Resource[manyTenant]) error {
	return m.one(ctx, r.ResourceRow)
}

func (m *manyTenants) WorkBatch(ctx context.Context, all []*delta.Resource[manyTenant]) []error {
	results := make([]error, len(all))
	var calls sync.WaitGroup
	for i, r := range all {
		calls.Go(func() { results[i] = m.one(ctx, r.ResourceRow) })
	}
	calls.Wait()
	return results
}

// skipIfRare skips the modes that a push does not try: the automatic mode has both.
func (m tenantMode) skipIfRare(t *testing.T) {
	t.Helper()
	if m.kind == "single_tenant" || m.kind == "batched_tenant" {
		soak.Rare(t)
	}
}

func tenantModes() []tenantMode {
	many := modeOf(func(o tenant) manyTenant { return manyTenant{o} })
	many.controller = func(work func(context.Context, *deltatype.ResourceRow) error) func(*delta.Controllers) {
		return func(cs *delta.Controllers) { delta.AddController(cs, &manyTenants{one: work}) }
	}
	return []tenantMode{
		modeOf(func(o tenant) singleTenant { return singleTenant{o} }), modeOf(func(o tenant) autoTenant { return autoTenant{o} }),
		modeOf(func(o tenant) batchedTenant { return batchedTenant{o} }), many,
	}
}

// startWithPool starts a client with its own pool.
func (h *harness) startWithPool(config *delta.Config) *delta.Client {
	h.t.Helper()
	pool, err := pgxpool.New(context.Background(), h.DatabaseURL)
	require.NoError(h.t, err)
	h.t.Cleanup(pool.Close)
	c, err := delta.NewClient(pool, config)
	require.NoError(h.t, err)
	require.NoError(h.t, c.Start(context.Background()))
	h.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = c.Stop(ctx)
	})
	return c
}

// keyMeter counts concurrent calls by key, and notes the maximum.
type keyMeter struct {
	mu            sync.Mutex
	running, most map[string]int
}

func newKeyMeter() *keyMeter { return &keyMeter{running: map[string]int{}, most: map[string]int{}} }

func (m *keyMeter) enter(key string) (leave func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.running[key]++
	m.most[key] = max(m.most[key], m.running[key])
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.running[key]--
	}
}

// awaitMost waits until n calls of a key have run at once, at some time.
func (m *keyMeter) awaitMost(ctx context.Context, key string, n int) {
	for ctx.Err() == nil {
		m.mu.Lock()
		most := m.most[key]
		m.mu.Unlock()
		if most >= n {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// watchKeys counts the living claims of each key until most is called, which returns the maximum.
func (h *harness) watchKeys(kind string) (most func() int) {
	ctx, cancel := context.WithCancel(context.Background())
	found := make(chan int, 1)
	go func() {
		most := 0
		for ctx.Err() == nil {
			most = max(most, h.countRows(`SELECT coalesce(max(n), 0) FROM (SELECT count(*) AS n FROM delta_resource r
				WHERE kind = $1 AND limit_key IS NOT NULL AND claimed_until IS NOT NULL AND (claimed_until > now()
					OR EXISTS (SELECT FROM delta_claim c WHERE c.id = r.claim AND c.claimed_until > now()))
				GROUP BY limit_key) m`, kind))
			time.Sleep(5 * time.Millisecond) // without it, this is a busy loop beside all other tests
		}
		found <- most
	}()
	most = sync.OnceValue(func() int {
		cancel()
		return <-found
	})
	h.t.Cleanup(func() { most() }) // before the pool is closed, even if the test ends early
	return most
}

func TestCallsOfAKeyNeverExceedItsConcurrency(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	for _, mode := range tenantModes() {
		t.Run(mode.kind, func(t *testing.T) {
			mode.skipIfRare(t)
			t.Parallel()
			h := newHarness(t)
			meter := newKeyMeter()
			var failed sync.Map
			controller := mode.controller(func(ctx context.Context, r *deltatype.ResourceRow) error {
				if r.LimitKey != "" {
					defer meter.enter(r.LimitKey)()
				}
				if r.LimitKey == "key1" {
					meter.awaitMost(ctx, r.LimitKey, keySlots) // otherwise a busy machine might never run two at once
				}
				time.Sleep(rand.N(20 * time.Millisecond))
				if _, again := failed.LoadOrStore(r.ObjectID, true); !again && rand.N(20) == 0 {
					return errors.New("the upstream says no")
				}
				return nil
			})
			var clients []*delta.Client
			for range 3 {
				clients = append(clients, h.startWithPool(h.config(controller)))
			}
			most := h.watchKeys(mode.kind)
			var all []string
			for n := range 3 {
				var objects []delta.Object
				for i := range 30 {
					o := tenant{Name: fmt.Sprint(n, "-", i)}
					if key := rand.N(5); key > 0 {
						o.Key = fmt.Sprint("key", key)
					}
					all, objects = append(all, o.Name), append(objects, mode.object(o))
				}
				_, err := clients[n].InformMany(t.Context(), objects, nil)
				require.NoError(t, err)
			}
			for _, name := range all {
				h.eventually(mode.kind, name, synced(1))
			}
			require.LessOrEqual(t, most(), keySlots, "living claims")
			for key, n := range meter.most {
				require.LessOrEqual(t, n, keySlots, key)
			}
			require.Equal(t, keySlots, meter.most["key1"], "and no fewer")
			require.Zero(t, h.countRows("SELECT count(*) FROM delta_resource WHERE slot_key IS NOT NULL"))
		})
	}
}

// Waiting rows of a busy key precede those of another key in every order. They are not worked, and have no workflows.
func TestABusyKeyDoesNotDelayOtherKeys(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	for _, mode := range tenantModes() {
		t.Run(mode.kind, func(t *testing.T) {
			mode.skipIfRare(t)
			t.Parallel()
			h := newHarness(t)
			var running, most atomic.Int64
			open := make(chan struct{})
			controller := mode.controller(func(ctx context.Context, r *deltatype.ResourceRow) error {
				if r.LimitKey != "busy" {
					return nil
				}
				defer running.Add(-1)
				raiseTo(&most, running.Add(1))
				select {
				case <-open:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			})
			config := withLongClaims(h.config(controller), mode.kind)
			config.Namespaces = map[string]delta.NamespaceConfig{"narrow": {MaxWorkers: keySlots + 1}}
			config.ResourceWorkTimeout = 10 * patience
			c := h.client(config)
			inform := func(key, prefix string, n int) {
				var objects []delta.Object
				for _, name := range names(prefix, n) {
					objects = append(objects, mode.object(tenant{Name: name, Key: key}))
				}
				_, err := c.InformMany(t.Context(), objects, &delta.InformOpts{Namespace: "narrow", Priority: 1})
				require.NoError(t, err)
			}
			inform("busy", "busy", 300)
			inform("other", "other", 20)
			inform("", "none", 20)
			require.NoError(t, c.Start(context.Background()))
			t.Cleanup(func() {
				ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
				defer cancel()
				_ = c.Stop(ctx)
			})
			for _, name := range append(names("other", 20), names("none", 20)...) {
				h.eventually(mode.kind, name, synced(1))
			}
			require.LessOrEqual(t, most.Load(), int64(keySlots))
			until(t, func() bool {
				kinds, err := c.Kinds(t.Context())
				require.NoError(t, err)
				return kinds[0].Queued == 300-keySlots && kinds[0].QueuedKeys == 1
			})
			status, err := c.LimitKey(t.Context(), mode.kind, "busy299")
			require.NoError(t, err)
			require.Equal(t, "busy", status.Key)
			require.Equal(t, keySlots, status.Concurrency)
			require.EqualValues(t, keySlots, status.Running)
			require.NotNil(t, status.WaitsSince)
			close(open)
			until(t, func() bool {
				return h.countRows("SELECT count(*) FROM delta_resource WHERE limit_key = 'busy' AND state = 'synced'") >= 50
			})
			require.Zero(t, h.countRows("SELECT count(*) FROM delta_resource WHERE attempt > 1"), "waiting costs no attempt")
		})
	}
}

// noteCounts records calls of limit keys in the database as they are counted against the rate, 0.25 seconds each: when the statement began, how many
// it counted, and when the next call may begin.
func (h *harness) noteCounts() {
	h.t.Helper()
	h.exec(`CREATE TABLE counted (limit_key text, began timestamptz, calls integer, next_call_at timestamptz);
		CREATE FUNCTION note_count() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			INSERT INTO counted VALUES (NEW.limit_key, now(),
				round(extract(epoch FROM NEW.next_call_at - greatest(OLD.next_call_at, now())) / 0.25), NEW.next_call_at);
			RETURN NULL;
		END $$;
		CREATE TRIGGER notes_counts AFTER UPDATE ON delta_key FOR EACH ROW
			WHEN (NEW.next_call_at IS DISTINCT FROM OLD.next_call_at) EXECUTE FUNCTION note_count()`)
}

// On a busy machine, a claim may come some time after its call was counted, so calls may be closer together than the rate says. None comes early.
func TestTheRateOfAKeyHoldsForAllClients(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	h.noteCounts()
	mode := modeOf(func(o tenant) ratedTenant { return ratedTenant{o} })
	c := h.clientTogether(mode)
	for range 2 {
		h.startChild("together", "started")
	}
	require.NoError(t, c.Start(context.Background()))
	t.Cleanup(func() { _ = c.Stop(context.Background()) })
	var objects []delta.Object
	for i := range 24 {
		objects = append(objects, mode.object(tenant{Name: fmt.Sprint(i), Key: fmt.Sprint("key", i%2)}))
	}
	_, err := c.InformMany(t.Context(), objects, nil)
	require.NoError(t, err)
	for i := range objects {
		h.eventually(mode.kind, fmt.Sprint(i), synced(1))
	}
	require.Greater(t, h.countRows("SELECT count(DISTINCT pid) FROM calls"), 1, "several processes have called Work")
	require.Zero(t, h.countRows(`SELECT count(*) FROM (
			SELECT limit_key, attempted_at, row_number() OVER (PARTITION BY limit_key ORDER BY attempted_at) AS n FROM delta_resource) call
		WHERE attempted_at < (SELECT min(began) FROM counted c WHERE c.limit_key = call.limit_key) + (n - 1) * interval '0.25 seconds'`),
		"12 calls of a key, four a second")
	require.Zero(t, h.countRows(`SELECT count(*) FROM (SELECT limit_key, next_call_at, sum(calls) OVER (PARTITION BY limit_key ORDER BY next_call_at) AS n FROM counted) c
		WHERE n < (SELECT count(*) FROM delta_resource r WHERE r.limit_key = c.limit_key AND r.attempted_at < c.next_call_at)`),
		"until the time of the next call, no more calls than were counted")
	t.Logf("%d calls were counted for 24", h.countRows("SELECT sum(calls) FROM counted"))
}

func TestKeyLimitsThatBreakTheRuleAreRefused(t *testing.T) {
	t.Parallel()
	for _, bad := range []delta.ObjectSettings{
		{KeyConcurrency: -1}, {KeyConcurrency: 10_001}, {KeyRate: -1}, {KeyRate: math.NaN()}, {KeyRate: math.Inf(1)}, {KeyRate: 1e-9},
	} {
		_, err := delta.CheckSettings(bad)
		var input *delta.InputError
		require.ErrorAs(t, err, &input)
		require.Contains(t, input.Rule, "or 0 for no limit")
	}
}
