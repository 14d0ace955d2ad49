package delta_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// A resource that was deleted in any way is finalized until that succeeds. Only then its row is removed, even by a client without a Finalizer.
func TestADeletedResourceIsFinalizedBeforeItsRowIsRemoved(t *testing.T) {
	soak.Long(t)
	inListedModes(t, func(t *testing.T, g listedMode) {
		const listed = 25 // more failures than become singles
		var mu sync.Mutex
		tries, causes := map[string]int{}, map[deltatype.Cause]int{}
		down := true
		work := func(_ context.Context, r job) error {
			if r.Object.Name == "gone" {
				return delta.ResourceDelete(errors.New("410"))
			}
			return nil
		}
		c := g.startFinalizing(briefRetentions, work, func(_ context.Context, r job) error {
			mu.Lock()
			defer mu.Unlock()
			tries[r.ObjectID]++
			if down {
				return errors.New("503")
			}
			causes[r.Cause]++
			return nil
		})
		events, cancel := c.SubscribeConfig(&delta.SubscribeConfig{
			ChanSize: 1000, Categories: []delta.EventCategory{delta.EventCategoryObjectDeleted, delta.EventCategoryObjectFinalized},
		})
		defer cancel()
		g.setUpstream(append(names("m", listed), "stays")...)
		g.runInformer(c)
		g.inform(c, nil, "gone", "command")
		g.awaitRow("command", synced(1))
		_, err := c.Delete(t.Context(), g.kind, "command")
		require.NoError(t, err)
		g.awaitRow("gone", inState(deltatype.ResourceStateDeleted))
		g.setUpstream("stays")
		require.Equal(t, listed, g.runInformer(c).Deleted)

		// While Finalize fails, no row is removed, even after its retention.
		until(t, func() bool {
			mu.Lock()
			defer mu.Unlock()
			all := 0
			for _, n := range tries {
				if n >= 2 {
					all++
				}
			}
			return all == listed+2
		})
		require.Equal(t, listed+2, g.countStates(g.kind)[deltatype.ResourceStateDeleted])
		mu.Lock()
		down = false
		mu.Unlock()
		// What was deleted explicitly is kept until a listing has left it out that began long enough after that.
		until(t, func() bool { g.runInformer(c); return g.countStates(g.kind)[deltatype.ResourceStateDeleted] == 0 })
		mu.Lock()
		defer mu.Unlock()
		require.Equal(t, map[deltatype.Cause]int{deltatype.CauseUnlisted: listed, deltatype.CauseWork: 1, deltatype.CauseCommand: 1}, causes, "each once")
		require.Zero(t, tries["stays"])
		sent := map[delta.EventCategory]int{}
		for range 2 * (listed + 2) {
			sent[nextEvent(t, events).EventCategory]++
		}
		require.Equal(t, map[delta.EventCategory]int{delta.EventCategoryObjectDeleted: listed + 2, delta.EventCategoryObjectFinalized: listed + 2}, sent)
	})
}

// A client without a Finalizer, such as an older one during a deploy, neither finalizes nor removes deleted resources.
func TestAClientWithoutAFinalizerLeavesDeletedResources(t *testing.T) {
	soak.Long(t)
	inListedModes(t, func(t *testing.T, g listedMode) {
		work := func(context.Context, job) error { return nil }
		finalize := make(chan string, 10)
		finalizes := func(_ context.Context, r job) error {
			finalize <- r.ObjectID
			return nil
		}
		require.NoError(t, g.startFinalizing(briefRetentions, work, finalizes).Stop(t.Context()))
		older := g.startListed(briefRetentions, work)
		require.True(t, g.logs.hasLine("has no Finalizer", "kind="+g.kind))
		g.inform(older, nil, "ann", "bob")
		g.awaitRow("bob", synced(1))
		g.awaitRow("ann", synced(1))
		n, err := older.DeleteAll(t.Context(), delta.Filter{Kinds: []string{g.kind}})
		require.NoError(t, err)
		require.Equal(t, 2, n)
		// Other resources are worked meanwhile, so the dispatcher has skipped the deleted ones.
		g.inform(older, nil, "eve")
		g.awaitRow("eve", synced(1))
		require.Equal(t, 2, g.countStates(g.kind)[deltatype.ResourceStateDeleted])
		require.NoError(t, older.Stop(t.Context()))

		newer := g.startFinalizing(briefRetentions, work, finalizes)
		g.setUpstream("eve")
		// What was deleted explicitly is kept until a listing has left it out that began long enough after that.
		until(t, func() bool { g.runInformer(newer); return g.countStates(g.kind)[deltatype.ResourceStateDeleted] == 0 })
		g.awaitRow("ann", isGone)
		g.awaitRow("bob", isGone)
		require.Len(t, finalize, 2, "each once")
	})
}

func TestTheIdempotencyKeyOfFinalizeIsAnotherOne(t *testing.T) {
	t.Parallel()
	row := deltatype.ResourceRow{ID: 1, ObjectKind: "account", ObjectID: "ann", Generation: 3, State: deltatype.ResourceStatePending}
	r := &delta.Resource[account]{ResourceRow: &row}
	work := r.IdempotencyKey()
	row.State = deltatype.ResourceStateDeleted
	require.NotEqual(t, work, r.IdempotencyKey())
}

// A long Finalize keeps its claim: a delete command, which ends the context of Work, does not end that of Finalize.
func TestALongFinalizeKeepsItsClaim(t *testing.T) {
	soak.Long(t)
	inListedModes(t, func(t *testing.T, g listedMode) {
		ended := make(chan error, 10)
		long := func(c *delta.Config) {
			withLongClaims(c, g.kind)
			c.ResourceWorkTimeout = 10 * patience
		}
		c := g.startFinalizing(long, func(context.Context, job) error { return nil }, func(ctx context.Context, _ job) error {
			seen := map[string]bool{}
			// Only a renewal writes the row of a claim. By the second one, the result of the first has been acted on.
			for began := time.Now(); len(seen) < 2 && ctx.Err() == nil; pause(began) {
				var renewed *string
				err := g.Pool.QueryRow(context.WithoutCancel(ctx), `SELECT max(c.claimed_until)::text FROM delta_claim c
					JOIN delta_resource r ON r.claim = c.id`).Scan(&renewed)
				if err == nil && renewed != nil {
					seen[*renewed] = true
				}
			}
			ended <- context.Cause(ctx)
			return nil
		})
		g.inform(c, nil, "ann")
		g.awaitRow("ann", synced(1))
		_, err := c.Delete(t.Context(), g.kind, "ann")
		require.NoError(t, err)
		require.NoError(t, receive(t, ended))
		g.awaitRow("ann", func(r *deltatype.ResourceRow) bool { return r != nil && *r.Finalized })
		require.Empty(t, ended, "once")
	})
}

// finalizingMany has a WorkBatch, and a Finalize for single resources.
type finalizingMany struct {
	finalizing[keptBatched]
	worked chan int
}

func (f finalizingMany) WorkBatch(_ context.Context, all []*delta.Resource[keptBatched]) []error {
	for _, r := range all {
		if r.State == deltatype.ResourceStateDeleted {
			return nil // not for Work
		}
	}
	f.worked <- len(all)
	return make([]error, len(all))
}

func TestABatchOfAKindWithWorkBatchFinalizesEachByItself(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	finalized := make(chan string, 100)
	config := h.config(func(cs *delta.Controllers) {
		delta.AddController(cs, finalizingMany{finalizing[keptBatched]{&controller[keptBatched]{}, func(_ context.Context, r *delta.Resource[keptBatched]) error {
			finalized <- r.ObjectID
			return nil
		}}, make(chan int, 100)})
	})
	c := h.start(config)
	object := func(name string) delta.Object { return keptBatched{account{Name: name}} }
	old, fresh := names("old", 5), names("new", 5)
	inform := func(names []string) {
		var objects []delta.Object
		for _, name := range names {
			objects = append(objects, object(name))
		}
		_, err := c.InformMany(t.Context(), objects, nil)
		require.NoError(t, err)
	}
	inform(old)
	for _, name := range old {
		h.eventually("kept-batched", name, synced(1))
	}
	require.NoError(t, c.PauseKind(t.Context(), "kept-batched")) // so that both are due together
	_, err := c.DeleteAll(t.Context(), delta.Filter{ObjectIDs: old})
	require.NoError(t, err)
	inform(fresh)
	require.NoError(t, c.ResumeKind(t.Context(), "kept-batched"))
	for _, name := range fresh {
		h.eventually("kept-batched", name, synced(1))
	}
	for _, name := range old {
		h.eventually("kept-batched", name, func(r *deltatype.ResourceRow) bool { return r.Finalized != nil && *r.Finalized })
	}
	require.Len(t, finalized, len(old))
}
