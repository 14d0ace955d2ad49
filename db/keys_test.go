package db_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// keys are rows whose kind limits limit keys.
type keys struct {
	*testing.T
	pool *pgxpool.Pool
}

func newKeys(t *testing.T, concurrency int, rate float64) keys {
	t.Helper()
	k := keys{t, deltatest.New(t).Pool}
	k.limit(concurrency, rate)
	return k
}

func (k keys) exec(sql string, args ...any) {
	k.Helper()
	_, err := k.pool.Exec(k.Context(), sql, args...)
	require.NoError(k, err)
}

func (k keys) count(sql string, args ...any) (n int) {
	k.Helper()
	require.NoError(k, k.pool.QueryRow(context.Background(), "SELECT count(*) FROM delta_resource WHERE "+sql, args...).Scan(&n))
	return n
}

func (k keys) limit(concurrency int, rate float64) {
	k.Helper()
	k.exec(`INSERT INTO delta_controller (name, inform_interval, key_concurrency, key_rate) VALUES ('thing', '0', $1, $2)
		ON CONFLICT (name) DO UPDATE SET key_concurrency = excluded.key_concurrency, key_rate = excluded.key_rate`, concurrency, rate)
}

// due makes rows of a key that are due; no key is none.
func (k keys) due(key string, n int) (ids []int64) {
	k.Helper()
	rows, err := k.pool.Query(k.Context(), `INSERT INTO delta_resource (kind, object_id, object, hash, namespace, max_attempts, due_at, dispatch_at, limit_key)
		SELECT 'thing', $1 || '/' || gen_random_uuid(), '{}', '\x00', 'default', 5, now() - interval '1 minute' + i * interval '1 microsecond', now() - interval '1 s',
			nullif($1, '') FROM generate_series(1, $2) i RETURNING id`, key, n)
	require.NoError(k, err)
	defer rows.Close()
	for rows.Next() {
		var id int64
		require.NoError(k, rows.Scan(&id))
		ids = append(ids, id)
	}
	require.NoError(k, rows.Err())
	return ids
}

// take gives rows slots, and returns how many wait for one.
func (k keys) take(ids []int64, begins bool) (waiting int) {
	k.Helper()
	for _, row := range k.takeRows(ids, begins) {
		if row.Queued {
			waiting++
		}
	}
	return waiting
}

func (k keys) takeRows(ids []int64, begins bool) []db.TakeSlotsRow {
	k.Helper()
	rows, err := db.New().TakeSlots(k.Context(), k.pool, db.TakeSlotsParams{Kind: "thing", Ids: ids, Begins: begins, Lease: time.Minute})
	require.NoError(k, err)
	return rows
}

func (k keys) claim(claim string, ids []int64) []db.ClaimResourcesRow {
	k.Helper()
	p := claimParams(claim, "", ids)
	p.Keyed = true
	rows, err := db.New().ClaimResources(k.Context(), k.pool, p)
	require.NoError(k, err)
	return rows
}

func (k keys) sync(claim string, rows []db.ClaimResourcesRow) {
	k.Helper()
	written, err := db.New().WriteOutcomes(k.Context(), k.pool, outcomeParams(claim, deltatype.ResourceStateSynced, rows))
	require.NoError(k, err)
	require.Len(k, written, len(rows))
}

func (k keys) wake(named ...string) (woken int64) {
	k.Helper()
	woken, err := db.New().WakeKeys(k.Context(), k.pool, db.WakeKeysParams{Kind: "thing", Keys: named})
	require.NoError(k, err)
	return woken
}

// wakeAt makes keys due to be looked at.
func (k keys) wakeAt() {
	k.Helper()
	k.exec(`UPDATE delta_key SET wake_at = now() WHERE limit_key IN (SELECT limit_key FROM delta_key WHERE wake_at IS NOT NULL FOR UPDATE SKIP LOCKED)`)
}

const queued = "queued_at IS NOT NULL AND dispatch_at IS NULL"

func TestAFullKeyHasItsRowsWaitAndEachSlotThatIsFreeWakesOne(t *testing.T) {
	t.Parallel()
	k := newKeys(t, 2, 0)
	busy, other, none := k.due("busy", 10), k.due("other", 1), k.due("", 3)
	all := append(append(append([]int64{}, busy...), other...), none...)
	require.Equal(t, 8, k.take(all, false))
	require.Equal(t, 8, k.count(queued))
	require.Equal(t, 3, k.count("slot_key IS NOT NULL"), "two of the busy key, and the other")
	claim := uuid.NewString()
	require.Empty(t, k.claim(claim, busy[2:]), "nothing is claimed without a slot")
	rows := k.claim(claim, busy)
	require.Len(t, rows, 2)
	require.Len(t, k.claim(claim, all), 6, "a claim that is repeated has its slots")
	require.Zero(t, k.wake("busy"), "no slot is free")

	// What comes now joins those that wait, and is not given the slot that they wait for.
	k.sync(claim, rows[:1])
	require.Equal(t, 1, k.take(k.due("busy", 1), false))
	require.EqualValues(t, 1, k.wake("busy"))
	require.Zero(t, k.wake("busy"), "the slot is given")
	require.Equal(t, 1, k.count("id = $1 AND slot_key = 'busy' AND dispatch_at <= clock_timestamp()", busy[2]), "the oldest is next")
	require.Equal(t, 0, k.take(busy[2:3], true))
	require.Len(t, k.claim(claim, busy[2:3]), 1)
}

func TestSlotsOfDeadClaimsAndOfRowsThatAreNotClaimedAreTakenBack(t *testing.T) {
	t.Parallel()
	k := newKeys(t, 2, 0)
	busy := k.due("busy", 5)
	require.Equal(t, 3, k.take(busy, false))
	claim := uuid.NewString()
	require.Len(t, k.claim(claim, busy[:1]), 1)
	k.exec("UPDATE delta_resource SET slot_until = now() - interval '1 s' WHERE slot_until IS NOT NULL")
	k.wakeAt()
	require.EqualValues(t, 1, k.wake(), "that of the row which was not claimed")
	require.Empty(t, k.claim(claim, busy[1:2]), "it has no slot any more")

	// A claim that is renewed is alive, whatever its row says.
	k.exec("UPDATE delta_resource SET claimed_until = now() - interval '1 s' WHERE claimed_until IS NOT NULL")
	k.exec("INSERT INTO delta_claim VALUES ($1, now() + interval '1 hour')", claim)
	k.wakeAt()
	require.Zero(t, k.wake())
	k.exec("DELETE FROM delta_claim")
	k.wakeAt()
	require.EqualValues(t, 1, k.wake())

	// A claim that is being written keeps the slot that it has found.
	k.exec("UPDATE delta_resource SET slot_until = now() - interval '1 s' WHERE slot_until IS NOT NULL")
	tx, err := k.pool.Begin(t.Context())
	require.NoError(t, err)
	p := claimParams(claim, "", busy[2:4])
	p.Keyed = true
	rows, err := db.New().ClaimResources(t.Context(), tx, p)
	require.NoError(t, err)
	require.Len(t, rows, 2)
	k.wakeAt()
	require.Zero(t, k.wake())
	require.NoError(t, tx.Commit(t.Context()))
	k.wakeAt()
	require.Zero(t, k.wake())
	require.Equal(t, 2, k.count("claimed_until > now()"))
}

func TestTheRateOfAKeySpacesItsCallsAndSaysWhenTheNextIs(t *testing.T) {
	t.Parallel()
	k := newKeys(t, 0, 0.01) // the next call is far off, however slow the machine
	slow := k.due("slow", 4)
	require.Equal(t, 3, k.take(slow, false), "one call may begin")
	require.Equal(t, 0, k.take(slow[:1], true))
	require.Len(t, k.claim(uuid.NewString(), slow[:1]), 1)
	require.Zero(t, k.wake())
	next, err := db.New().NextDispatch(t.Context(), k.pool, db.NextDispatchParams{Kind: "thing", Looked: time.Minute})
	require.NoError(t, err)
	require.Greater(t, next.KeysWait, time.Duration(0))
	require.LessOrEqual(t, next.KeysWait, 100*time.Second)
	k.exec("UPDATE delta_key SET wake_at = now(), next_call_at = now()")
	require.EqualValues(t, 1, k.wake())
	k.wakeAt()
	require.Zero(t, k.wake(), "the call is given")

	// A rate of 50 lets 5 calls begin together, and those that are early by a quarter of a second at most wait for theirs.
	k.limit(0, 50)
	fast := k.due("fast", 20)
	var waits []time.Duration
	var queued int
	for _, row := range k.takeRows(fast, true) {
		if row.Queued {
			queued++
		} else {
			waits = append(waits, row.Wait)
		}
	}
	slices.Sort(waits)
	require.Equal(t, 3, queued)
	require.Len(t, waits, 12)
	for i, wait := range waits {
		require.Equal(t, time.Duration(i+1)*20*time.Millisecond, wait)
	}
}

func TestLimitsThatChangeHoldForWhatWaits(t *testing.T) {
	t.Parallel()
	k := newKeys(t, 1, 0)
	busy := k.due("busy", 700)
	require.Equal(t, 699, k.take(busy, false))
	k.limit(3, 0)
	require.EqualValues(t, 2, k.wake("busy"))
	k.limit(0, 0)
	require.EqualValues(t, 256, k.wake("busy"))
	for k.count(queued) > 0 {
		k.wakeAt()
		require.Positive(t, k.wake())
	}
	require.Zero(t, k.wake())
	k.exec("UPDATE delta_resource SET slot_key = NULL")
	k.exec("UPDATE delta_key SET used_at = now() - interval '2 hours'")
	require.NoError(t, db.New().SweepKeys(t.Context(), k.pool, time.Hour))
	var left int
	require.NoError(t, k.pool.QueryRow(t.Context(), "SELECT count(*) FROM delta_key").Scan(&left))
	require.Zero(t, left)
}

func TestWhatIsPausedSnoozedOrChangedWhileItWaitsLetsOthersPass(t *testing.T) {
	t.Parallel()
	k := newKeys(t, 1, 0)
	busy := k.due("busy", 5)
	require.Equal(t, 4, k.take(busy, false))
	claim := uuid.NewString()
	rows := k.claim(claim, busy)
	require.Len(t, rows, 1)
	k.exec("UPDATE delta_resource SET paused = TRUE WHERE id = $1", busy[1])
	k.exec("UPDATE delta_resource SET namespace = 'asleep' WHERE id = $1", busy[2])
	k.exec("INSERT INTO delta_namespace (name, snoozed_until) VALUES ('asleep', now() + interval '1 hour')")
	k.exec("UPDATE delta_resource SET limit_key = 'other' WHERE id = $1", busy[0]) // its call keeps the slot that it began with
	require.Zero(t, k.wake("busy"))
	k.sync(claim, rows)
	k.exec("UPDATE delta_controller SET snoozed_until = now() + interval '1 hour'")
	require.Zero(t, k.wake("busy"))
	k.exec("UPDATE delta_controller SET snoozed_until = NULL, paused = TRUE")
	require.Zero(t, k.wake("busy"))
	k.exec("UPDATE delta_controller SET paused = FALSE")
	require.EqualValues(t, 1, k.wake("busy"))
	require.Equal(t, 1, k.count("id = $1 AND slot_key = 'busy'", busy[3]))
}

func TestEachOutcomeTakesTheSlotBackAtOnce(t *testing.T) {
	t.Parallel()
	k := newKeys(t, 1, 0)
	for _, state := range []deltatype.ResourceState{
		deltatype.ResourceStateSynced, deltatype.ResourceStateFailed, deltatype.ResourceStateDegraded, deltatype.ResourceStateDeleted,
		deltatype.ResourceStateScheduled, // snoozed, or given back
	} {
		ids := k.due("key "+string(state), 2)
		require.Equal(t, 1, k.take(ids, true))
		claim := uuid.NewString()
		rows := k.claim(claim, ids)
		require.Len(t, rows, 1)
		_, err := db.New().WriteOutcomes(t.Context(), k.pool, outcomeParams(claim, state, rows))
		require.NoError(t, err)
		require.Zero(t, k.count("slot_key = $1", "key "+string(state)), state)
		require.EqualValues(t, 1, k.wake("key "+string(state)))
	}
}

// Sets of three clients meet on a few keys, and some die with their claims. At no time are more claims of a key alive than it has slots.
func TestLivingClaimsOfAKeyAreNeverMoreThanItsSlots(t *testing.T) {
	t.Parallel()
	const concurrency, rows = 3, 400
	k := newKeys(t, concurrency, 0)
	for i := range 5 {
		k.due(fmt.Sprint("key", i), rows/5)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var mu sync.Mutex
	most := 0
	look := func() {
		var n int
		err := k.pool.QueryRow(context.Background(), `SELECT coalesce(max(n), 0) FROM (SELECT count(*) AS n FROM delta_resource
			WHERE state = 'pending' AND claimed_until > clock_timestamp() GROUP BY limit_key) m`).Scan(&n)
		require.NoError(t, err)
		mu.Lock()
		defer mu.Unlock()
		most = max(most, n)
	}
	var clients sync.WaitGroup
	for n := range 6 {
		clients.Go(func() {
			defer stop() // also when it fails
			for round := 0; k.count("state <> 'synced'") > 0 && ctx.Err() == nil; round++ {
				k.work(n, round, look)
			}
		})
	}
	for ctx.Err() == nil {
		look()
	}
	clients.Wait()
	require.Equal(t, concurrency, most)
	require.Zero(t, k.count("state <> 'synced'"))
	require.Zero(t, k.count("slot_key IS NOT NULL"))
}

// work does what a client does: it leases, takes slots, claims and writes. Now and then it dies with what it has. It looks while it has claims: a
// machine may be too busy for those who look beside it.
func (k keys) work(client, round int, look func()) {
	q := db.New()
	k.wakeAt()
	_, err := q.WakeKeys(k.Context(), k.pool, db.WakeKeysParams{Kind: "thing"})
	require.NoError(k, err)
	p := leaseParams("")
	p.Batch, p.Lease, p.Longest = 20, 50*time.Millisecond, 50*time.Millisecond // a lease grows with the time for which a row is due
	leased, err := q.LeaseDue(k.Context(), k.pool, p)
	require.NoError(k, err)
	ids := make([]int64, len(leased))
	for i, row := range leased {
		ids[i] = row.ID
	}
	if round%2 == 0 {
		k.take(ids, false)
	}
	if client == 5 {
		// All slots of rows that are not claimed are taken back.
		k.exec(`UPDATE delta_resource SET slot_until = now() WHERE id IN (SELECT id FROM delta_resource WHERE slot_until IS NOT NULL FOR UPDATE SKIP LOCKED)`)
	}
	k.take(ids, true)
	claim := uuid.NewString()
	c := claimParams(claim, "", ids)
	c.Keyed, c.ClaimFor = true, 2*time.Second
	if round%7 == 6 {
		c.ClaimFor = 100 * time.Millisecond
	}
	rows, err := q.ClaimResources(k.Context(), k.pool, c)
	require.NoError(k, err)
	look()
	if round%7 == 6 {
		return
	}
	var named []string
	for _, row := range rows {
		named = append(named, *row.Resource.SlotKey)
	}
	_, err = q.WriteOutcomes(k.Context(), k.pool, outcomeParams(claim, deltatype.ResourceStateSynced, rows))
	require.NoError(k, err)
	k.wake(append(named, "")...)
}

// However many rows of a full key are due, each is moved out of the way once, and no lease reads it after that.
func TestRowsOfABusyKeyAreReadOnceAndNotByEachLease(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	const many = 100_000
	k := newKeys(t, 2, 0)
	k.exec("ALTER TABLE delta_resource SET (autovacuum_enabled = FALSE)")
	k.due("busy", many)
	other := k.due("other", 10)
	k.exec("UPDATE delta_resource SET dispatch_at = now() WHERE id = ANY ($1)", other) // behind all others
	q, began := db.New(), time.Now()
	for {
		queued, err := q.QueueDue(t.Context(), k.pool, db.QueueDueParams{Kind: "thing", Priorities: allPriorities, Batch: 1000})
		require.NoError(t, err)
		if len(queued) < 500 {
			break
		}
	}
	t.Logf("%d rows were moved in %s", k.count(queued), time.Since(began).Round(time.Millisecond))
	for k.wake() > 0 {
		continue
	}
	require.Equal(t, 4, k.count("slot_key IS NOT NULL"))
	require.Equal(t, many-2+10-4, k.count(queued), "two were left to the lease, and join the others then")
	k.exec("VACUUM delta_resource") // the index leads to what was there before until then
	tx, err := k.pool.Begin(t.Context())
	require.NoError(t, err)
	defer tx.Rollback(context.Background()) //nolint:errcheck // it is to be rolled back
	counted := &countedReads{Tx: tx}
	leased, err := q.LeaseDue(t.Context(), counted, leaseParams(""))
	require.NoError(t, err)
	require.NoError(t, counted.err)
	require.Len(t, leased, 6)
	require.LessOrEqual(t, counted.read.fetched, 4*6)
	require.Zero(t, counted.read.sequential)

	counted.read = rowsRead{}
	_, err = tx.Exec(t.Context(), "UPDATE delta_resource SET slot_key = NULL, slot_until = NULL, state = 'synced' WHERE slot_key = 'busy'")
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "UPDATE delta_key SET wake_at = now()")
	require.NoError(t, err)
	woken, err := q.WakeKeys(t.Context(), counted, db.WakeKeysParams{Kind: "thing"})
	require.NoError(t, err)
	require.NoError(t, counted.err)
	require.EqualValues(t, 2, woken)
	require.LessOrEqual(t, counted.read.fetched, 40)
	require.Zero(t, counted.read.sequential)
}

// Clients that take slots of a key at once count one after the other: each sees the slots that the one before has given.
func TestTheLastSlotOfAKeyIsGivenToOneOfTwoClients(t *testing.T) {
	t.Parallel()
	k := newKeys(t, 1, 0)
	ids := k.due("busy", 3)
	k.take(ids[:1], false) // the key's row is there already
	k.exec("UPDATE delta_resource SET slot_key = NULL")
	tx, err := k.pool.Begin(t.Context())
	require.NoError(t, err)
	first, err := db.New().TakeSlots(t.Context(), tx, db.TakeSlotsParams{Kind: "thing", Ids: ids[1:2], Begins: true, Lease: time.Minute})
	require.NoError(t, err)
	require.Empty(t, first)
	second := make(chan int, 1)
	go func() {
		rows, err := db.New().TakeSlots(context.Background(), k.pool, db.TakeSlotsParams{Kind: "thing", Ids: ids[2:], Begins: true, Lease: time.Minute})
		if err != nil {
			t.Error(err)
		}
		second <- len(rows)
	}()
	for waits := 0; waits == 0 && len(second) == 0; {
		require.NoError(t, k.pool.QueryRow(t.Context(), `SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'
			AND transactionid = (SELECT backend_xid FROM pg_stat_activity WHERE pid = $1)`, tx.Conn().PgConn().PID()).Scan(&waits))
	}
	require.NoError(t, tx.Commit(t.Context()))
	require.Equal(t, 1, <-second)
	require.Equal(t, 1, k.count("slot_key = 'busy'"))
}

// However many rows of a snoozed namespace are due, or wait for a key, they are put off once, and read by no lease and no look at the key after that.
func TestRowsOfASnoozedNamespaceAreReadOnceAndNotByEachLease(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	const many = 20_000
	k := newKeys(t, 2, 0)
	k.exec("ALTER TABLE delta_resource SET (autovacuum_enabled = FALSE)")
	k.due("", many)
	k.due("busy", many)
	k.exec("UPDATE delta_resource SET namespace = 'asleep'")
	k.exec("UPDATE delta_resource SET dispatch_at = NULL, queued_at = due_at WHERE limit_key = 'busy'")
	due, waits := k.due("", 10), k.due("busy", 2)
	k.exec("UPDATE delta_resource SET dispatch_at = NULL, queued_at = now() WHERE id = ANY ($1)", waits)
	k.exec("UPDATE delta_resource SET dispatch_at = now() WHERE id = ANY ($1)", due) // behind all others
	k.exec("INSERT INTO delta_namespace (name, snoozed_until, snooze_spread) VALUES ('asleep', now() + interval '1 hour', interval '1 minute')")
	k.exec("INSERT INTO delta_key (kind, limit_key, wake_at) VALUES ('thing', 'busy', now())")
	q := db.New()
	var put int64
	for n := int64(1000); n > 0; put += n {
		var err error
		n, err = q.PutOffSnoozed(t.Context(), k.pool, db.PutOffSnoozedParams{Kind: "thing", Priorities: allPriorities, Batch: 1000})
		require.NoError(t, err)
	}
	require.EqualValues(t, many, put)
	looks := 0
	for ; k.count("slot_key = 'busy'") < 2; looks++ {
		require.Less(t, looks, many/100, "each look puts some off")
		k.wakeAt()
		k.wake()
	}
	require.Equal(t, 2, k.count("slot_key = 'busy' AND id = ANY ($1)", waits))
	require.Equal(t, 2*many, k.count(`namespace = 'asleep' AND dispatch_at BETWEEN (SELECT snoozed_until FROM delta_namespace WHERE name = 'asleep')
		AND (SELECT snoozed_until + snooze_spread FROM delta_namespace WHERE name = 'asleep')`))

	k.exec("VACUUM ANALYZE delta_resource") // the index leads to what was there before until then
	tx, err := k.pool.Begin(t.Context())
	require.NoError(t, err)
	defer tx.Rollback(context.Background()) //nolint:errcheck // it is to be rolled back
	counted := &countedReads{Tx: tx}
	_, err = q.PutOffSnoozed(t.Context(), counted, db.PutOffSnoozedParams{Kind: "thing", Priorities: allPriorities, Batch: 1000})
	require.NoError(t, err)
	leased, err := q.LeaseDue(t.Context(), counted, leaseParams(""))
	require.NoError(t, err)
	require.Len(t, leased, len(due)+len(waits))
	require.LessOrEqual(t, counted.read.fetched, 80)
	counted.read = rowsRead{}
	_, err = tx.Exec(t.Context(), "UPDATE delta_key SET wake_at = now()")
	require.NoError(t, err)
	_, err = q.WakeKeys(t.Context(), counted, db.WakeKeysParams{Kind: "thing"})
	require.NoError(t, err)
	require.NoError(t, counted.err)
	require.LessOrEqual(t, counted.read.fetched, 40)
	require.Zero(t, counted.read.sequential)
}

// A snooze that is ended while rows are put off leaves none of them behind.
func TestWhatIsPutOffWhileASnoozeEndsComesBackWithIt(t *testing.T) {
	t.Parallel()
	k := newKeys(t, 1, 0)
	ids := k.due("", 3)
	k.exec("INSERT INTO delta_namespace (name, snoozed_until) VALUES ('default', now() + interval '1 hour')")
	q := db.New()
	putOff := func(conn db.DBTX) int64 {
		n, err := q.PutOffSnoozed(context.Background(), conn, db.PutOffSnoozedParams{Kind: "thing", Priorities: allPriorities, Batch: 1000})
		require.NoError(t, err)
		return n
	}
	tx, err := k.pool.Begin(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 3, putOff(tx))
	ended := make(chan time.Duration, 1)
	go func() {
		lasts, err := q.WakeNamespace(context.Background(), k.pool, "default")
		if err != nil {
			t.Error(err)
		}
		ended <- lasts
	}()
	for waits := 0; waits == 0; {
		require.NoError(t, k.pool.QueryRow(t.Context(), "SELECT count(*) FROM pg_locks WHERE NOT granted AND pg_backend_pid() <> pid AND $1 = ANY (pg_blocking_pids(pid))",
			tx.Conn().PgConn().PID()).Scan(&waits))
		require.Empty(t, ended, "it has to wait for what is put off")
	}
	require.NoError(t, tx.Commit(t.Context()))
	lasts := <-ended
	require.Greater(t, lasts, 59*time.Minute)
	due, err := q.DueForDispatch(t.Context(), k.pool, db.DueForDispatchParams{Kind: "thing", Namespace: "default", Longest: lasts})
	require.NoError(t, err)
	require.ElementsMatch(t, ids, due)

	// One that is being ended puts nothing off.
	k.exec("UPDATE delta_resource SET dispatch_at = now() - interval '1 s'")
	k.exec("UPDATE delta_namespace SET snoozed_until = now() + interval '1 hour'")
	tx, err = k.pool.Begin(t.Context())
	require.NoError(t, err)
	defer tx.Rollback(context.Background()) //nolint:errcheck // it is to be rolled back
	_, err = q.WakeNamespace(t.Context(), tx, "default")
	require.NoError(t, err)
	require.Zero(t, putOff(k.pool))
}
