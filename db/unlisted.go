package db

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// unlistedPage is how many rows one statement reads.
const unlistedPage = 1000

// WakeUnlisted wakes the deleted rows of a kind, or of a shard unless that is empty, that need not be kept for a
// complete listing any longer. It returns how many.
func WakeUnlisted(ctx context.Context, pool *pgxpool.Pool, kind, shard string, retention time.Duration) (woken int64, err error) {
	page := WakeUnlistedParams{Kind: kind, AfterShard: shard, DefaultDeletedRetention: retention}
	if shard != "" {
		page.Shard = &shard
	}
	return wakePages(ctx, pool, page)
}

// WakeUnlistedOfOtherShards does the same for rows outside of these shards. It does not read rows that wait for a
// listing of one of them.
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

// wakePages reads each waiting row once, page by page. Each page is planned by itself, because a plan for any shard
// would read rows of others too.
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
