package db

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// unlistedPage is how many rows one statement wakes.
const unlistedPage = 1000

// WakeUnlisted wakes, page by page, the deleted rows of a kind, or of a shard unless that is empty, which need not be kept for a complete listing any
// longer, and says how many they were. A woken row is due, so no page meets it twice.
func WakeUnlisted(ctx context.Context, pool *pgxpool.Pool, kind, shard string, retention time.Duration) (woken int64, err error) {
	for {
		n, err := New().WakeUnlisted(ctx, pool, WakeUnlistedParams{Kind: kind, Shard: shard, DefaultDeletedRetention: retention, Page: unlistedPage})
		woken += n
		if err != nil || n < unlistedPage {
			return woken, err
		}
	}
}
