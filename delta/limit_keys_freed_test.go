package delta_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// informKeyed informs objects with a limit key.
func (h *harness) informKeyed(c *delta.Client, mode tenantMode, key string, names ...string) {
	h.t.Helper()
	var objects []delta.Object
	for _, name := range names {
		objects = append(objects, mode.object(tenant{Name: name, Key: key}))
	}
	_, err := c.InformMany(h.t.Context(), objects, nil)
	require.NoError(h.t, err)
}

// waitsForKey reports whether a resource waits for a slot of its limit key.
func (h *harness) waitsForKey(kind, id string) bool {
	return h.countRows("SELECT count(*) FROM delta_resource WHERE kind = $1 AND object_id = $2 AND queued_at IS NOT NULL AND dispatch_at IS NULL", kind, id) == 1
}

// hasSlot reports whether a resource has a slot of its limit key.
func (h *harness) hasSlot(kind, id string) bool {
	return h.countRows("SELECT count(*) FROM delta_resource WHERE kind = $1 AND object_id = $2 AND slot_key IS NOT NULL", kind, id) == 1
}

// The process that has written the outcome is killed before it wakes the next waiter for the slot. No notification says so: a check of the key finds
// it.
func TestAWaiterForAKeyIsWokenIfTheSlotHolderDies(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	mode := tenantModes()[0]
	c := h.client(h.config(mode.controller(func(context.Context, *deltatype.ResourceRow) error { return nil })))
	h.informKeyed(c, mode, "key", "completes0", "completes1", "waits0", "waits1")
	kill := h.startChild("keys", "started")
	completed := func() int {
		return h.countRows("SELECT count(*) FROM delta_resource WHERE object_id LIKE 'completes%' AND state = 'synced' AND slot_key IS NULL")
	}
	until(t, func() bool { return completed() > 0 })
	h.awaitEnd()
	kill()
	for _, name := range []string{"waits0", "waits1"} {
		require.True(t, h.waitsForKey(mode.kind, name), "no notification has woken it")
	}
	require.Equal(t, 1, h.countRows("SELECT count(*) FROM delta_key WHERE wake_at <= now() + interval '5 seconds'"), "the key is checked")
	require.NoError(t, c.Start(context.Background()))
	t.Cleanup(func() { _ = c.Stop(context.Background()) })
	for _, name := range []string{"waits0", "waits1", "completes0", "completes1"} {
		h.eventually(mode.kind, name, synced(1))
	}
	require.Equal(t, 1, h.row(mode.kind, "waits0").Attempt)
}

// However a call ends, the next waiter for its key continues.
func TestEachOutcomeFreesTheSlotOfItsKey(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	for _, mode := range tenantModes() {
		t.Run(mode.kind, func(t *testing.T) {
			mode.skipIfRare(t)
			t.Parallel()
			h := newHarness(t)
			meter := newKeyMeter()
			var tried sync.Map
			c := h.start(h.config(mode.controller(func(ctx context.Context, r *deltatype.ResourceRow) error {
				defer meter.enter(r.LimitKey)()
				meter.awaitMost(ctx, r.LimitKey, keySlots)
				_, again := tried.LoadOrStore(r.ObjectID, true)
				switch name, _, _ := strings.Cut(r.ObjectID, "-"); {
				case name == "snoozed":
					return delta.ResourceSnooze(time.Hour)
				case name == "hopeless":
					return delta.ResourceDegrade(errors.New("no"))
				case name == "gone":
					return delta.ResourceDelete(errors.New("410"))
				case name == "failed" && !again:
					return errors.New("503")
				case name == "panics" && !again && mode.kind != "many_tenant": // whose calls run in their own goroutines
					panic("nil map")
				}
				return nil
			})))
			states := map[string]deltatype.ResourceState{
				"snoozed": deltatype.ResourceStateScheduled, "hopeless": deltatype.ResourceStateDegraded, "gone": deltatype.ResourceStateDeleted,
				"failed": deltatype.ResourceStateSynced, "panics": deltatype.ResourceStateSynced, "fine": deltatype.ResourceStateSynced,
			}
			var all []string
			for name := range states {
				for i := range 4 {
					all = append(all, fmt.Sprint(name, "-", i))
				}
			}
			h.informKeyed(c, mode, "key", all...)
			for _, name := range all {
				word, _, _ := strings.Cut(name, "-")
				h.eventually(mode.kind, name, func(r *deltatype.ResourceRow) bool {
					return r.State == states[word] && r.Attempt > 0 || r.State == states[word] && word == "snoozed" && r.Snoozes > 0
				})
			}
			until(t, func() bool { return h.countRows("SELECT count(*) FROM delta_resource WHERE slot_key IS NOT NULL") == 0 })
			require.Equal(t, keySlots, meter.most["key"])
		})
	}
}

// CompleteTx keeps the slot until its transaction has committed, and frees it then. A rolled back transaction frees nothing.
func TestCompleteTxFreesTheSlotOfAKeyWhenItCommits(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	mode := tenantModes()[0]
	written, goOn := make(chan string, keySlots), make(chan struct{})
	meter := newKeyMeter()
	c := h.client(h.config(with(&controller[singleTenant]{work: func(ctx context.Context, r *delta.Resource[singleTenant]) error {
		defer meter.enter("key")()
		tx, err := h.Pool.Begin(ctx)
		if err != nil {
			return err
		}
		defer tx.Rollback(context.Background()) //nolint:errcheck // committed, or to be rolled back
		if err := r.CompleteTx(ctx, tx); err != nil {
			return err
		}
		if strings.HasPrefix(r.ObjectID, "first") {
			written <- r.ObjectID
			<-goOn
		}
		return tx.Commit(ctx)
	}})))
	h.informKeyed(c, mode, "key", "first0", "first1", "then0", "then1", "then2")
	require.NoError(t, c.Start(context.Background()))
	t.Cleanup(func() { _ = c.Stop(context.Background()) })
	for range keySlots {
		require.True(t, h.hasSlot(mode.kind, <-written), "while the transaction may be rolled back")
	}
	for i := range 3 {
		require.True(t, h.waitsForKey(mode.kind, fmt.Sprint("then", i)))
	}
	close(goOn)
	for _, name := range []string{"first0", "first1", "then0", "then1", "then2"} {
		h.eventually(mode.kind, name, synced(1))
		require.False(t, h.hasSlot(mode.kind, name))
	}
	require.LessOrEqual(t, meter.most["key"], keySlots)
}

// Calls of Finalize need slots too.
func TestFinalizeHasASlotOfItsKey(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	modes := tenantModes()
	mode := modes[len(modes)-1] // the one with a Finalizer
	meter := newKeyMeter()
	var finalizes sync.Map
	c := h.start(h.config(mode.controller(func(ctx context.Context, r *deltatype.ResourceRow) error {
		defer meter.enter(string(r.State) + r.LimitKey)()
		if r.State != deltatype.ResourceStateDeleted {
			return nil
		}
		meter.awaitMost(ctx, string(r.State)+r.LimitKey, keySlots)
		if _, again := finalizes.LoadOrStore(r.ObjectID, true); !again {
			return errors.New("503")
		}
		return nil
	})))
	all := names("m", 8)
	h.informKeyed(c, mode, "key", all...)
	for _, name := range all {
		h.eventually(mode.kind, name, synced(1))
	}
	_, err := c.DeleteAll(t.Context(), delta.Filter{Kinds: []string{mode.kind}})
	require.NoError(t, err)
	until(t, func() bool { return h.countRows("SELECT count(*) FROM delta_resource WHERE finalized") == len(all) })
	require.Equal(t, keySlots, meter.most["deletedkey"])
	require.Zero(t, h.countRows("SELECT count(*) FROM delta_resource WHERE slot_key IS NOT NULL OR queued_at IS NOT NULL"))
}

// quietTenant has a key that is not in its JSON: a change of the key alone calls no Work.
type quietTenant struct {
	Name string
	Key  string `json:"-"`
}

func (o quietTenant) ID() string                   { return o.Name }
func (o quietTenant) Kind() string                 { return "quiet_tenant" }
func (o quietTenant) LimitKey() string             { return o.Key }
func (quietTenant) Settings() delta.ObjectSettings { return keySettings(1) }

func TestCommandsToAResourceThatWaitsForItsKey(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	open := make(chan struct{})
	const kind = "quiet_tenant"
	c := h.start(withLongClaims(h.config(with(&controller[quietTenant]{work: func(ctx context.Context, r *delta.Resource[quietTenant]) error {
		if strings.HasPrefix(r.ObjectID, "holds") {
			select {
			case <-open:
			case <-ctx.Done():
			}
		}
		return ctx.Err()
	}})), kind))
	inform := func(key string, names ...string) {
		t.Helper()
		for _, name := range names {
			_, err := c.Inform(t.Context(), quietTenant{name, key}, nil)
			require.NoError(t, err)
		}
	}
	inform("busy", "holds0", "holds1")
	for _, name := range []string{"holds0", "holds1"} {
		h.eventually(kind, name, inState(deltatype.ResourceStatePending))
	}
	waiting := []string{"changes", "clears", "deleted", "paused", "touched", "waits"}
	inform("busy", waiting...)
	for _, name := range waiting {
		until(t, func() bool { return h.waitsForKey(kind, name) })
	}
	queued := func() int64 {
		kinds, err := c.Kinds(t.Context())
		require.NoError(t, err)
		return kinds[0].Queued
	}
	require.EqualValues(t, len(waiting), queued())

	// With another key, or none, it waits for that one, where a slot is free.
	inform("other", "changes")
	inform("", "clears")
	for _, name := range []string{"changes", "clears"} {
		require.EqualValues(t, 1, h.eventually(kind, name, synced(1)).Generation, "the same sync")
	}
	_, err := c.Delete(t.Context(), kind, "deleted")
	require.NoError(t, err)
	require.EqualValues(t, 3, queued(), "a deleted resource does not wait")
	_, err = c.Pause(t.Context(), kind, "paused")
	require.NoError(t, err)
	require.EqualValues(t, 2, queued())
	_, err = c.Touch(t.Context(), kind, "touched")
	require.NoError(t, err)
	until(t, func() bool { return h.waitsForKey(kind, "touched") })

	// A resource that is paused during its call keeps its slot until the call ends, like its claim.
	_, err = c.Pause(t.Context(), kind, "holds0")
	require.NoError(t, err)
	require.True(t, h.hasSlot(kind, "holds0"))
	close(open)
	for _, name := range []string{"holds0", "holds1", "waits", "touched"} {
		h.eventually(kind, name, synced(1))
	}
	until(t, func() bool { return h.countRows("SELECT count(*) FROM delta_resource WHERE slot_key IS NOT NULL") == 0 })
	require.Equal(t, deltatype.ResourceStateScheduled, h.row(kind, "paused").State)
	_, err = c.Resume(t.Context(), kind, "paused")
	require.NoError(t, err)
	h.eventually(kind, "paused", synced(1))
	require.Zero(t, queued())
	require.Zero(t, h.countRows("SELECT count(*) FROM delta_resource WHERE queued_at IS NOT NULL"))
}
