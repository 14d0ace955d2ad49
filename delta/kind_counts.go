package delta

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

const (
	// MaxCounted bounds the counts of degraded, failed, late and other resources of a kind that people look at. If a count
	// equals it, there may be more.
	MaxCounted = 10_000
	// sampledPages is how many pages of the table an estimate reads, 16 MB. A smaller table is read as a whole, and
	// counted.
	sampledPages = 2_000
	// smallKind is how many resources a kind may have, by the sample, to be counted separately. smallKindMost bounds that
	// count, because a sample may be wrong about a kind whose resources are in few pages.
	smallKind     = 5_000
	smallKindMost = 20_000
)

// addCounts counts the resources of all kinds, at a cost that does not grow with the table.
func (c *Client) addCounts(ctx context.Context, kind func(name string) *KindStatus) error {
	q := db.New()
	sampled, err := q.SampleResources(ctx, c.pool, sampledPages)
	if err != nil {
		return fmt.Errorf("delta: kinds: %w", schemaError(err))
	}
	if len(sampled) > 0 && sampled[0].Share >= 1 {
		for _, s := range sampled {
			kind(s.Kind).addCount(s.State, s.Count, s.Shardless)
		}
		return nil
	}
	// A kind that the sample missed may still have resources, and kinds with few resources are counted.
	estimates := map[string]int64{}
	scaled := func(n int64, share float64) int64 { return int64(float64(n)/share + 0.5) }
	for _, s := range sampled {
		estimates[s.Kind] += scaled(s.Count, s.Share)
	}
	maps.DeleteFunc(estimates, func(_ string, n int64) bool { return n <= smallKind })
	for _, s := range sampled {
		if estimates[s.Kind] > 0 {
			k := kind(s.Kind)
			k.IsEstimated = true
			k.addCount(s.State, scaled(s.Count, s.Share), scaled(s.Shardless, s.Share))
		}
	}
	small, err := q.CountSmallKinds(ctx, c.pool, db.CountSmallKindsParams{Most: smallKindMost, Large: slices.Collect(maps.Keys(estimates))})
	if err != nil {
		return fmt.Errorf("delta: kinds: %w", schemaError(err))
	}
	read := map[string]int64{}
	for _, s := range small {
		k := kind(s.Kind)
		k.addCount(s.State, s.Count, s.Shardless)
		read[s.Kind] += s.Count
		k.IsEstimated = read[s.Kind] >= smallKindMost
	}
	troubled, err := q.CountTroubled(ctx, c.pool, MaxCounted)
	if err != nil {
		return fmt.Errorf("delta: kinds: %w", schemaError(err))
	}
	exact := map[string]map[deltatype.ResourceState]int64{}
	for _, t := range troubled {
		if exact[t.Kind] == nil {
			exact[t.Kind] = map[deltatype.ResourceState]int64{}
		}
		exact[t.Kind][t.State] = t.Count
		if t.Looked >= MaxCounted { // there are more: the sample says how many
			exact[t.Kind][t.State] = max(t.Count, kind(t.Kind).Counts[t.State])
		}
	}
	for name := range estimates {
		for _, state := range []deltatype.ResourceState{deltatype.ResourceStateDegraded, deltatype.ResourceStateFailed} {
			kind(name).setCount(state, exact[name][state])
		}
	}
	return nil
}

// addCount records how many resources of the kind are in a state. Call it after addShards.
func (k *KindStatus) addCount(state deltatype.ResourceState, count, shardless int64) {
	k.setCount(state, count)
	if state != deltatype.ResourceStateDeleted && k.namesShards() {
		k.Shardless += shardless
	}
}

func (k *KindStatus) setCount(state deltatype.ResourceState, count int64) {
	if count == 0 {
		delete(k.Counts, state)
		return
	}
	k.Counts[state] = count
}
