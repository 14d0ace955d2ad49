package delta

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"golang.org/x/sync/errgroup"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

const (
	// lateGrace is how late a step may be before somebody should look: dispatchers poll every few seconds.
	lateGrace = time.Minute
	// pollerGrace is how long ago a worker may have polled: its polls last a minute.
	pollerGrace = 75 * time.Second
	// statusCalls is how many kinds Temporal is asked about at once.
	statusCalls = 8
)

// KindStatus is the status of a kind in the database.
type KindStatus struct {
	// Kind is its name.
	Kind string
	// Counts has the number of resources by state, without states that none is in. If IsEstimated is set, the counts are
	// estimated from random pages of the table: the largest are within some percent, while a state of few resources may be
	// missing. Degraded and failed resources are still counted, up to [MaxCounted]. [Client.Count] counts all.
	Counts      map[deltatype.ResourceState]int64
	IsEstimated bool
	// Paused reports whether its resources are kept from being worked, InformerPaused whether its informer is kept from
	// running by its schedule.
	Paused, InformerPaused bool
	// InformSchedule is the calendar of its informer; nil if it runs by an interval.
	InformSchedule *ScheduleSpec
	// Refused is how many objects of its listings cannot be taken: [Client.Refused] names them.
	Refused int64
	// Undecodable counts resources that wait because the latest worker did not understand their stored objects: each is
	// offered to workers until one does, or an inform replaces its object.
	Undecodable int64
	// SnoozedUntil is until when no Work of the kind begins ([SnoozeKind]); nil if it is not snoozed.
	SnoozedUntil *time.Time
	// FullListingInterval is how often everything is listed, beside the passes of InformInterval; 0: never. LastFullListing
	// is when the latest complete listing that detects deletions began; nil before one.
	FullListingInterval time.Duration
	LastFullListing     *time.Time
	// ListsNothing reports whether its controller has no informer ([NoInformer]).
	ListsNothing bool
	// InformInterval is how often its informer runs. Negative: never. 0: by InformSchedule, or no client that runs
	// informers has started with the kind yet.
	InformInterval time.Duration
	// LastInformTime is the cursor of its informer; nil before its first complete pass. For a kind with shards, it and
	// LastFullListing are the earliest of the named shards.
	LastInformTime *time.Time
	// LastSuccess is when the latest successful pass ended, LastFailure when the latest failed one did; nil before one. For
	// a kind with shards they are the earliest success and the latest failure of the named shards.
	LastSuccess, LastFailure *time.Time
	// Lag is how far the listing is behind: the time since LastSuccess, if the latest pass has failed or a run was missed.
	// A run by InformInterval is missed after one and a half intervals and the jitter. A run of InformSchedule is missed
	// after its time, its jitter and half the time between two runs, at most a day. Before the first success, Lag counts
	// since the informer should run as it does now. It is 0 if the listing is not behind, also for a kind in which nothing
	// changes or which is listed only on request, and while the informer is paused. For a kind with shards it is the
	// largest lag of a shard.
	Lag time.Duration
	// InformError is why the latest pass failed or, for a kind with shards, why they could not be named; empty otherwise.
	InformError string
	// Shards are those of the kind, by name, if its controller names them ([Sharder]), including gone shards with resources
	// left.
	Shards []ShardStatus
	// Shardless counts, or estimates as Counts does, resources without a shard in a kind with shards, unless they are
	// deleted: no listing marks them deleted. They get a shard when they are listed or informed, so resources that are left
	// after all shards were listed are in none of them, or gone.
	Shardless int64
	// Late counts resources whose next step is more than a minute overdue, or whose worker was lost that long ago, whether
	// dispatched or not. OldestLate is when the first of them was due. Only the first [MaxCounted] of each priority, in the
	// dispatchers' order, are examined.
	Late       int64
	OldestLate *time.Time
	// Unfinalized counts late deleted resources that wait for Finalize and that no client takes, because no running client
	// has a [Finalizer] for the kind. OldestUnfinalized is when the first of them was due.
	Unfinalized       int64
	OldestUnfinalized *time.Time
	// Queued counts resources that wait because their limit keys are full ([ObjectWithLimitKey]), QueuedKeys these keys.
	// OldestQueued is since when the first of them waits.
	Queued, QueuedKeys int64
	OldestQueued       *time.Time
	// Awaiting counts resources that wait for a parent which was never synced ([ObjectWithParents]), AwaitedParents these
	// parents. OldestAwaiting is when the first of them was due. They do not count as late.
	Awaiting, AwaitedParents int64
	OldestAwaiting           *time.Time
	// Touches counts changed parents whose children of this kind are still to be touched ([ObjectSettings].TouchedBy), at
	// most 100,000. OldestTouch is when the first of them was synced.
	Touches     int64
	OldestTouch *time.Time
	// Withheld is a deletion that complete listings ask for and that is not carried out; nil if there is none. If its
	// Decision is empty, it awaits one. Withheld deletions of shards are in Shards.
	Withheld *Withheld
	// Stale counts objects that the latest passes of the informer, three or more in a row, found older than the stored
	// ones. If one stays stale, its Compare or Revision is wrong: its listed version is never taken.
	Stale int64

	// Sources are those of the kind, by name ([AddSource]).
	Sources []SourceStatus

	// informsSince is since when the informer should run as it does now; informJitter is the random delay of a run by an
	// interval.
	informsSince time.Time
	informJitter *time.Duration
}

// Kinds returns the status of each kind that a client was started with or that has resources, by name. A table of up to 16
// MB is counted. Of a larger one a part of fixed size is read, and [KindStatus].Counts are estimates for kinds of more than
// some thousand resources.
func (c *Client) Kinds(ctx context.Context) ([]KindStatus, error) {
	byName := map[string]*KindStatus{}
	kind := func(name string) *KindStatus {
		if byName[name] == nil {
			byName[name] = &KindStatus{Kind: name, Counts: map[deltatype.ResourceState]int64{}}
		}
		return byName[name]
	}
	controllers, err := db.New().ListControllers(ctx, c.pool)
	if err != nil {
		return nil, fmt.Errorf("delta: kinds: %w", schemaError(err))
	}
	for _, there := range controllers {
		k := kind(there.Name)
		k.Paused, k.InformerPaused, k.InformInterval = there.Paused, there.InformPaused, there.InformInterval
		k.ListsNothing, k.FullListingInterval = there.ListsNothing, there.FullListingInterval
		k.informsSince, k.informJitter = there.InformsSince, there.InformJitter
		if k.InformSchedule, err = decodeSpec(there.InformSchedule); err != nil {
			return nil, fmt.Errorf("delta: kinds: kind %q: %w", there.Name, err)
		}
	}
	if err := c.addShards(ctx, kind); err != nil {
		return nil, err
	}
	snoozes, err := c.Snoozes(ctx)
	if err != nil {
		return nil, err
	}
	for _, snooze := range snoozes {
		if snooze.Kind != "" {
			kind(snooze.Kind).SnoozedUntil = &snooze.Until
		}
	}
	if err := c.addCounts(ctx, kind); err != nil {
		return nil, err
	}
	refused, err := db.New().CountRefused(ctx, c.pool)
	if err != nil {
		return nil, fmt.Errorf("delta: kinds: %w", schemaError(err))
	}
	for _, r := range refused {
		kind(r.Kind).Refused = r.Count
	}
	undecodable, err := db.New().UndecodableKinds(ctx, c.pool, db.UndecodableKindsParams{Most: MaxCounted, WorkflowNotStarted: workflowNotStarted, BatchNotStarted: batchNotStarted})
	if err != nil {
		return nil, fmt.Errorf("delta: kinds: %w", schemaError(err))
	}
	for _, u := range undecodable {
		kind(u.Kind).Undecodable = u.Count
	}
	late, err := db.New().CountLate(ctx, c.pool, db.CountLateParams{Grace: lateGrace, Longest: activities.LongestLease, Most: MaxCounted})
	if err != nil {
		return nil, fmt.Errorf("delta: kinds: %w", schemaError(err))
	}
	for _, l := range late {
		k, oldest := kind(l.Kind), l.Oldest.UTC()
		k.Late, k.OldestLate, k.Unfinalized = l.Count, &oldest, l.Unfinalized
		if l.Unfinalized > 0 {
			oldest := l.OldestUnfinalized.UTC()
			k.OldestUnfinalized = &oldest
		}
	}
	queued, err := db.New().CountQueued(ctx, c.pool)
	if err != nil {
		return nil, fmt.Errorf("delta: kinds: %w", schemaError(err))
	}
	for _, q := range queued {
		k, oldest := kind(q.Kind), q.Oldest.UTC()
		k.Queued, k.QueuedKeys, k.OldestQueued = q.Count, q.Keys, &oldest
	}
	awaiting, err := db.New().CountAwaiting(ctx, c.pool)
	if err != nil {
		return nil, fmt.Errorf("delta: kinds: %w", schemaError(err))
	}
	for _, a := range awaiting {
		k, oldest := kind(a.Kind), a.Oldest.UTC()
		k.Awaiting, k.AwaitedParents, k.OldestAwaiting = a.Count, a.Parents, &oldest
	}
	touches, err := db.New().MeasureTouches(ctx, c.pool, MaxTouchesCounted)
	if err != nil {
		return nil, fmt.Errorf("delta: kinds: %w", schemaError(err))
	}
	for _, t := range touches {
		k, oldest := kind(t.Kind), t.Oldest.UTC()
		k.Touches, k.OldestTouch = t.Count, &oldest
	}
	withheld, err := c.Withheld(ctx)
	if err != nil {
		return nil, err
	}
	for i := range withheld {
		kind(withheld[i].Kind).addWithheld(&withheld[i])
	}
	sources, err := c.Sources(ctx)
	if err != nil {
		return nil, err
	}
	for _, s := range sources {
		k := kind(s.Kind)
		k.Sources = append(k.Sources, s)
	}
	stale, err := db.New().StaleKinds(ctx, c.pool, activities.MinStalePasses)
	if err != nil {
		return nil, fmt.Errorf("delta: kinds: %w", schemaError(err))
	}
	for _, s := range stale {
		kind(s.Kind).Stale = s.Count
	}
	all := make([]KindStatus, 0, len(byName))
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		byName[name].measureLag(time.Now())
		all = append(all, *byName[name])
	}
	return all, nil
}

// TemporalStatus is the status of an installation in Temporal.
type TemporalStatus struct {
	// Namespace is Temporal's. Prefix begins the ids in it.
	Namespace, Prefix string
	// PrefixHeld reports whether the prefix is marked as this installation's. It is false before a client has started, and
	// after Temporal was wiped until a client checks.
	PrefixHeld bool
	// MissingAttributes are the search attributes by which the UI cannot filter. AttributesError is set if they cannot be
	// read.
	MissingAttributes []string
	AttributesError   error
	// Kinds has the requested kinds, by name.
	Kinds map[string]KindInTemporal
}

// KindInTemporal is the status of a kind in Temporal.
type KindInTemporal struct {
	// TaskQueue is the task queue of its resources, InformTaskQueue that of its informer.
	TaskQueue, InformTaskQueue string
	// Workers and InformWorkers are the identities of the workers that have polled them within the last 75 seconds.
	Workers, InformWorkers []string
	// Routing and InformRouting say which of them get the tasks.
	Routing, InformRouting QueueRouting
	// Schedule is that of its informer, FullSchedule that of its full listings (FullListingInterval); nil if there is none.
	Schedule, FullSchedule *InformSchedule
	// Error is why Temporal could not be asked about this kind, after three tries of 10 s. Fields that were not read are
	// empty then.
	Error error
}

// InformSchedule is the Temporal Schedule of an informer.
type InformSchedule struct {
	// ID is its id.
	ID string
	// Paused reports whether it is paused, by Delta or an operator.
	Paused bool
	// NextRun is when it runs next, LastRun when it ran last; nil if it does not or did not.
	NextRun, LastRun *time.Time
	// LastRunFailed reports whether the last run failed, timed out or was terminated. It is false while it runs.
	LastRunFailed bool
}

// TemporalStatus asks Temporal for the status of the installation and of kinds. It changes nothing. The client need not be
// started. It returns [ErrOtherInstallation] if the prefix belongs to another installation, and [ErrRestoredDatabase] as Start
// does.
func (c *Client) TemporalStatus(ctx context.Context, kinds ...string) (*TemporalStatus, error) {
	e, err := c.reachTemporalFor(ctx, "status")
	if err != nil {
		return nil, err
	}
	status := &TemporalStatus{Namespace: e.temporalNamespace(), Prefix: e.names.prefix, Kinds: map[string]KindInTemporal{}}
	mark, _, err := e.readMark(ctx)
	if err != nil {
		return nil, fmt.Errorf("delta: status: %w", err)
	}
	status.PrefixHeld = mark.isOurs
	missing, err := e.missingAttributes(ctx)
	status.MissingAttributes, status.AttributesError = slices.Sorted(maps.Keys(missing)), err

	controllers, err := db.New().ListControllers(ctx, c.pool)
	if err != nil {
		return nil, fmt.Errorf("delta: status: %w", schemaError(err))
	}
	noted := map[string]*string{}
	for _, there := range controllers {
		noted[there.Name] = there.TaskQueue
	}
	var mu sync.Mutex
	var all errgroup.Group
	all.SetLimit(statusCalls)
	for _, kind := range kinds {
		all.Go(func() error {
			k, err := e.kindInTemporal(ctx, kind, noted[kind])
			if ctx.Err() != nil {
				return fmt.Errorf("delta: status of kind %s: %w", kind, errors.Join(err, ctx.Err()))
			}
			k.Error = err
			mu.Lock()
			defer mu.Unlock()
			status.Kinds[kind] = k
			return nil
		})
	}
	return status, all.Wait()
}

// kindInTemporal returns the status of a kind in Temporal. noted is the user's task queue that the database has for it; nil
// for none.
func (e *engine) kindInTemporal(ctx context.Context, kind string, noted *string) (k KindInTemporal, err error) {
	names := e.names.withTaskQueue(noted)
	k.TaskQueue, k.InformTaskQueue = names.taskQueue(kind), names.informTaskQueue(kind)
	resources, err := e.readPollers(ctx, k.TaskQueue)
	if err != nil {
		return k, err
	}
	informs, err := e.readPollers(ctx, k.InformTaskQueue)
	if err != nil {
		return k, err
	}
	k.Workers, k.Routing = resources.identities, resources.routing
	k.InformWorkers, k.InformRouting = informs.identities, informs.routing
	if k.Schedule, err = e.readInformSchedule(ctx, e.names.informScheduleID(kind)); err != nil {
		return k, err
	}
	k.FullSchedule, err = e.readInformSchedule(ctx, e.names.fullListingScheduleID(kind))
	return k, err
}

func (e *engine) readInformSchedule(ctx context.Context, id string) (*InformSchedule, error) {
	found, err := retryUnansweredRead(ctx, func() (*client.ScheduleDescription, error) {
		return e.temporal.ScheduleClient().GetHandle(ctx, id).Describe(ctx)
	})
	if missing := new(serviceerror.NotFound); errors.As(err, &missing) {
		return nil, nil //nolint:nilnil // there is none, which is the answer
	}
	if err != nil {
		return nil, fmt.Errorf("reading the schedule %s: %w", id, err)
	}
	s := &InformSchedule{ID: id, Paused: found.Schedule.State != nil && found.Schedule.State.Paused}
	if next := found.Info.NextActionTimes; len(next) > 0 && !s.Paused {
		at := next[0].UTC()
		s.NextRun = &at
	}
	if all := found.Info.RecentActions; len(all) > 0 {
		last := slices.MaxFunc(all, func(a, b client.ScheduleActionResult) int { return a.ActualTime.Compare(b.ActualTime) })
		at := last.ActualTime.UTC()
		s.LastRun, s.LastRunFailed = &at, e.hasRunFailed(ctx, last.StartWorkflowResult)
	}
	return s, nil
}

// hasRunFailed reports whether a run failed, timed out or was terminated. A run that Temporal no longer knows does not
// count as failed.
func (e *engine) hasRunFailed(ctx context.Context, run *client.ScheduleWorkflowExecution) bool {
	if run == nil {
		return false
	}
	found, err := e.temporal.DescribeWorkflow(ctx, run.WorkflowID, run.FirstExecutionRunID)
	if err != nil {
		return false
	}
	switch found.Status {
	case enumspb.WORKFLOW_EXECUTION_STATUS_FAILED, enumspb.WORKFLOW_EXECUTION_STATUS_TIMED_OUT, enumspb.WORKFLOW_EXECUTION_STATUS_TERMINATED:
		return true
	default:
		return false
	}
}
