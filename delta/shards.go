package delta

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/chariot-giving/delta/db"
)

// ShardStatus is the status of a shard of a kind.
type ShardStatus struct {
	// Shard is its name, as [Sharder] returns it.
	Shard string
	// Paused reports whether its passes are kept from running by the kind's schedule ([Client.PauseShard]).
	Paused bool
	// GoneSince is since when the controller no longer names it; nil while it does. A gone shard is not listed, and the
	// deletion of its resources is withheld.
	GoneSince *time.Time
	// LastInformTime is its cursor. LastFullListing is when its latest complete listing began. Nil before one.
	LastInformTime, LastFullListing *time.Time
	// LastSuccess is when its latest successful pass ended, LastFailure when its latest failed one did; nil before one.
	LastSuccess, LastFailure *time.Time
	// Error is why its latest pass failed; empty if it did not.
	Error string
	// Lag is how far its listing is behind: see [KindStatus].
	Lag time.Duration
	// Withheld is a deletion that awaits a decision; nil if there is none.
	Withheld *Withheld

	// namedSince is since when the controller names it.
	namedSince time.Time
}

// addShards adds the state of the listings of kinds, with and without shards.
func (c *Client) addShards(ctx context.Context, kind func(name string) *KindStatus) error {
	rows, err := db.New().ListShards(ctx, c.pool)
	if err != nil {
		return fmt.Errorf("delta: kinds: %w", schemaError(err))
	}
	live := map[string]bool{}
	for i := range rows {
		k, s := kind(rows[i].Kind), shardOf(&rows[i])
		if s.Shard == "" { // sorted: it comes first
			k.LastInformTime, k.LastFullListing, k.InformError = s.LastInformTime, s.LastFullListing, s.Error
			k.LastSuccess, k.LastFailure = s.LastSuccess, s.LastFailure
			continue
		}
		k.Shards = append(k.Shards, s)
		if s.GoneSince != nil {
			continue
		}
		if !live[k.Kind] {
			live[k.Kind], k.LastInformTime, k.LastFullListing = true, s.LastInformTime, s.LastFullListing
			continue
		}
		k.LastInformTime, k.LastFullListing = earlierTime(k.LastInformTime, s.LastInformTime), earlierTime(k.LastFullListing, s.LastFullListing)
	}
	return nil
}

// earlierTime returns the earlier of two times; nil is before all.
func earlierTime(a, b *time.Time) *time.Time {
	if a == nil || (b != nil && a.Before(*b)) {
		return a
	}
	return b
}

func shardOf(row *db.Shard) ShardStatus {
	s := ShardStatus{
		Shard: row.Shard, Paused: row.Paused, GoneSince: db.UTC(row.GoneAt), LastFullListing: db.UTC(row.LastFullListing),
		LastSuccess: db.UTC(row.SucceededAt), LastFailure: db.UTC(row.FailedAt), Error: row.Error,
		namedSince: row.NamedAt,
	}
	if last := row.LastInformTime.UTC(); last.Unix() > 0 {
		s.LastInformTime = &last
	}
	return s
}

// namesShards reports whether the controller of the kind names shards now.
func (k *KindStatus) namesShards() bool {
	return slices.ContainsFunc(k.Shards, func(s ShardStatus) bool { return s.GoneSince == nil })
}

// addWithheld adds a withheld deletion of the kind, or of one of its shards.
func (k *KindStatus) addWithheld(w *Withheld) {
	if w.Shard == "" {
		k.Withheld = w
		return
	}
	for i := range k.Shards {
		if k.Shards[i].Shard == w.Shard {
			k.Shards[i].Withheld = w
		}
	}
}

// PauseShard keeps a shard of a kind from being listed by the kind's schedule until [Client.ResumeShard]. Other shards are
// still listed, requested runs list it too, and a running pass goes on. It applies to all clients. It returns [ErrNotFound]
// for a shard that no run has named yet.
func (c *Client) PauseShard(ctx context.Context, kind, shard string) error {
	return c.setShardPaused(ctx, kind, shard, true)
}

// ResumeShard lets the schedule list a shard again, from its cursor.
func (c *Client) ResumeShard(ctx context.Context, kind, shard string) error {
	return c.setShardPaused(ctx, kind, shard, false)
}

func (c *Client) setShardPaused(ctx context.Context, kind, shard string, paused bool) error {
	if err := checkName("kind", kind); err != nil {
		return fmt.Errorf("delta: %s shard: %w", pauseVerb(paused), err)
	}
	if err := checkShard("shard", shard); err != nil {
		return fmt.Errorf("delta: %s shard: %w", pauseVerb(paused), err)
	}
	n, err := db.New().PauseShard(ctx, c.pool, db.PauseShardParams{Kind: kind, Shard: shard, Paused: paused})
	if err != nil {
		return fmt.Errorf("delta: %s shard %q of kind %s: %w", pauseVerb(paused), shard, kind, schemaError(err))
	}
	if n == 0 {
		return fmt.Errorf("delta: %s shard %q of kind %s: %w: no run has named it", pauseVerb(paused), shard, kind, ErrNotFound)
	}
	return nil
}
