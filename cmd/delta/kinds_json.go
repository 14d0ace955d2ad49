package main

import (
	"time"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

type kindsJSON struct {
	Kinds   []kindJSON    `json:"kinds"`
	Refused []refusedJSON `json:"refused"`
	// TemporalError says why next_run and last_run are missing for all or some kinds; null otherwise.
	TemporalError *string `json:"temporal_error"`
}

// kindJSON is a kind as --output json shows it.
type kindJSON struct {
	Kind   string           `json:"kind"`
	Total  int64            `json:"total"`
	Counts map[string]int64 `json:"counts"`
	// Estimated reports whether total and counts are estimates.
	Estimated bool `json:"estimated"`
	Paused    bool `json:"paused"`
	// SnoozedUntil is null if the kind is not snoozed.
	SnoozedUntil *time.Time `json:"snoozed_until"`
	Late         int64      `json:"late"`
	OldestLate   *time.Time `json:"oldest_late"`
	// Queued counts the resources that wait because their limit keys are full, QueuedKeys those keys.
	Queued       int64      `json:"queued"`
	QueuedKeys   int64      `json:"queued_keys"`
	OldestQueued *time.Time `json:"oldest_queued"`
	// Awaiting counts the resources that wait for parents that were never synced, AwaitedParents those parents.
	Awaiting       int64      `json:"awaiting"`
	AwaitedParents int64      `json:"awaited_parents"`
	OldestAwaiting *time.Time `json:"oldest_awaiting"`
	// Touches counts the changed parents with children of this kind that are not all touched yet.
	Touches     int64      `json:"touches"`
	OldestTouch *time.Time `json:"oldest_touch"`
	Refused     int64      `json:"refused"`
	// Undecodable counts the resources that wait for a worker that can decode their stored objects.
	Undecodable int64 `json:"undecodable"`
	Stale       int64 `json:"stale"`
	// Shardless counts the resources without a shard, of a kind that has shards: no listing marks them deleted.
	Shardless int64        `json:"shardless"`
	Informer  informerJSON `json:"informer"`
	Sources   []sourceJSON `json:"sources"`
}

// informerJSON is the informer of a kind.
type informerJSON struct {
	ListsNothing bool `json:"lists_nothing"`
	// IntervalSeconds is null if the informer runs by a schedule, or no client has started with the kind; negative if it never runs by itself.
	IntervalSeconds *float64 `json:"interval_seconds"`
	// BySchedule reports whether the informer runs by calendars or cron expressions.
	BySchedule bool `json:"by_schedule"`
	// FullIntervalSeconds is null if the kind has no extra full listings.
	FullIntervalSeconds *float64   `json:"full_listing_interval_seconds"`
	LastFullListing     *time.Time `json:"last_full_listing"`
	LastInformTime      *time.Time `json:"last_inform_time"`
	LastSuccess         *time.Time `json:"last_success"`
	LastFailure         *time.Time `json:"last_failure"`
	// LagSeconds is null if the listing is not behind.
	LagSeconds *float64   `json:"lag_seconds"`
	Paused     bool       `json:"paused"`
	NextRun    *time.Time `json:"next_run"`
	LastRun    *time.Time `json:"last_run"`
	// Withheld is the deletion that is withheld, or null.
	Withheld *withheldJSON `json:"withheld"`
	// Error says why the latest pass failed, or why the shards could not be named; null otherwise.
	Error  *string     `json:"error"`
	Shards []shardJSON `json:"shards"`
}

func toKindJSON(k delta.KindStatus, status *delta.TemporalStatus) kindJSON {
	out := kindJSON{
		Kind: k.Kind, Counts: map[string]int64{}, Estimated: k.IsEstimated, Paused: k.Paused, SnoozedUntil: k.SnoozedUntil, Late: k.Late, OldestLate: k.OldestLate,
		Queued: k.Queued, QueuedKeys: k.QueuedKeys, OldestQueued: k.OldestQueued,
		Awaiting: k.Awaiting, AwaitedParents: k.AwaitedParents, OldestAwaiting: k.OldestAwaiting, Touches: k.Touches, OldestTouch: k.OldestTouch,
		Refused: k.Refused, Undecodable: k.Undecodable, Stale: k.Stale, Shardless: k.Shardless,
		Informer: informerJSON{
			ListsNothing: k.ListsNothing, BySchedule: k.InformSchedule != nil, LastInformTime: k.LastInformTime, Paused: k.InformerPaused,
			Withheld: toWithheldJSON(k.Withheld), Error: nullIfEmpty(k.InformError), Shards: toShardsJSON(k),
		},
		Sources: toSourcesJSON(k),
	}
	for _, state := range deltatype.ResourceStates() {
		out.Counts[string(state)] = k.Counts[state]
		out.Total += k.Counts[state]
	}
	if k.InformInterval != 0 {
		seconds := k.InformInterval.Seconds()
		out.Informer.IntervalSeconds = &seconds
	}
	out.Informer.LastFullListing = k.LastFullListing
	if k.FullListingInterval > 0 {
		seconds := k.FullListingInterval.Seconds()
		out.Informer.FullIntervalSeconds = &seconds
	}
	out.Informer.LastSuccess, out.Informer.LastFailure, out.Informer.LagSeconds = k.LastSuccess, k.LastFailure, toLagSeconds(k.Lag)
	if status != nil && status.Kinds[k.Kind].Schedule != nil {
		schedule := status.Kinds[k.Kind].Schedule
		out.Informer.NextRun, out.Informer.LastRun = schedule.NextRun, schedule.LastRun
		out.Informer.Paused = out.Informer.Paused || schedule.Paused
	}
	return out
}

// toLagSeconds returns nil if a listing is not behind.
func toLagSeconds(lag time.Duration) *float64 {
	if lag == 0 {
		return nil
	}
	seconds := lag.Round(time.Millisecond).Seconds()
	return &seconds
}
