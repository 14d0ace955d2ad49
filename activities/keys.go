package activities

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/chariot-giving/delta/db"
)

// KeyLimits reports whether the limit keys of objects limit a kind's calls of Work. The limits themselves are in
// Postgres, for all clients.
type KeyLimits struct {
	// Limited reports whether calls are limited in any way, Rated whether their rate is.
	Limited, Rated bool
}

// callStep is the span of time within which claims that wait for the rates of their limit keys are made together.
const callStep = 10 * time.Millisecond

// claimSet is a set of rows that may be claimed some time after the database answered. The time of the question does
// not count, because the database may have waited for the lock of a key first.
type claimSet struct {
	ids      []int64
	after    time.Duration
	answered time.Time
}

// takeSlots gives slots of their limit keys to rows that are about to be claimed. It returns the rows that may be
// claimed, in the order of their sets: at once, or when the rates of their keys allow it, at most a quarter of a second
// later. The other rows wait for a slot outside of batches and workflows, and a dispatcher wakes them when they have
// it.
func (e *execution) takeSlots(ctx context.Context, kind string, ids []int64) (sets []claimSet, err error) {
	if !e.Keys.Limited || len(ids) == 0 {
		return []claimSet{{ids: ids}}, nil
	}
	params := db.TakeSlotsParams{Kind: kind, Ids: ids, Begins: true, Lease: DispatchLease}
	var rows []db.TakeSlotsRow
	err = retryTransient(ctx, claimTries, func(ctx context.Context) (err error) {
		if rows, err = db.New().TakeSlots(ctx, e.Pool, params); err != nil {
			return e.markUnanswered(err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if e.Keys.Rated || len(rows) > 0 {
		e.dispatchSoon() // it reads when the next row of a key may be called
	}
	return claimSets(ids, rows, time.Now()), nil
}

// claimSets orders rows by when they may be claimed, and leaves out those that wait for a slot. An id without a row may
// be claimed at once.
func claimSets(ids []int64, rows []db.TakeSlotsRow, answered time.Time) []claimSet {
	late := make([]int64, len(rows))
	for i, row := range rows {
		late[i] = row.ID
	}
	sets := []claimSet{{ids: excludeIDs(ids, late)}}
	slices.SortFunc(rows, func(a, b db.TakeSlotsRow) int { return cmp.Compare(a.Wait, b.Wait) })
	for _, row := range rows {
		if row.Queued {
			continue
		}
		// Round up, so that no row is claimed before its time.
		after := (row.Wait + callStep - 1).Truncate(callStep)
		if last := &sets[len(sets)-1]; last.after == after {
			last.ids = append(last.ids, row.ID)
			continue
		}
		sets = append(sets, claimSet{[]int64{row.ID}, after, answered})
	}
	return sets
}

// awaitCall waits until rows may be claimed. It returns false if the worker stops first.
func (e *execution) awaitCall(one claimSet) bool {
	if one.after == 0 {
		return true
	}
	return sleep(e.base, time.Until(one.answered.Add(one.after)))
}

// excludeIDs returns the ids that are not among others.
func excludeIDs(ids, others []int64) []int64 {
	if len(others) == 0 {
		return ids
	}
	known := make(map[int64]struct{}, len(others))
	for _, id := range others {
		known[id] = struct{}{}
	}
	return slices.DeleteFunc(slices.Clone(ids), func(id int64) bool {
		_, ok := known[id]
		return ok
	})
}

// wakeKeys dispatches rows that wait for the slots of these rows. If it fails, a dispatcher finds them within seconds.
func (e *execution) wakeKeys(done []*claimed) {
	var keys []string
	for _, one := range done {
		if key := one.worked.SlotKey; key != nil && !one.kept {
			keys = append(keys, *key)
		}
	}
	if len(keys) == 0 {
		return
	}
	slices.Sort(keys)
	params := db.WakeKeysParams{Kind: done[0].worked.Kind, Keys: slices.Compact(keys), PassedBy: []string{}}
	if e.Limit != nil {
		params.LimitedNamespaces, params.Rooms, params.PassedBy = e.Limit.KeyedRoom(params.Kind)
	}
	var woken int64
	err := retryTransient(e.writes, writeTries, func(ctx context.Context) (err error) {
		woken, err = db.New().WakeKeys(ctx, e.Pool, params)
		return err
	})
	if err != nil {
		e.Logger.Info("waking rows that wait for slots of limit keys failed; a dispatcher wakes them within seconds", "kind", params.Kind, "workflow_id", e.workflowID, "keys", len(params.Keys),
			"error", fmt.Errorf("waking keys: %w", err))
		return
	}
	if woken > 0 {
		e.dispatchSoon()
	}
}
