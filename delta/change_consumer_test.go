package delta_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
)

// consumed collects the entries that consumers have handled, such as "a1" for the first entry of a.
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

// awaitCount waits until n entries were handled, and returns them.
func (c *consumed) awaitCount(t *testing.T, n int) []string {
	t.Helper()
	until(t, func() bool { return len(c.get()) >= n })
	return c.get()
}

// startConsumer runs a consumer until stop is called, or the end of the test.
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
	require.Equal(t, []string{"a1", "b1", "a2", "c1"}, got.awaitCount(t, 4), "after an error or a panic, the consumer gets the same entries again")
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
	require.Equal(t, []string{"d1"}, second.awaitCount(t, 1), "the second continues where the first ended")

	// A consumer whose claim was taken over handles no more entries, and waits.
	var third consumed
	_, err := h.Pool.Exec(t.Context(), "UPDATE delta_change_consumer SET claim = gen_random_uuid(), claimed_until = clock_timestamp() + interval '2 seconds'")
	require.NoError(t, err)
	h.startConsumer(h.client(h.config()), handle(&third))
	h.appendChanges("e")
	until(t, func() bool { return len(second.get())+len(third.get()) > 1 })
}

// Entries that a process handles after another one has taken over do not count as handled.
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

// A batch that is saved in the transaction of its effects is handled once, whatever Handle returns, and again if the transaction was not committed.
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
	// There are three batches, or more if a transaction of another test delayed the last entries.
	until(t, func() bool { return commits.Load() >= 3 && calls.Load() == commits.Load()+1 }, "one batch was repeated, because it was not committed")
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

	// The group grows, and continues from the saved position.
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
			require.Contains(t, []string{"[]", fmt.Sprintf("[%s2 %s3]", id, id)}, fmt.Sprint(of), "a member has all entries of a resource in order, or none")
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
