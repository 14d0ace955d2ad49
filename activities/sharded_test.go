package activities_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// sharded is a harness whose kind is listed shard by shard, each of which lists all that it has.
type sharded struct {
	*harness
	// upstream has the ids of each shard, down those whose listing fails, and given the options that each was listed with last.
	upstream map[string][]string
	down     map[string]bool
	given    map[string]deltatype.InformOptions
}

func inShard(shard, id string) deltatype.ObjectInformParams {
	o := object(id, "1")
	o.Shard = shard
	return o
}

func newSharded(t *testing.T, upstream map[string][]string) *sharded {
	t.Helper()
	s := &sharded{upstream: upstream, down: map[string]bool{}, given: map[string]deltatype.InformOptions{}}
	s.harness = newInformer(t, func(ctx context.Context, o deltatype.InformOptions) <-chan activities.Listed {
		s.given[o.Shard] = o
		var items []activities.Listed
		for _, id := range s.upstream[o.Shard] {
			items = append(items, item(inShard(o.Shard, id)))
		}
		if s.down[o.Shard] {
			items = append(items, activities.Listed{Fatal: true, Err: errors.New(o.Shard + " is down")})
		}
		return lists(items...)(ctx, o)
	})
	s.handler.shards = func() ([]string, error) { return slices.Sorted(maps.Keys(s.upstream)), nil }
	s.Listing = activities.Listing{Complete: true, MostDeleted: 2, MostDeletedShare: 0.5}
	return s
}

// syncAll syncs all resources that are due.
func (h *harness) syncAll() {
	h.t.Helper()
	_, err := h.env.Pool.Exec(context.Background(), "UPDATE delta_resource SET state = 'synced', synced_at = now(), due_at = NULL WHERE state <> 'deleted'")
	require.NoError(h.t, err)
}

// planShards asks the controller for the shards, and returns the passes.
func (s *sharded) planShards(change ...func(*activities.InformInput)) []activities.ShardPass {
	s.t.Helper()
	progress, err := s.pass(change...)
	require.NoError(s.t, err)
	require.NotNil(s.t, progress.Shards)
	return progress.Shards.Passes
}

// listShard runs one pass of a run.
func (s *sharded) listShard(pass activities.ShardPass) (activities.InformProgress, error) {
	defer s.syncAll()
	return s.pass(func(in *activities.InformInput) {
		in.Options.Shard, in.Named, in.Gone, in.Pass = pass.Shard, true, pass.Gone, uuid.NewString()
	})
}

// runPasses runs all passes of a run, and returns the progress of each. Only the shards that are down may fail.
func (s *sharded) runPasses() map[string]activities.InformProgress {
	s.t.Helper()
	all := map[string]activities.InformProgress{}
	for _, pass := range s.planShards() {
		progress, err := s.listShard(pass)
		require.Equal(s.t, s.down[pass.Shard], err != nil, "%s: %v", pass.Shard, err)
		all[pass.Shard] = progress
	}
	return all
}

// liveIDs returns the ids of a shard that are not deleted; those of rows without a shard for an empty one.
func (s *sharded) liveIDs(shard string) (ids []string) {
	s.t.Helper()
	rows, err := s.env.Pool.Query(context.Background(),
		"SELECT object_id FROM delta_resource WHERE coalesce(shard, '') = $1 AND state <> 'deleted' ORDER BY object_id", shard)
	require.NoError(s.t, err)
	defer rows.Close()
	for rows.Next() {
		var id string
		require.NoError(s.t, rows.Scan(&id))
		ids = append(ids, id)
	}
	return ids
}

func (s *sharded) shardRow(name string) db.Shard {
	s.t.Helper()
	row, err := db.New().GetShard(context.Background(), s.env.Pool, db.GetShardParams{Kind: kind, Shard: name})
	require.NoError(s.t, err)
	return row
}

func (s *sharded) withheldCounts() map[string]int64 {
	s.t.Helper()
	rows, err := db.New().ListWithheld(context.Background(), s.env.Pool)
	require.NoError(s.t, err)
	all := map[string]int64{}
	for _, w := range rows {
		all[w.Shard] = w.Missing
	}
	return all
}

// forgetCount has what is withheld counted again.
func (s *sharded) forgetCount() {
	s.t.Helper()
	_, err := s.Pool.Exec(context.Background(), "UPDATE delta_withheld SET seen_at = seen_at - interval '2 hours'")
	require.NoError(s.t, err)
}

func (s *sharded) decideWithheld(decision, shard string, missing int64) {
	s.t.Helper()
	_, err := db.New().DecideWithheld(context.Background(), s.env.Pool,
		db.DecideWithheldParams{Decision: decision, Kind: kind, Shard: shard, Missing: &missing})
	require.NoError(s.t, err)
}

// shardIDs returns n ids of a shard.
func shardIDs(shard string, n int) (ids []string) {
	for i := range n {
		ids = append(ids, fmt.Sprintf("%s/%d", shard, i))
	}
	return ids
}
