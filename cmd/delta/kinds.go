package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/remedy"
	"github.com/chariot-giving/delta/internal/wording"
)

func kindsCommand(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "kinds [KIND...]",
		Short: "Count resources by kind and state, and show how informers stand",
		Long: "kinds counts the resources of each kind by state, and shows when a pass of each informer last succeeded, and how far\n" +
			"the listing is behind: the time since then, if the latest pass failed or one was left out. Late are resources whose next step is more than a minute overdue, or whose\n" +
			"worker was lost that long ago. Refused are objects that listings named and that break a rule; they are shown with it.\n" +
			"When informers run next is known to Temporal: without it, that is left out.",
		ValidArgsFunction: c.completeKinds,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.with(cmd, func(ctx context.Context, s *session) error { return c.kinds(ctx, s, args) })
		},
	}
	c.temporalFlags(cmd)
	return cmd
}

// kindJSON is a kind as --output json shows it.
type kindJSON struct {
	Kind   string           `json:"kind"`
	Total  int64            `json:"total"`
	Counts map[string]int64 `json:"counts"`
	// Estimated is whether total and counts are estimates.
	Estimated bool `json:"estimated"`
	Paused    bool `json:"paused"`
	// SnoozedUntil is null where the kind is not snoozed.
	SnoozedUntil *time.Time `json:"snoozed_until"`
	Late         int64      `json:"late"`
	OldestLate   *time.Time `json:"oldest_late"`
	// Queued is how many wait because their limit keys are full, QueuedKeys how many keys these are.
	Queued       int64      `json:"queued"`
	QueuedKeys   int64      `json:"queued_keys"`
	OldestQueued *time.Time `json:"oldest_queued"`
	// Awaiting is how many wait for parents that were never synced, AwaitedParents how many parents these are.
	Awaiting       int64      `json:"awaiting"`
	AwaitedParents int64      `json:"awaited_parents"`
	OldestAwaiting *time.Time `json:"oldest_awaiting"`
	// Touches is how many parents have changed whose children of the kind are still to be touched.
	Touches     int64      `json:"touches"`
	OldestTouch *time.Time `json:"oldest_touch"`
	Refused     int64      `json:"refused"`
	// Undecodable is how many wait for a worker that understands their stored objects.
	Undecodable int64 `json:"undecodable"`
	Stale       int64 `json:"stale"`
	// Shardless is how many of a kind with shards have none: no listing marks them deleted.
	Shardless int64        `json:"shardless"`
	Informer  informerJSON `json:"informer"`
	Sources   []sourceJSON `json:"sources"`
}

// informerJSON is the informer of a kind. Interval is null where it runs by a
// schedule, or no client has started with the kind, and negative where the informer never runs by itself.
type informerJSON struct {
	ListsNothing    bool     `json:"lists_nothing"`
	IntervalSeconds *float64 `json:"interval_seconds"`
	// BySchedule reports that the informer runs by calendars or cron expressions.
	BySchedule bool `json:"by_schedule"`
	// FullIntervalSeconds is null where there are no full listings beside the others.
	FullIntervalSeconds *float64   `json:"full_listing_interval_seconds"`
	LastFullListing     *time.Time `json:"last_full_listing"`
	LastInformTime      *time.Time `json:"last_inform_time"`
	LastSuccess         *time.Time `json:"last_success"`
	LastFailure         *time.Time `json:"last_failure"`
	// LagSeconds is null where the listing is not behind.
	LagSeconds *float64   `json:"lag_seconds"`
	Paused     bool       `json:"paused"`
	NextRun    *time.Time `json:"next_run"`
	LastRun    *time.Time `json:"last_run"`
	// Withheld is a deletion that complete listings ask for and that is not carried out; null where there is none.
	Withheld *withheldJSON `json:"withheld"`
	// Error is why the latest pass failed, or why shards could not be named; null otherwise.
	Error  *string     `json:"error"`
	Shards []shardJSON `json:"shards"`
}

// refusedJSON is an object that a listing named and that cannot be taken.
type refusedJSON struct {
	Kind  string    `json:"kind"`
	Shard string    `json:"shard"`
	ID    string    `json:"id"`
	Rule  string    `json:"rule"`
	Since time.Time `json:"since"`
	Last  time.Time `json:"last"`
	// Kept is whether its JSON is kept, to be taken once it is valid.
	Kept bool `json:"kept"`
}

type kindsJSON struct {
	Kinds   []kindJSON    `json:"kinds"`
	Refused []refusedJSON `json:"refused"`
	// TemporalError says why next_run and last_run are missing, of all kinds or of some; null otherwise.
	TemporalError *string `json:"temporal_error"`
}

func (c *cli) kinds(ctx context.Context, s *session, only []string) error {
	for _, kind := range only {
		if err := s.needKind(ctx, kind); err != nil {
			return err
		}
	}
	all, err := s.Kinds(ctx)
	if err != nil {
		return err
	}
	all = chosen(all, only)
	status, temporalErr := s.inTemporal(ctx, all)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	now := time.Now()
	out := kindsJSON{Kinds: make([]kindJSON, len(all))}
	for i, k := range all {
		out.Kinds[i] = kindOf(k, status)
	}
	if out.Refused, err = refusedOf(ctx, s, all); err != nil {
		return err
	}
	if temporalErr != nil {
		text := message(temporalErr)
		out.TemporalError = &text
	}
	if done, err := c.json(out); done {
		return err
	}
	if len(all) == 0 {
		c.tell("There are no kinds yet: no client has started on this database, and it has no resources.")
		return nil
	}
	if err := c.countTable(out.Kinds); err != nil {
		return err
	}
	for _, k := range out.Kinds {
		if k.Queued > 0 {
			c.tell(fmt.Sprintf("%s: %s for slots of %s, the first %s", k.Kind, wording.Count(k.Queued, "resource")+" waiting", wording.Count(k.QueuedKeys, "limit key"),
				wording.When(k.OldestQueued, now)))
		}
		if k.Awaiting > 0 {
			c.tell(fmt.Sprintf("%s: %s for %s to be synced, the first %s", k.Kind, wording.Count(k.Awaiting, "resource")+" waiting",
				wording.Count(k.AwaitedParents, "parent"), wording.When(k.OldestAwaiting, now)))
		}
		if k.Touches > 0 {
			c.tell(fmt.Sprintf("%s: the children of %s, the first %s, are being touched", k.Kind, wording.Count(k.Touches, "changed parent"), wording.When(k.OldestTouch, now)))
		}
		if k.Undecodable > 0 {
			c.tell(fmt.Sprintf("%s: %s waiting for a worker that understands their stored objects: %s", k.Kind, wording.Count(k.Undecodable, "resource"),
				remedy.UnderstandObjects(k.Kind)))
		}
		if k.Stale > 0 {
			c.tell(fmt.Sprintf("%s: %s listed in an older version than the stored one, pass after pass, and not taken: "+
				"is their Compare, or Revision, right? (delta inform %s --force takes them)", k.Kind, wording.Count(k.Stale, "object"), k.Kind))
		}
	}
	_, _ = fmt.Fprintln(c.out)
	if err := c.informerTable(out.Kinds, now, temporalErr == nil); err != nil {
		return err
	}
	if err := c.shardTable(out.Kinds, now); err != nil {
		return err
	}
	if err := c.sourceTable(out.Kinds, now); err != nil {
		return err
	}
	for _, k := range out.Kinds {
		if e := k.Informer.Error; e != nil {
			what := "the latest pass failed"
			if len(k.Informer.Shards) > 0 {
				what = "the shards could not be named"
			}
			c.tell(fmt.Sprintf("%s: %s: %s", k.Kind, what, wording.Line(*e)))
		}
		c.tellShards(k)
		if w := k.Informer.Withheld; w != nil && w.Decision == "" {
			c.tell(fmt.Sprintf("%s: the listings leave out %s resources since %s (%s): none is marked deleted. "+
				"Decide with delta informs approve %s, or dismiss.", k.Kind, w.missing(), w.Since.Format(time.RFC3339), w.Reason, k.Kind))
		}
	}
	if err := c.refusedTable(out.Refused, now); err != nil {
		return err
	}
	if temporalErr != nil {
		c.tell("When informers run next is not known: " + wording.Line(*out.TemporalError))
	}
	return nil
}

// refusedOf reads the refused objects of kinds.
func refusedOf(ctx context.Context, s *session, all []delta.KindStatus) ([]refusedJSON, error) {
	found := []refusedJSON{}
	for _, k := range all {
		if k.Refused == 0 {
			continue
		}
		objects, err := s.Refused(ctx, k.Kind)
		if err != nil {
			return nil, err
		}
		for _, o := range objects {
			found = append(found, refusedJSON{Kind: o.Kind, Shard: o.Shard, ID: o.ObjectID, Rule: o.Rule, Since: o.Since, Last: o.Last, Kept: o.Kept})
		}
	}
	return found, nil
}

// maxRefusedShown is how many refused objects the table has.
const maxRefusedShown = 20

func (c *cli) refusedTable(all []refusedJSON, now time.Time) error {
	if len(all) == 0 {
		return nil
	}
	shown := all[:min(len(all), maxRefusedShown)]
	rows := make([][]string, len(shown))
	for i, o := range shown {
		rule := wording.Line(o.Rule)
		if !o.Kept {
			rule += " (not kept: too large, or not to be stored)"
		}
		rows[i] = []string{inShard(o.Kind, o.Shard), wording.Line(o.ID), wording.When(&o.Since, now), rule}
	}
	_, _ = fmt.Fprintln(c.out)
	if err := c.table([]string{"REFUSED KIND", "ID", "SINCE", "RULE"}, rows, 3); err != nil {
		return err
	}
	if len(all) > len(shown) {
		c.tell(fmt.Sprintf("%s more are refused: see -o json", wording.Number(len(all)-len(shown))))
	}
	return nil
}

func chosen(all []delta.KindStatus, only []string) []delta.KindStatus {
	if len(only) == 0 {
		return all
	}
	var left []delta.KindStatus
	for _, k := range all {
		for _, name := range only {
			if k.Kind == name {
				left = append(left, k)
				break
			}
		}
	}
	return left
}

// inTemporal asks Temporal about kinds.
func (s *session) inTemporal(ctx context.Context, all []delta.KindStatus) (*delta.TemporalStatus, error) {
	if err := s.needTemporal(ctx); err != nil {
		return nil, err
	}
	names := make([]string, len(all))
	for i, k := range all {
		names[i] = k.Kind
	}
	status, err := s.TemporalStatus(ctx, names...)
	if err != nil {
		return nil, err
	}
	return status, errorOfKinds(status)
}

// errorOfKinds is why Temporal could not be asked about some kinds; nil where it was about all.
func errorOfKinds(status *delta.TemporalStatus) error {
	var all []error
	for _, kind := range slices.Sorted(maps.Keys(status.Kinds)) {
		if err := status.Kinds[kind].Error; err != nil {
			all = append(all, fmt.Errorf("kind %s: %w", kind, err))
		}
	}
	return errors.Join(all...)
}

func kindOf(k delta.KindStatus, status *delta.TemporalStatus) kindJSON {
	out := kindJSON{
		Kind: k.Kind, Counts: map[string]int64{}, Estimated: k.IsEstimated, Paused: k.Paused, SnoozedUntil: k.SnoozedUntil, Late: k.Late, OldestLate: k.OldestLate,
		Queued: k.Queued, QueuedKeys: k.QueuedKeys, OldestQueued: k.OldestQueued,
		Awaiting: k.Awaiting, AwaitedParents: k.AwaitedParents, OldestAwaiting: k.OldestAwaiting, Touches: k.Touches, OldestTouch: k.OldestTouch,
		Refused: k.Refused, Undecodable: k.Undecodable, Stale: k.Stale, Shardless: k.Shardless,
		Informer: informerJSON{
			ListsNothing: k.ListsNothing, BySchedule: k.InformSchedule != nil, LastInformTime: k.LastInformTime, Paused: k.InformerPaused,
			Withheld: withheldOf(k.Withheld), Error: textOf(k.InformError), Shards: shardsOf(k),
		},
		Sources: sourcesOf(k),
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
	out.Informer.LastSuccess, out.Informer.LastFailure, out.Informer.LagSeconds = k.LastSuccess, k.LastFailure, lagSeconds(k.Lag)
	if status != nil && status.Kinds[k.Kind].Schedule != nil {
		schedule := status.Kinds[k.Kind].Schedule
		out.Informer.NextRun, out.Informer.LastRun = schedule.NextRun, schedule.LastRun
		out.Informer.Paused = out.Informer.Paused || schedule.Paused
	}
	return out
}

// countTable shows states that some resource is in, and those that most are.
func (c *cli) countTable(all []kindJSON) error {
	headers := []string{"KIND", "TOTAL"}
	var shown []string
	for _, state := range states() {
		usual := state == string(deltatype.ResourceStateSynced) || state == string(deltatype.ResourceStateDegraded)
		for _, k := range all {
			if usual || k.Counts[state] > 0 {
				headers, shown = append(headers, strings.ToUpper(state)), append(shown, state)
				break
			}
		}
	}
	rows, isEstimated := make([][]string, len(all)), false
	for i, k := range all {
		number := wording.Number[int64]
		isEstimated = isEstimated || k.Estimated
		if k.Estimated {
			number = wording.Estimate
		}
		rows[i] = []string{k.Kind, number(k.Total)}
		for _, state := range shown {
			rows[i] = append(rows[i], number(k.Counts[state]))
		}
	}
	if err := c.table(headers, rows, 0); err != nil || !isEstimated {
		return err
	}
	c.tell("~ is an estimate, from a part of the table.")
	return nil
}

func (c *cli) informerTable(all []kindJSON, now time.Time, reached bool) error {
	rows := make([][]string, len(all))
	for i, k := range all {
		every, next := "-", wording.When(k.Informer.NextRun, now)
		switch seconds := k.Informer.IntervalSeconds; {
		case k.Informer.BySchedule:
			every = "by calendar"
		case seconds == nil:
		case k.Informer.ListsNothing:
			every = "lists nothing"
		case *seconds < 0:
			every = "never"
		default:
			every = wording.Interval(time.Duration(*seconds * float64(time.Second)))
		}
		if full := k.Informer.FullIntervalSeconds; full != nil {
			every += ", all " + wording.Interval(time.Duration(*full*float64(time.Second)))
		}
		switch {
		case k.Informer.Paused:
			next = "paused"
		case !reached:
			next = "?"
		}
		work := "runs"
		switch {
		case k.Paused:
			work = "paused"
		case k.SnoozedUntil != nil:
			work = "snoozed " + wording.Duration(k.SnoozedUntil.Sub(now))
		}
		rows[i] = []string{
			k.Kind, work, wording.Number(k.Late), wording.Number(k.Refused), every, wording.When(k.Informer.LastSuccess, now),
			lagShown(k.Informer.LagSeconds), next,
		}
	}
	return c.table([]string{"KIND", "WORK", "LATE", "REFUSED", "INFORMS EVERY", "LAST SUCCESS", "LAG", "NEXT RUN"}, rows, 0)
}

// lagSeconds is null where a listing is not behind.
func lagSeconds(lag time.Duration) *float64 {
	if lag == 0 {
		return nil
	}
	seconds := lag.Round(time.Millisecond).Seconds()
	return &seconds
}

func lagShown(seconds *float64) string {
	if seconds == nil {
		return "-"
	}
	return wording.Duration(time.Duration(*seconds * float64(time.Second)))
}
