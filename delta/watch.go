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

// watchPoll is how often a run that is watched is looked at.
const watchPoll = 250 * time.Millisecond

// InformProgress is how far a run of an informer is.
type InformProgress struct {
	InformRun
	// Settling tells that all is listed, and that the run, in the foreground, waits for what it informed.
	Settling bool
	// Unsettled counts what it waits for. Of a run with more than a few thousand objects the count is some seconds late.
	Unsettled int
	// LastFailure is the error of the run's latest try, if that failed and it is to be repeated; empty otherwise.
	LastFailure string
}

// WatchInform is RunInform that reports how far the run is: once it is started, and several times a second as it goes on. It
// goes on in Temporal when ctx ends. What a run that failed has come to is the latest that was seen of it. Of a run that lists shards, counts are
// the sum of those that have begun, and Settling is never set.
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

// informWatch looks at a run of an informer.
type informWatch struct {
	*engine
	run   client.WorkflowRun
	kind  string
	waits *unsettledCount
	// before is the latest pass that began before the run. counts are those of the run's shards, by the run ids of their passes, as they were
	// looked at last.
	before   int64
	counts   map[string]listedCounts
	lookedAt time.Time
}

// listedCounts are how many objects a pass has listed, and how many of them are to be synced.
type listedCounts struct{ listed, scheduled int }

// updateProgress brings what was seen of a run up to date. What cannot be read stays as it was: the run's end tells.
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
			seen.Settling = true
			continue
		}
		beat := countsOf(a)
		seen.Listed, seen.Scheduled = max(seen.Listed, beat.listed), max(seen.Scheduled, beat.scheduled)
	}
	if !seen.Settling {
		return // what was listed so far is known from heartbeats, which come every few seconds
	}
	if listed, left, err := w.waits.refreshCount(ctx, w.client.pool); err == nil && listed > 0 {
		seen.Listed, seen.Unsettled = max(seen.Listed, listed), left
	}
}

// countsOf are what an activity has last reported; none where it has not.
func countsOf(a *workflowpb.PendingActivityInfo) listedCounts {
	var beat activities.InformProgress
	if converter.GetDefaultDataConverter().FromPayloads(a.GetHeartbeatDetails(), &beat) != nil {
		return listedCounts{}
	}
	return listedCounts{beat.Listed, beat.Scheduled}
}

// shardsPoll is how often the shards of a run are looked at: each of those that run is asked for.
const shardsPoll = time.Second

// updateFromShards adds up the passes of shards: those that run by their heartbeats, those that have ended by the history of passes.
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

// noteCounts takes in how far a pass is.
func (w *informWatch) noteCounts(runID string, now listedCounts) {
	known := w.counts[runID]
	w.counts[runID] = listedCounts{max(known.listed, now.listed), max(known.scheduled, now.scheduled)}
}
