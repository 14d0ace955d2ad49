package db_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

func TestAFullKeyHasItsRowsWaitAndEachSlotThatIsFreeWakesOne(t *testing.T) {
	t.Parallel()
	k := newKeys(t, 2, 0)
	busy, other, none := k.addDue("busy", 10), k.addDue("other", 1), k.addDue("", 3)
	all := append(append(append([]int64{}, busy...), other...), none...)
	require.Equal(t, 8, k.takeSlots(all, false))
	require.Equal(t, 8, k.count(queued))
	require.Equal(t, 3, k.count("slot_key IS NOT NULL"), "two of the busy key, and the other")
	claim := uuid.NewString()
	require.Empty(t, k.claim(claim, busy[2:]), "nothing is claimed without a slot")
	rows := k.claim(claim, busy)
	require.Len(t, rows, 2)
	require.Len(t, k.claim(claim, all), 6, "a claim that is repeated has its slots")
	require.Zero(t, k.wakeKeys("busy"), "no slot is free")

	// What comes now joins those that wait, and is not given the slot that they wait for.
	k.sync(claim, rows[:1])
	require.Equal(t, 1, k.takeSlots(k.addDue("busy", 1), false))
	require.EqualValues(t, 1, k.wakeKeys("busy"))
	require.Zero(t, k.wakeKeys("busy"), "the slot is given")
	require.Equal(t, 1, k.count("id = $1 AND slot_key = 'busy' AND dispatch_at <= clock_timestamp()", busy[2]), "the oldest is next")
	require.Equal(t, 0, k.takeSlots(busy[2:3], true))
	require.Len(t, k.claim(claim, busy[2:3]), 1)
}

// A namespace without room, however many rows it has in front, gets no slots of a key, and a limited one no more than it has room for.
func TestRowsOfNamespacesWithoutRoomArePassedBy(t *testing.T) {
	t.Parallel()
	k := newKeys(t, 4, 0)
	full, narrow, free := k.addDue("busy", 5000), k.addDue("busy", 3), k.addDue("busy", 2)
	k.exec("UPDATE delta_resource SET namespace = 'full' WHERE id = ANY ($1)", full)
	k.exec("UPDATE delta_resource SET namespace = 'narrow' WHERE id = ANY ($1)", narrow)
	k.exec("UPDATE delta_resource SET queued_at = now() + id * interval '1 ms', dispatch_at = NULL, priority = CASE WHEN id = ANY ($1) THEN 3 ELSE 2 END", full[3990:])
	k.exec("INSERT INTO delta_key (kind, limit_key, wake_at) VALUES ('thing', 'busy', now())")
	wake := func(passedBy ...string) int64 {
		woken, err := db.New().WakeKeys(t.Context(), k.pool, db.WakeKeysParams{
			Kind: "thing", Keys: []string{"busy"}, LimitedNamespaces: []string{"narrow"}, Rooms: []int32{1}, PassedBy: passedBy,
		})
		require.NoError(t, err)
		return woken
	}
	given := func(ids []int64) int { return k.count("id = ANY ($1) AND slot_key IS NOT NULL", ids) }
	require.EqualValues(t, 2, wake("full"), "of the three and the one that are first")
	require.Equal(t, 1, given(narrow))
	require.Equal(t, 1, given(free))
	require.EqualValues(t, 1, wake("full", "narrow"))
	require.Equal(t, 2, given(free))
	require.Zero(t, wake("full", "narrow"), "a slot is left")
	require.Zero(t, given(full))
	require.EqualValues(t, 1, wake())
	require.Equal(t, 1, given(full))
}

func TestSlotsOfDeadClaimsAndOfRowsThatAreNotClaimedAreTakenBack(t *testing.T) {
	t.Parallel()
	k := newKeys(t, 2, 0)
	busy := k.addDue("busy", 5)
	require.Equal(t, 3, k.takeSlots(busy, false))
	claim := uuid.NewString()
	require.Len(t, k.claim(claim, busy[:1]), 1)
	k.exec("UPDATE delta_resource SET slot_until = now() - interval '1 s' WHERE slot_until IS NOT NULL")
	k.wakeAt()
	require.EqualValues(t, 1, k.wakeKeys(), "that of the row which was not claimed")
	require.Empty(t, k.claim(claim, busy[1:2]), "it has no slot any more")

	// A claim that is renewed is alive, whatever its row says.
	k.exec("UPDATE delta_resource SET claimed_until = now() - interval '1 s' WHERE claimed_until IS NOT NULL")
	k.exec("INSERT INTO delta_claim VALUES ($1, now() + interval '1 hour')", claim)
	k.wakeAt()
	require.Zero(t, k.wakeKeys())
	k.exec("DELETE FROM delta_claim")
	k.wakeAt()
	require.EqualValues(t, 1, k.wakeKeys())

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
	require.Zero(t, k.wakeKeys())
	require.NoError(t, tx.Commit(t.Context()))
	k.wakeAt()
	require.Zero(t, k.wakeKeys())
	require.Equal(t, 2, k.count("claimed_until > now()"))
}

func TestTheRateOfAKeySpacesItsCallsAndSaysWhenTheNextIs(t *testing.T) {
	t.Parallel()
	k := newKeys(t, 0, 0.01) // the next call is far off, however slow the machine
	slow := k.addDue("slow", 4)
	require.Equal(t, 3, k.takeSlots(slow, false), "one call may begin")
	require.Equal(t, 0, k.takeSlots(slow[:1], true))
	require.Len(t, k.claim(uuid.NewString(), slow[:1]), 1)
	require.Zero(t, k.wakeKeys())
	next, err := db.New().NextDispatch(t.Context(), k.pool, db.NextDispatchParams{Kind: "thing", Looked: time.Minute})
	require.NoError(t, err)
	require.Greater(t, next.KeysWait, time.Duration(0))
	require.LessOrEqual(t, next.KeysWait, 100*time.Second)
	k.exec("UPDATE delta_key SET wake_at = now(), next_call_at = now()")
	require.EqualValues(t, 1, k.wakeKeys())
	k.wakeAt()
	require.Zero(t, k.wakeKeys(), "the call is given")

	// A rate of 50 lets 5 calls begin together, and those that are early by a quarter of a second at most wait for theirs.
	k.setLimits(0, 50)
	fast := k.addDue("fast", 20)
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

// A dispatcher that looked at keys of a paused kind every few seconds would find the end of the pause late.
func TestKeysWaitForTheEndOfAPauseOrSnooze(t *testing.T) {
	t.Parallel()
	k := newKeys(t, 1, 0)
	busy := k.addDue("busy", 3)
	require.Equal(t, 2, k.takeSlots(busy, false))
	keysWait := func(kind string) time.Duration {
		next, err := db.New().NextDispatch(t.Context(), k.pool, db.NextDispatchParams{Kind: kind, Looked: time.Minute})
		require.NoError(t, err)
		return next.KeysWait
	}
	k.wakeAt()
	k.exec("UPDATE delta_controller SET paused = true WHERE name = 'thing'")
	require.Zero(t, k.wakeKeys())
	require.Equal(t, time.Hour, keysWait("thing"))
	k.exec("UPDATE delta_controller SET paused = false, snoozed_until = now() + interval '30 minutes' WHERE name = 'thing'")
	require.Zero(t, k.wakeKeys())
	require.Greater(t, keysWait("thing"), 20*time.Minute)
	k.exec("UPDATE delta_controller SET snoozed_until = now() - interval '1 minute' WHERE name = 'thing'")
	require.LessOrEqual(t, keysWait("thing"), time.Duration(0))
	k.exec("INSERT INTO delta_controller (name, inform_interval, snoozed_until) VALUES ('quiet', '0', now() - interval '1 minute')")
	require.Equal(t, time.Hour, keysWait("quiet"), "no key waits")
}

func TestLimitsThatChangeHoldForWhatWaits(t *testing.T) {
	t.Parallel()
	k := newKeys(t, 1, 0)
	busy := k.addDue("busy", 700)
	require.Equal(t, 699, k.takeSlots(busy, false))
	k.setLimits(3, 0)
	require.EqualValues(t, 2, k.wakeKeys("busy"))
	k.setLimits(0, 0)
	require.EqualValues(t, 256, k.wakeKeys("busy"))
	for k.count(queued) > 0 {
		k.wakeAt()
		require.Positive(t, k.wakeKeys())
	}
	require.Zero(t, k.wakeKeys())
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
	busy := k.addDue("busy", 5)
	require.Equal(t, 4, k.takeSlots(busy, false))
	claim := uuid.NewString()
	rows := k.claim(claim, busy)
	require.Len(t, rows, 1)
	k.exec("UPDATE delta_resource SET paused = TRUE WHERE id = $1", busy[1])
	k.exec("UPDATE delta_resource SET namespace = 'asleep' WHERE id = $1", busy[2])
	k.exec("INSERT INTO delta_namespace (name, snoozed_until) VALUES ('asleep', now() + interval '1 hour')")
	k.exec("UPDATE delta_resource SET limit_key = 'other' WHERE id = $1", busy[0]) // its call keeps the slot that it began with
	require.Zero(t, k.wakeKeys("busy"))
	k.sync(claim, rows)
	k.exec("UPDATE delta_controller SET snoozed_until = now() + interval '1 hour'")
	require.Zero(t, k.wakeKeys("busy"))
	k.exec("UPDATE delta_controller SET snoozed_until = NULL, paused = TRUE")
	require.Zero(t, k.wakeKeys("busy"))
	k.exec("UPDATE delta_controller SET paused = FALSE")
	require.EqualValues(t, 1, k.wakeKeys("busy"))
	require.Equal(t, 1, k.count("id = $1 AND slot_key = 'busy'", busy[3]))
}

func TestEachOutcomeTakesTheSlotBackAtOnce(t *testing.T) {
	t.Parallel()
	k := newKeys(t, 1, 0)
	for _, state := range []deltatype.ResourceState{
		deltatype.ResourceStateSynced, deltatype.ResourceStateFailed, deltatype.ResourceStateDegraded, deltatype.ResourceStateDeleted,
		deltatype.ResourceStateScheduled, // snoozed, or given back
	} {
		ids := k.addDue("key "+string(state), 2)
		require.Equal(t, 1, k.takeSlots(ids, true))
		claim := uuid.NewString()
		rows := k.claim(claim, ids)
		require.Len(t, rows, 1)
		_, err := db.New().WriteOutcomes(t.Context(), k.pool, outcomeParams(claim, state, rows))
		require.NoError(t, err)
		require.Zero(t, k.count("slot_key = $1", "key "+string(state)), state)
		require.EqualValues(t, 1, k.wakeKeys("key "+string(state)))
	}
}

// Sets of three clients meet on a few keys, and some die with their claims. At no time are more claims of a key alive than it has slots.
func TestLivingClaimsOfAKeyAreNeverMoreThanItsSlots(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	const concurrency, rows = 3, 400
	k := newKeys(t, concurrency, 0)
	for i := range 5 {
		k.addDue(fmt.Sprint("key", i), rows/5)
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
				k.workRound(n, round, look)
			}
		})
	}
	for ctx.Err() == nil {
		look()
		time.Sleep(5 * time.Millisecond)
	}
	clients.Wait()
	require.Equal(t, concurrency, most)
	require.Zero(t, k.count("state <> 'synced'"))
	require.Zero(t, k.count("slot_key IS NOT NULL"))
}

// workRound does what a client does: it leases, takes slots, claims and writes. Now and then it dies with what it has. It looks while it has claims: a
// machine may be too busy for other checks beside it.
func (k keys) workRound(client, round int, look func()) {
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
		k.takeSlots(ids, false)
	}
	if client == 5 {
		// All slots of rows that are not claimed are taken back.
		k.exec(`UPDATE delta_resource SET slot_until = now() WHERE id IN (SELECT id FROM delta_resource WHERE slot_until IS NOT NULL FOR UPDATE SKIP LOCKED)`)
	}
	k.takeSlots(ids, true)
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
	k.wakeKeys(append(named, "")...)
}

// However many rows of a full key are due, each is moved out of the way once, and no lease reads it after that.
func TestRowsOfABusyKeyAreReadOnceAndNotByEachLease(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	const many = 100_000
	k := newKeys(t, 2, 0)
	k.exec("ALTER TABLE delta_resource SET (autovacuum_enabled = FALSE)")
	k.addDue("busy", many)
	other := k.addDue("other", 10)
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
	for k.wakeKeys() > 0 {
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
	ids := k.addDue("busy", 3)
	k.takeSlots(ids[:1], false) // the key's row is there already
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
