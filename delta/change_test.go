package delta_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
)

// appendChanges appends log entries of accounts, as outcomes do: the first entry of each is its generation 1, and so on.
func (h *harness) appendChanges(ids ...string) {
	h.t.Helper()
	for _, id := range ids {
		_, err := h.Pool.Exec(context.Background(), `SELECT delta_append_change('updated', delta_order_xid(NULL), 1, 'account', $1, 'default',
			(SELECT count(*) + 1 FROM delta_change WHERE object_id = $1), 1, NULL, '{}', NULL, NULL)`, id)
		require.NoError(h.t, err)
	}
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
		require.Equal(t, positions[2], change.Position, "entries after the position follow")
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
	for _, err := range c.Changes(t.Context(), "") { // blocked by transactions of other tests on this server
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
		require.Fail(t, "the iterator ends with its context, without an error", "%v, %v", change, err)
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

// The log of another server names transactions that have not begun here. The first client that starts takes it over, and nobody reads it before.
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
	require.ErrorAs(t, err, &lost, "a position from before the restore is useless")
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
	require.NotNil(t, status.HeldBy, "other transactions of this server may be older")
	require.NotZero(t, status.HeldBy.PID)
	require.Contains(t, status.HeldBy.String(), fmt.Sprint(status.HeldBy.PID))
	require.NoError(t, tx.Commit(t.Context()))
	until(t, func() bool {
		status, err = c.ChangeLog(t.Context())
		require.NoError(t, err)
		return status.Held == 0
	})
}

// The example in the guide counts each change once.
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
