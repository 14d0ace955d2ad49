package db

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// unlistedPage is how many rows one statement looks at.
const unlistedPage = 1000

// WakeUnlisted wakes the deleted rows of a kind, or of a shard unless that is empty, which need not be kept for a complete listing any longer, and says
// how many they were.
func WakeUnlisted(ctx context.Context, pool *pgxpool.Pool, kind, shard string, retention time.Duration) (woken int64, err error) {
	page := WakeUnlistedParams{Kind: kind, AfterShard: shard, DefaultDeletedRetention: retention}
	if shard != "" {
		page.Shard = &shard
	}
	return wakePages(ctx, pool, page)
}

// WakeUnlistedOfOtherShards does so with rows that are of none of these shards. What waits for a listing of theirs is not read.
func WakeUnlistedOfOtherShards(ctx context.Context, pool *pgxpool.Pool, kind string, shards []string, retention time.Duration) (woken int64, err error) {
	said, err := New().ShardsAwaitingListing(ctx, Planned(pool, unlistedPage), kind)
	for _, shard := range said {
		if slices.Contains(shards, shard) {
			continue
		}
		n, err := wakePages(ctx, pool, WakeUnlistedParams{Kind: kind, Shard: &shard, AfterShard: shard, DefaultDeletedRetention: retention})
		woken += n
		if err != nil {
			return woken, err
		}
	}
	return woken, err
}

// wakePages looks once at each row that waits, page by page. Each is planned by itself: a plan for any shard would read those of others too.
func wakePages(ctx context.Context, pool *pgxpool.Pool, page WakeUnlistedParams) (woken int64, err error) {
	page.Page = unlistedPage
	for {
		looked, err := New().WakeUnlisted(ctx, Planned(pool, unlistedPage), page)
		if err != nil {
			return woken, err
		}
		woken += looked.Woken
		if looked.Looked < unlistedPage {
			return woken, nil
		}
		page.AfterShard, page.AfterID = looked.LastShard, looked.LastID
	}
}
