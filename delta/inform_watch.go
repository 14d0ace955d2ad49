package delta

import (
	"cmp"
	"context"
	"fmt"
	"time"

	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
)

// watchPoll is how often a watched run is polled.
const watchPoll = 250 * time.Millisecond

// InformProgress is the progress of a run of an informer.
type InformProgress struct {
	InformRun
	// IsSettling reports whether everything is listed, and the foreground run waits for the resources that it informed.
	IsSettling bool
	// Unsettled counts the resources for which it waits. For a run with more than a few thousand objects the count is some
	// seconds late.
	Unsettled int
	// LastFailure is the error of the run's latest try, if that failed and will be repeated; empty otherwise.
	LastFailure string
}

// WatchInform is RunInform that reports the progress of the run: once it is started, and several times a second. The run
// goes on in Temporal when ctx ends. The result of a failed run is the latest reported progress. For a run that lists
// shards, counts are the sum of the shards that have begun, and IsSettling is never set.
func (c *Client) WatchInform(ctx context.Context, params ScheduleInformParams, informOpts *InformOptions, report func(InformProgress)) (*InformRun, error) {
	before, err := db.New().LatestInform(ctx, c.pool, params.ResourceKind)
	if err != nil {
		return nil, fmt.Errorf("delta: inform kind %s: %w", params.ResourceKind, schemaError(err))
	}
	run, err := c.startInform(ctx, params, informOpts)
	if err != nil {
		return nil, err
	}
	e, err := c.reachTemporalFor(ctx, "inform")
	if err != nil {
		return nil, err
	}
	type end struct {
		result *InformRun
		err    error
	}
	ended := make(chan end, 1)
	go func() {
		result, err := awaitInform(ctx, run, params.ResourceKind)
		ended <- end{result, err}
	}()
	seen := InformProgress{InformRun: InformRun{WorkflowID: run.GetID(), RunID: run.GetRunID()}}
	report(seen)
	w := &informWatch{
		engine: e, run: run, kind: params.ResourceKind, before: before, counts: map[string]listedCounts{},
		waits: &unsettledCount{kind: params.ResourceKind, pass: run.GetRunID(), size: unsettledPage},
	}
	tick := time.NewTicker(watchPoll)
	defer tick.Stop()
	for {
		select {
		case end := <-ended:
			if end.err != nil && end.result.Listed < seen.Listed {
				return &seen.InformRun, end.err
			}
			return end.result, end.err
		case <-tick.C:
			w.updateProgress(ctx, &seen)
			report(seen)
		}
	}
}

// informWatch polls a run of an informer.
type informWatch struct {
	*engine
	run   client.WorkflowRun
	kind  string
	waits *unsettledCount
	// before is the latest pass that began before the run. counts are the latest counts of the run's shards, by the run ids
	// of their passes.
	before   int64
	counts   map[string]listedCounts
	lookedAt time.Time
}

// listedCounts counts the listed objects of a pass, and those of them that are to be synced.
type listedCounts struct{ listed, scheduled int }

// updateProgress polls the run. Values that cannot be read stay as they were, because the end of the run has the result.
func (w *informWatch) updateProgress(ctx context.Context, seen *InformProgress) {
	found, err := w.temporal.DescribeWorkflow(ctx, w.run.GetID(), w.run.GetRunID())
	if err != nil {
		return
	}
	if shards := found.RawResponse.GetPendingChildren(); len(shards) > 0 {
		w.updateFromShards(ctx, shards, seen)
		return
	}
	for _, a := range found.RawResponse.GetPendingActivities() {
		seen.LastFailure = a.GetLastFailure().GetMessage()
		if a.GetActivityType().GetName() == activities.AwaitSettledName {
			seen.IsSettling = true
			continue
		}
		beat := countsOf(a)
		seen.Listed, seen.Scheduled = max(seen.Listed, beat.listed), max(seen.Scheduled, beat.scheduled)
	}
	if !seen.IsSettling {
		return // heartbeats, every few seconds, have the counts so far
	}
	if listed, left, err := w.waits.refreshCount(ctx, w.client.pool); err == nil && listed > 0 {
		seen.Listed, seen.Unsettled = max(seen.Listed, listed), left
	}
}

// countsOf returns the counts of an activity's latest heartbeat; zero if it has none.
func countsOf(a *workflowpb.PendingActivityInfo) listedCounts {
	var beat activities.InformProgress
	if converter.GetDefaultDataConverter().FromPayloads(a.GetHeartbeatDetails(), &beat) != nil {
		return listedCounts{}
	}
	return listedCounts{beat.Listed, beat.Scheduled}
}

// shardsPoll is how often the shards of a run are polled, with a request for each running one.
const shardsPoll = time.Second

// updateFromShards sums the passes of shards: running ones by their heartbeats, ended ones by the history of passes.
func (w *informWatch) updateFromShards(ctx context.Context, shards []*workflowpb.PendingChildExecutionInfo, seen *InformProgress) {
	if time.Since(w.lookedAt) < shardsPoll {
		return
	}
	w.lookedAt = time.Now()
	seen.LastFailure = ""
	for _, shard := range shards {
		found, err := w.temporal.DescribeWorkflow(ctx, shard.GetWorkflowId(), shard.GetRunId())
		if err != nil {
			continue
		}
		for _, a := range found.RawResponse.GetPendingActivities() {
			seen.LastFailure = cmp.Or(seen.LastFailure, a.GetLastFailure().GetMessage())
			w.noteCounts(shard.GetRunId(), countsOf(a))
		}
	}
	ended, err := db.New().PassesOfRun(ctx, w.client.pool, db.PassesOfRunParams{Kind: w.kind, After: w.before, WorkflowID: w.run.GetID()})
	if err != nil {
		return
	}
	for _, pass := range ended {
		w.noteCounts(pass.RunID, listedCounts{int(pass.Listed), int(pass.Scheduled)})
	}
	sum := listedCounts{}
	for _, one := range w.counts {
		sum.listed, sum.scheduled = sum.listed+one.listed, sum.scheduled+one.scheduled
	}
	seen.Listed, seen.Scheduled = max(seen.Listed, sum.listed), max(seen.Scheduled, sum.scheduled)
}

// noteCounts records the progress of a pass.
func (w *informWatch) noteCounts(runID string, now listedCounts) {
	known := w.counts[runID]
	w.counts[runID] = listedCounts{max(known.listed, now.listed), max(known.scheduled, now.scheduled)}
}
