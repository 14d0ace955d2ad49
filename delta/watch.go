package delta

import (
	"context"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"

	"github.com/chariot-giving/delta/activities"
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
// goes on in Temporal when ctx ends. What a run that failed has come to is the latest that was seen of it.
func (c *Client) WatchInform(ctx context.Context, params ScheduleInformParams, informOpts *InformOptions, report func(InformProgress)) (*InformRun, error) {
	run, err := c.startInform(ctx, params, informOpts)
	if err != nil {
		return nil, err
	}
	e, err := c.reachFor(ctx, "inform")
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
	waits := &unsettled{kind: params.ResourceKind, pass: run.GetRunID(), size: unsettledPage}
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
			e.watch(ctx, run, waits, &seen)
			report(seen)
		}
	}
}

// watch brings what was seen of a run up to date. What cannot be read stays as it was: the run's end tells.
func (e *engine) watch(ctx context.Context, run client.WorkflowRun, waits *unsettled, seen *InformProgress) {
	found, err := e.temporal.DescribeWorkflow(ctx, run.GetID(), run.GetRunID())
	if err != nil {
		return
	}
	for _, a := range found.RawResponse.GetPendingActivities() {
		seen.LastFailure = a.GetLastFailure().GetMessage()
		if a.GetActivityType().GetName() == activities.AwaitSettledName {
			seen.Settling = true
			continue
		}
		var beat activities.InformProgress
		if converter.GetDefaultDataConverter().FromPayloads(a.GetHeartbeatDetails(), &beat) == nil {
			seen.Listed, seen.Scheduled = max(seen.Listed, beat.Listed), max(seen.Scheduled, beat.Scheduled)
		}
	}
	if !seen.Settling {
		return // what was listed so far is known from heartbeats, which come every few seconds
	}
	if listed, left, err := waits.look(ctx, e.client.pool); err == nil && listed > 0 {
		seen.Listed, seen.Unsettled = max(seen.Listed, listed), left
	}
}
