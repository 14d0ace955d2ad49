package delta_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
)

// appendChanges appends entries of accounts to the log, as outcomes do: the first of each is its generation 1, and so on.
func (h *harness) appendChanges(ids ...string) {
	h.t.Helper()
	for _, id := range ids {
		_, err := h.Pool.Exec(context.Background(), `SELECT delta_append_change('updated', delta_order_xid(NULL), 1, 'account', $1, 'default',
			(SELECT count(*) + 1 FROM delta_change WHERE object_id = $1), 1, NULL, '{}', NULL, NULL)`, id)
		require.NoError(h.t, err)
	}
}

// consumed gathers what consumers have handled, such as "a1" for the first entry of a.
type consumed struct {
	mu  sync.Mutex
	all []string
}

func (c *consumed) add(batch *delta.ChangeBatch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, change := range batch.Changes {
		c.all = append(c.all, fmt.Sprint(change.ObjectID, change.Generation))
	}
}

func (c *consumed) get() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.all)
}

// awaitCount waits until so many entries were handled, and returns them.
func (c *consumed) awaitCount(t *testing.T, n int) []string {
	t.Helper()
	until(t, func() bool { return len(c.get()) >= n })
	return c.get()
}

// startConsumer runs a consumer until the function is called, or the end of the test.
func (h *harness) startConsumer(c *delta.Client, consumer delta.ChangeConsumer) (stop func() error) {
	h.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.ConsumeChanges(ctx, consumer) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	h.t.Cleanup(func() { _ = stop() })
	return stop
}

func (h *harness) readPosition(name string) delta.ChangePosition {
	h.t.Helper()
	status, err := h.client(h.config()).ChangeLog(context.Background())
	require.NoError(h.t, err)
	for _, one := range status.Consumers {
		if one.Name == name {
			return one.Position
		}
	}
	return "none"
}

func TestChangesYieldsOutcomes(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	config := h.config(with(&controller[account]{work: func(ctx context.Context, r *delta.Resource[account]) error {
		if r.Object.Plan != "tx" {
			return nil
		}
		return pgx.BeginFunc(ctx, h.Pool, func(tx pgx.Tx) error { return r.CompleteTx(ctx, tx) })
	}}), with(&controller[serial]{}))
	config.Kinds = map[string]delta.ObjectSettings{"account": {Log: true}}
	c := h.start(config)
	inform := func(object delta.Object, is int64) {
		t.Helper()
		_, err := c.Inform(t.Context(), object, nil)
		require.NoError(t, err)
		h.eventually(object.Kind(), object.ID(), synced(is))
	}
	inform(account{"a", "free"}, 1)
	inform(serial{account{"a", "free"}}, 1) // its kind has no log
	inform(account{"a", "tx"}, 2)
	_, err := c.Delete(t.Context(), "account", "a")
	require.NoError(t, err)

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var read []string
	var positions []delta.ChangePosition
	for change, err := range c.Changes(ctx, "") {
		require.NoError(t, err)
		require.Equal(t, "account", change.Kind)
		read = append(read, fmt.Sprintf("%s %d %s -> %s", change.Type, change.Generation, change.Before, change.After))
		if positions = append(positions, change.Position); len(read) == 3 {
			break
		}
	}
	free, tx := `{"name": "a", "plan": "free"}`, `{"name": "a", "plan": "tx"}`
	require.Equal(t, []string{"created 1  -> " + free, "updated 2 " + free + " -> " + tx, "deleted 3 " + tx + " -> "}, read)

	for change, err := range c.Changes(ctx, positions[1], "account") {
		require.NoError(t, err)
		require.Equal(t, positions[2], change.Position, "it goes on behind the position")
		break
	}
	latest, err := c.LatestChanges(t.Context(), 2)
	require.NoError(t, err)
	require.Equal(t, positions[2], latest[0].Position)
	require.Equal(t, positions[1], latest[1].Position)
	require.Len(t, latest, 2)
	require.JSONEq(t, free, string(latest[1].Before))
	for _, limit := range []int{-1, 10_001} {
		_, err = c.LatestChanges(t.Context(), limit)
		require.ErrorAs(t, err, new(*delta.InputError))
	}
	history, err := c.ResourceChanges(t.Context(), "account", "a", 0, 2)
	require.NoError(t, err)
	require.Len(t, history, 2)
	require.Equal(t, positions[2], history[0].Position)
	history, err = c.ResourceChanges(t.Context(), "account", "a", history[1].ID, 0)
	require.NoError(t, err)
	require.Len(t, history, 1)
	require.Equal(t, delta.ChangeCreated, history[0].Type)
}

func TestChangesFromTheEndYieldsNewEntries(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.client(h.config())
	h.appendChanges("a")
	for _, err := range c.Changes(t.Context(), "") { // it waits for transactions of other tests on this server
		require.NoError(t, err)
		break
	}
	end, err := c.ChangesEnd(t.Context())
	require.NoError(t, err)
	h.appendChanges("b")
	for change, err := range c.Changes(t.Context(), end) {
		require.NoError(t, err)
		require.Equal(t, "b", change.ObjectID)
		break
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for change, err := range c.Changes(ctx, end) {
		require.Fail(t, "it ends with its context, in silence", "%v, %v", change, err)
	}
}

func TestInvalidPositionsAndConsumersAreRefused(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.client(h.config())
	for _, position := range []delta.ChangePosition{"x", "1.2", "0.1.1", "1.-1.1", "1.1.-1", "1.1.1.1"} {
		for _, err := range c.Changes(t.Context(), position) {
			require.ErrorContains(t, err, `position "`+string(position)+`": must be the Position of a Change`)
		}
	}
	for _, err := range c.Changes(t.Context(), "", "a b") {
		require.ErrorContains(t, err, `kinds "a b"`)
	}
	handle := func(context.Context, *delta.ChangeBatch) error { return nil }
	for want, consumer := range map[string]delta.ChangeConsumer{
		`Name "": must not be empty`:                 {Handle: handle},
		"Handle <nil>: must be a function":           {Name: "a"},
		"Members 1001: must be between 1 and 1000":   {Name: "a", Handle: handle, Members: 1001},
		"Member 2: must be between 0 and 1":          {Name: "a", Handle: handle, Members: 2, Member: 2},
		"BatchSize -1: must be between 1 and 10000":  {Name: "a", Handle: handle, BatchSize: -1},
		`From "x": must be the Position of a Change`: {Name: "a", Handle: handle, From: "x"},
		`Kinds "": must not be empty`:                {Name: "a", Handle: handle, Kinds: []string{""}},
	} {
		require.ErrorContains(t, c.ConsumeChanges(t.Context(), consumer), want)
	}
	_, err := delta.NewClient(h.Pool, &delta.Config{MaxChangeRetentionPeriod: time.Hour})
	require.ErrorContains(t, err, "Config.MaxChangeRetentionPeriod 1h0m0s: must be at least ChangeRetentionPeriod, which is 168h0m0s")
	require.ErrorIs(t, c.ForgetChangeConsumer(t.Context(), "nobody"), delta.ErrNotFound)
}

func TestAConsumerContinuesWhereItStopped(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.client(h.config())
	h.appendChanges("a", "b", "a", "c")
	var got consumed
	calls := 0
	consumer := delta.ChangeConsumer{Name: "sink", BatchSize: 3, Handle: func(_ context.Context, batch *delta.ChangeBatch) error {
		switch calls++; calls {
		case 1:
			return errors.New("not yet")
		case 2:
			panic("nor now")
		}
		got.add(batch)
		return nil
	}}
	stop := h.startConsumer(c, consumer)
	require.Equal(t, []string{"a1", "b1", "a2", "c1"}, got.awaitCount(t, 4), "after an error, and a panic, it gets the same again")
	require.NoError(t, stop())
	h.appendChanges("d")
	stop = h.startConsumer(c, consumer)
	require.Equal(t, []string{"a1", "b1", "a2", "c1", "d1"}, got.awaitCount(t, 5))
	require.NoError(t, stop())
	require.NoError(t, c.ForgetChangeConsumer(t.Context(), "sink"))
	require.EqualValues(t, "none", h.readPosition("sink"))
}

func TestAConsumerRunsInOneProcess(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.appendChanges("a")
	var first, second consumed
	handle := func(to *consumed) delta.ChangeConsumer {
		return delta.ChangeConsumer{Name: "sink", Handle: func(_ context.Context, batch *delta.ChangeBatch) error {
			to.add(batch)
			return nil
		}}
	}
	stop := h.startConsumer(h.client(h.config()), handle(&first))
	first.awaitCount(t, 1)
	h.startConsumer(h.client(h.config()), handle(&second))
	h.appendChanges("b", "c")
	require.Equal(t, []string{"a1", "b1", "c1"}, first.awaitCount(t, 3))
	require.ErrorIs(t, h.client(h.config()).ForgetChangeConsumer(t.Context(), "sink"), delta.ErrNotFound, "it runs")
	require.NoError(t, stop())
	h.appendChanges("d")
	require.Equal(t, []string{"d1"}, second.awaitCount(t, 1), "the other goes on where the first has ended")

	// One whose claim was taken over handles nothing more, and waits.
	var third consumed
	_, err := h.Pool.Exec(t.Context(), "UPDATE delta_change_consumer SET claim = gen_random_uuid(), claimed_until = clock_timestamp() + interval '2 seconds'")
	require.NoError(t, err)
	h.startConsumer(h.client(h.config()), handle(&third))
	h.appendChanges("e")
	until(t, func() bool { return len(second.get())+len(third.get()) > 1 })
}

// What a process handles that another has taken over from counts as not handled.
func TestAConsumerThatWasTakenOverSavesNothing(t *testing.T) {
	t.Parallel()
	for name, inTx := range map[string]bool{"by itself": false, "in a transaction": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			h.appendChanges("a")
			var got consumed
			superseded := make(chan error, 1)
			h.startConsumer(h.client(h.config()), delta.ChangeConsumer{Name: "sink", Handle: func(ctx context.Context, batch *delta.ChangeBatch) error {
				defer got.add(batch)
				if len(got.get()) > 0 {
					return nil
				}
				_, err := h.Pool.Exec(ctx, "UPDATE delta_change_consumer SET claim = gen_random_uuid(), claimed_until = clock_timestamp() + interval '1 second'")
				if err != nil || !inTx {
					return err
				}
				tx, err := h.Pool.Begin(ctx)
				if err != nil {
					return err
				}
				superseded <- batch.SaveTx(ctx, tx)
				return tx.Commit(ctx)
			}})
			require.Equal(t, []string{"a1", "a1"}, got.awaitCount(t, 2))
			if inTx {
				require.ErrorIs(t, <-superseded, delta.ErrConsumerSuperseded)
			}
		})
	}
}

// A batch that is saved in the transaction of its effects is handled once, whatever Handle returns, and again if it was not committed.
func TestABatchIsSavedWithItsEffects(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	_, err := h.Pool.Exec(t.Context(), "CREATE TABLE effect (id bigint PRIMARY KEY)")
	require.NoError(t, err)
	h.appendChanges(names("a", 6)...)
	var calls, commits atomic.Int64
	commit := func(ctx context.Context, tx pgx.Tx) error {
		defer commits.Add(1)
		return tx.Commit(ctx)
	}
	h.startConsumer(h.client(h.config()), delta.ChangeConsumer{Name: "sink", BatchSize: 2, Handle: func(ctx context.Context, batch *delta.ChangeBatch) error {
		tx, err := h.Pool.Begin(ctx)
		if err != nil {
			return err
		}
		defer tx.Rollback(ctx) //nolint:errcheck // after a commit it does nothing
		for _, change := range batch.Changes {
			if _, err := tx.Exec(ctx, "INSERT INTO effect VALUES ($1)", change.ID); err != nil {
				return err
			}
		}
		if err := batch.SaveTx(ctx, tx); err != nil {
			return err
		}
		switch calls.Add(1) {
		case 1:
			return nil // it forgets to commit
		case 3:
			return errors.Join(commit(ctx, tx), errors.New("too late"))
		}
		return commit(ctx, tx)
	}})
	count := func() (n int) {
		require.NoError(t, h.Pool.QueryRow(context.Background(), "SELECT count(*) FROM effect").Scan(&n))
		return n
	}
	until(t, func() bool { return count() == 6 })
	// There are three batches, or more where a transaction of another test kept the reader from the last entries.
	until(t, func() bool { return commits.Load() >= 3 && calls.Load() == commits.Load()+1 }, "one was repeated, because it was not committed")
}

func TestMembersOfAGroupShareTheResources(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	ids := names("a", 12)
	h.appendChanges(ids...)
	run := func(members, member int, to *consumed) func() error {
		return h.startConsumer(h.client(h.config()), delta.ChangeConsumer{
			Name: "sink", Members: members, Member: member, BatchSize: 5,
			Handle: func(_ context.Context, batch *delta.ChangeBatch) error {
				to.add(batch)
				return nil
			},
		})
	}
	var alone consumed
	stop := run(1, 0, &alone)
	alone.awaitCount(t, 12)
	require.NoError(t, stop())

	// The group grows: it goes on from there.
	h.appendChanges(ids...)
	h.appendChanges(ids...)
	both := []*consumed{{}, {}}
	for i, to := range both {
		run(2, i, to)
	}
	until(t, func() bool { return len(both[0].get())+len(both[1].get()) >= 24 })
	var all []string
	for i, to := range both {
		got := to.get()
		require.NotEmpty(t, got, "member %d has a share", i)
		for _, id := range ids {
			of := slices.DeleteFunc(slices.Clone(got), func(s string) bool { return s != id+"2" && s != id+"3" })
			require.Contains(t, []string{"[]", fmt.Sprintf("[%s2 %s3]", id, id)}, fmt.Sprint(of), "all of a resource, in their order, or none")
		}
		all = append(all, got...)
	}
	require.Len(t, all, 24)
	status, err := h.client(h.config()).ChangeLog(t.Context())
	require.NoError(t, err)
	require.Len(t, status.Consumers, 2, "the position of the group of one is gone")
}

func TestAConsumerThatCannotReadOnSaysSo(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]struct {
		sql       string
		isRewound bool
	}{
		"removed": {`WITH gone AS (DELETE FROM delta_change WHERE object_id = 'b' RETURNING order_xid, id)
			SELECT delta_note_removed_changes(order_xid, id) FROM gone`, false},
		"restored": {"UPDATE delta_installation SET change_epoch = 2", true},
		"ahead":    {"UPDATE delta_change_consumer SET order_xid = '9000000000000000000'", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			c := h.client(h.config())
			h.appendChanges("a")
			var got consumed
			consumer := delta.ChangeConsumer{Name: "sink", Handle: func(_ context.Context, batch *delta.ChangeBatch) error {
				got.add(batch)
				return nil
			}}
			stop := h.startConsumer(c, consumer)
			got.awaitCount(t, 1)
			require.NoError(t, stop())
			h.appendChanges("b", "c")
			_, err := h.Pool.Exec(t.Context(), damage.sql)
			require.NoError(t, err)
			lost := new(delta.ChangePositionError)
			require.ErrorAs(t, c.ConsumeChanges(t.Context(), consumer), &lost)
			require.Equal(t, damage.isRewound, lost.IsRewound)
			require.NotEmpty(t, lost.Position)

			consumer.Restart = true
			h.startConsumer(c, consumer)
			if damage.isRewound {
				require.Equal(t, []string{"a1", "a1", "b1", "c1"}, got.awaitCount(t, 4))
				return
			}
			require.Equal(t, []string{"a1", "a1", "c1"}, got.awaitCount(t, 3))
		})
	}
}

// The log of another server has transactions that have not begun here: it is taken over by the first client that starts, and not read before.
func TestARestoredLogIsTakenOver(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.client(h.config())
	h.appendChanges("a", "b", "a")
	_, err := h.Pool.Exec(t.Context(), "UPDATE delta_change SET order_xid = (8000000000000 - id)::text::xid8 WHERE object_id = 'b' OR generation = 2")
	require.NoError(t, err)
	read := func(from delta.ChangePosition) (read []string, last delta.ChangePosition, failed error) {
		t.Helper()
		for change, err := range c.Changes(t.Context(), from) {
			if err != nil {
				return read, last, err
			}
			read = append(read, fmt.Sprint(change.ObjectID, change.Generation))
			if last = change.Position; len(read) == 3 {
				break
			}
		}
		return read, last, nil
	}
	_, _, err = read("")
	lost := new(delta.ChangePositionError)
	require.ErrorAs(t, err, &lost)
	require.True(t, lost.IsRewound)
	history, err := c.ResourceChanges(t.Context(), "account", "a", 0, 0)
	require.NoError(t, err)

	config := h.config(with(&controller[account]{}))
	config.Kinds = map[string]delta.ObjectSettings{"account": {Log: true}}
	h.start(config)
	_, _, err = read(history[0].Position)
	require.ErrorAs(t, err, &lost, "a position of before says nothing of what is there")
	all, position, err := read("")
	require.NoError(t, err)
	require.Equal(t, []string{"a1", "b1", "a2"}, all)
	require.True(t, strings.HasPrefix(string(position), "2."))
}

func TestATransactionThatStaysOpenHoldsReadersAndIsNamed(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.client(h.config())
	tx, err := h.Pool.Begin(t.Context())
	require.NoError(t, err)
	defer tx.Rollback(context.Background()) //nolint:errcheck // it is the end of the test
	_, err = tx.Exec(t.Context(), "SELECT pg_current_xact_id()")
	require.NoError(t, err)
	h.appendChanges("a", "b")
	status, err := c.ChangeLog(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 2, status.Held)
	require.Positive(t, status.Lag)
	require.NotNil(t, status.HeldBy, "others of this server may be older")
	require.NotZero(t, status.HeldBy.PID)
	require.Contains(t, status.HeldBy.String(), fmt.Sprint(status.HeldBy.PID))
	require.NoError(t, tx.Commit(t.Context()))
	until(t, func() bool {
		status, err = c.ChangeLog(t.Context())
		require.NoError(t, err)
		return status.Held == 0
	})
}

// What the guide shows counts each change once.
func TestExamplesOfChangesCountEachOnce(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	_, err := h.Pool.Exec(t.Context(), "CREATE TABLE sums AS SELECT 0::bigint AS cents")
	require.NoError(t, err)
	c := h.start(h.config(with(&controller[Bill]{})))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- sumBills(ctx, c, h.Pool) }()
	for n, bill := range []Bill{{"a", 100}, {"b", 20}, {"a", 150}, {"b", 3}} {
		_, err := c.Inform(t.Context(), bill, nil)
		require.NoError(t, err)
		h.eventually("bill", bill.Number, synced(int64(n/2+1)))
	}
	_, err = c.Delete(t.Context(), "bill", "b")
	require.NoError(t, err)
	enough := errors.New("enough")
	var types []delta.ChangeType
	position, err := followBills(t.Context(), c, "", func(change *delta.Change) error {
		if types = append(types, change.Type); len(types) == 5 {
			return enough
		}
		return nil
	})
	require.ErrorIs(t, err, enough)
	require.ElementsMatch(t, []delta.ChangeType{"created", "created", "updated", "updated", "deleted"}, types)
	require.NotEmpty(t, position)
	until(t, func() bool {
		var cents int64
		require.NoError(t, h.Pool.QueryRow(t.Context(), "SELECT cents FROM sums").Scan(&cents))
		return cents == 150
	})
	cancel()
	require.NoError(t, <-ended)
	var cents int64
	require.NoError(t, h.Pool.QueryRow(t.Context(), "SELECT cents FROM sums").Scan(&cents))
	require.EqualValues(t, 150, cents)
}
