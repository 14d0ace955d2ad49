package delta_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/soak"
)

func (h *harness) openCursor(consumer delta.ChangeConsumer) *delta.ChangeCursor {
	h.t.Helper()
	cursor, err := h.client(h.config()).OpenChanges(h.t.Context(), consumer)
	require.NoError(h.t, err)
	h.t.Cleanup(cursor.Close)
	return cursor
}

// readEntries reads entries until it has n.
func (h *harness) readEntries(cursor *delta.ChangeCursor, n int) (names []string, positions []delta.ChangePosition) {
	h.t.Helper()
	for len(names) < n {
		changes, err := cursor.Next(h.t.Context())
		require.NoError(h.t, err)
		for _, c := range changes {
			names, positions = append(names, fmt.Sprint(c.ObjectID, c.Generation)), append(positions, c.Position)
		}
	}
	return names, positions
}

// moveConsumer changes the position in the row of a consumer.
func (h *harness) moveConsumer(name string, position delta.ChangePosition) {
	h.t.Helper()
	parts := strings.Split(string(position), ".")
	_, err := h.Pool.Exec(context.Background(), "UPDATE delta_change_consumer SET epoch = $2::text::integer, order_xid = $3::text::xid8, id = $4::text::bigint WHERE name = $1",
		name, parts[0], parts[1], parts[2])
	require.NoError(h.t, err)
}

func TestACursorReadsAheadAndContinuesAfterItsSavedPosition(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.appendChanges("a", "b", "a", "c")
	cursor := h.openCursor(delta.ChangeConsumer{Name: "sink", BatchSize: 2})
	names, positions := h.readEntries(cursor, 4)
	require.Equal(t, []string{"a1", "b1", "a2", "c1"}, names)
	require.Empty(t, h.readPosition("sink"), "nothing is saved without Save")
	require.NoError(t, cursor.Save(t.Context(), positions[1]))
	require.Equal(t, positions[1], h.readPosition("sink"))
	require.ErrorContains(t, cursor.Save(t.Context(), "x"), `position "x": must be`)
	cursor.Close()
	_, err := cursor.Next(t.Context())
	require.ErrorContains(t, err, "the cursor is closed")

	cursor = h.openCursor(delta.ChangeConsumer{Name: "sink"})
	names, positions = h.readEntries(cursor, 2)
	require.Equal(t, []string{"a2", "c1"}, names)
	require.NoError(t, cursor.Save(t.Context(), positions[1]))
	require.Equal(t, positions[1], h.readPosition("sink"))

	_, err = h.client(h.config()).OpenChanges(t.Context(), delta.ChangeConsumer{
		Name: "sink", Handle: func(context.Context, *delta.ChangeBatch) error { return nil },
	})
	require.ErrorContains(t, err, "must be nil")
}

// If the answer to a save is lost, the next save continues from the position in the row.
func TestACursorFindsOutWhetherItHasSaved(t *testing.T) {
	t.Parallel()
	for name, isCommitted := range map[string]bool{"committed": true, "not committed": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			h.appendChanges("a", "b")
			cursor := h.openCursor(delta.ChangeConsumer{Name: "sink"})
			_, positions := h.readEntries(cursor, 2)
			ended, cancel := context.WithCancel(t.Context())
			cancel()
			require.ErrorIs(t, cursor.Save(ended, positions[0]), context.Canceled)
			if isCommitted {
				h.moveConsumer("sink", positions[0])
			}
			require.NoError(t, cursor.Save(t.Context(), positions[1]))
			require.Equal(t, positions[1], h.readPosition("sink"))
		})
	}
}

func TestACursorIsOneProcessOnly(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.appendChanges("a", "b")
	first := h.openCursor(delta.ChangeConsumer{Name: "sink"})
	names, positions := h.readEntries(first, 2)
	require.Equal(t, []string{"a1", "b1"}, names)
	opened := make(chan *delta.ChangeCursor, 1)
	go func() {
		second, err := h.client(h.config()).OpenChanges(t.Context(), delta.ChangeConsumer{Name: "sink"})
		if err == nil {
			opened <- second
		}
	}()
	require.NoError(t, first.Save(t.Context(), positions[0]))
	require.Empty(t, opened)
	first.Close()
	second := <-opened
	t.Cleanup(second.Close)
	names, positions = h.readEntries(second, 1)
	require.Equal(t, []string{"b1"}, names)

	// A cursor that was taken over saves nothing, and returns an error.
	_, err := h.Pool.Exec(t.Context(), "UPDATE delta_change_consumer SET claim = gen_random_uuid(), claimed_until = clock_timestamp() + interval '1 second'")
	require.NoError(t, err)
	require.ErrorIs(t, second.Save(t.Context(), positions[0]), delta.ErrConsumerSuperseded)
	<-second.Done()
	_, err = second.Next(t.Context())
	require.ErrorIs(t, err, delta.ErrConsumerSuperseded)
	second.Close()
	names, _ = h.readEntries(h.openCursor(delta.ChangeConsumer{Name: "sink"}), 1)
	require.Equal(t, []string{"b1"}, names)
}

// Entries of other kinds do not hold back the removal of the log; unsaved entries of the consumer do.
func TestACursorSkipsEntriesOfOthers(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	h.appendChanges("a", "b")
	cursor := h.openCursor(delta.ChangeConsumer{Name: "sink", Kinds: []string{"bill"}})
	next := make(chan []*delta.Change, 1)
	read := func() {
		changes, _ := cursor.Next(t.Context())
		next <- changes
	}
	go read()
	other := h.openCursor(delta.ChangeConsumer{Name: "other"})
	_, positions := h.readEntries(other, 2)
	until(t, func() bool { return h.readPosition("sink") == positions[1] })
	_, err := h.Pool.Exec(t.Context(), `SELECT delta_append_change('updated', delta_order_xid(NULL), 1, 'bill', 'x', 'default', 1, 1, NULL, '{}', NULL, NULL)`)
	require.NoError(t, err)
	changes := <-next
	require.Len(t, changes, 1)
	go read()
	for range 8 { // longer than it takes between two saves
		h.appendChanges("c")
		time.Sleep(200 * time.Millisecond)
	}
	_, later := h.readEntries(other, 9)
	require.Equal(t, positions[1], h.readPosition("sink"))
	require.NoError(t, cursor.Save(t.Context(), changes[0].Position))
	until(t, func() bool { return h.readPosition("sink") == later[8] }, "the position is also after entries of others")
	cursor.Close()
	<-next
}
