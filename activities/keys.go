package activities

import (
	"context"
	"fmt"
	"slices"

	"github.com/chariot-giving/delta/db"
)

// KeyLimits say whether a kind limits calls of Work by the limit keys of its objects. What the limits are is in Postgres, for all clients.
type KeyLimits struct {
	// Limited is true where calls are limited in any way, Rated where their rate is.
	Limited, Rated bool
}

// takeSlots gives rows that are about to be claimed slots of their limit keys, and returns those that may be claimed. The others wait for a slot,
// and a dispatcher looks at them when it is theirs: they are in no batch and no workflow.
func (e *execution) takeSlots(ctx context.Context, kind string, ids []int64) (taken []int64, err error) {
	if !e.Keys.Limited || len(ids) == 0 {
		return ids, nil
	}
	params := db.TakeSlotsParams{Kind: kind, Ids: ids, Begins: true, Lease: DispatchLease}
	var waiting []int64
	err = retry(ctx, claimTries, func(ctx context.Context) (err error) {
		if waiting, err = db.New().TakeSlots(ctx, e.Pool, params); err != nil {
			return e.unanswered(err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if e.Keys.Rated || len(waiting) > 0 {
		e.dispatchSoon() // it reads when the next row of a key may be called
	}
	return without(ids, waiting), nil
}

// without are ids that are not among others.
func without(ids, others []int64) []int64 {
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

// wakeKeys has rows dispatched that wait for the slots which these rows had. If it fails, a dispatcher finds them within seconds.
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
	params := db.WakeKeysParams{Kind: done[0].worked.Kind, Keys: slices.Compact(keys)}
	var woken int64
	err := retry(e.writes, writeTries, func(ctx context.Context) (err error) {
		woken, err = db.New().WakeKeys(ctx, e.Pool, params)
		return err
	})
	if err != nil {
		e.Logger.Info("waking what waits for slots of limit keys failed; a dispatcher does within seconds", "kind", params.Kind, "keys", len(params.Keys),
			"error", fmt.Errorf("waking keys: %w", err))
		return
	}
	if woken > 0 {
		e.dispatchSoon()
	}
}
