package delta

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/workflows"
)

// ScheduleInformParams are the parameters of one run of an informer by request: the argument of [Client.ScheduleInform],
// RunInform and WatchInform.
type ScheduleInformParams struct {
	// ResourceKind is the kind to list. Required.
	ResourceKind string
	// FullListing lists everything: the informer gets no cursor. Objects that the listing leaves out are marked deleted, if
	// the kind has a FullListingInterval or CompleteListing. It cannot be set together with After or Cursor.
	FullListing bool
	// ProcessExisting also syncs objects that did not change.
	ProcessExisting bool
	// RunForeground makes the run end only when all resources that it informed have settled. It fails, and names them, if
	// some degraded. ScheduleInform does not wait for it: [Client.RunInform] does.
	RunForeground bool
	// Force writes listed objects even if the stored ones are newer, as InformOpts.Force does.
	Force bool
}

// InformRun is the result of a run of an informer.
type InformRun struct {
	// WorkflowID and RunID name the workflow.
	WorkflowID, RunID string
	// Listed counts objects, Scheduled those that started a new generation.
	Listed, Scheduled int
	// Refused counts objects that break a rule: [Client.Refused] names them.
	Refused int
	// Unkept counts refused objects that are not stored, because they are larger than 64 KiB, Postgres cannot store them,
	// or there are more than 1000. Such an object is taken only when a listing names it again and it is valid, which an
	// incremental listing may not do.
	Unkept int
	// Stale counts objects that were older than the stored ones, and changed nothing.
	Stale int
	// Deleted counts resources that a complete listing no longer had. Withheld counts those that were kept until somebody
	// decides ([Client.Withheld]).
	Deleted  int
	Withheld int64
}

// ScheduleInform runs a kind's informer once, now, beside its schedule. With nil options, or neither After nor Cursor, it
// continues from the kind's latest complete pass. It returns when the run has been started. The client need not be started,
// because the controller may be in another client; if no started client has the kind, the run waits for one. It needs
// Temporal.
//
// For a kind with shards ([Sharder]), all shards are listed, ten at once, or only the one that the options name, each from
// its own cursor. The run fails after all have ended, if one has failed.
func (c *Client) ScheduleInform(ctx context.Context, params ScheduleInformParams, informOpts *InformOptions) error {
	_, err := c.startInform(ctx, params, informOpts)
	return err
}

// RunInform is ScheduleInform that waits for the run to end, and returns its result. If ctx ends, the run goes on in
// Temporal.
func (c *Client) RunInform(ctx context.Context, params ScheduleInformParams, informOpts *InformOptions) (*InformRun, error) {
	run, err := c.startInform(ctx, params, informOpts)
	if err != nil {
		return nil, err
	}
	return awaitInform(ctx, run, params.ResourceKind)
}

// awaitInform waits for a run to end, and returns its result.
func awaitInform(ctx context.Context, run client.WorkflowRun, kind string) (*InformRun, error) {
	var progress activities.InformProgress
	err := retryUnanswered(ctx, func() error { return run.Get(ctx, &progress) })
	// The error of a failed run has its counts as details.
	if failed := (*temporal.ApplicationError)(nil); errors.As(err, &failed) && failed.HasDetails() {
		_ = failed.Details(&progress)
	}
	result := &InformRun{
		WorkflowID: run.GetID(), RunID: run.GetRunID(), Listed: progress.Listed, Scheduled: progress.Scheduled,
		Refused: progress.Refused, Unkept: progress.Unkept, Stale: progress.Stale, Deleted: progress.Deleted, Withheld: progress.Withheld,
	}
	if err != nil {
		return result, fmt.Errorf("delta: inform kind %s: %w", kind, err)
	}
	return result, nil
}

func (c *Client) startInform(ctx context.Context, params ScheduleInformParams, informOpts *InformOptions) (client.WorkflowRun, error) {
	if err := checkName("ResourceKind", params.ResourceKind); err != nil {
		return nil, fmt.Errorf("delta: inform: %w", err)
	}
	if err := checkInformOptions(params, informOpts); err != nil {
		return nil, fmt.Errorf("delta: inform: %w", err)
	}
	if err := c.checkLists(ctx, params.ResourceKind); err != nil {
		return nil, fmt.Errorf("delta: inform: %w", err)
	}
	if own, ok := c.config.Controllers.findKind(params.ResourceKind); ok && informOpts != nil && informOpts.Shard != "" && !own.handler.NamesShards() {
		return nil, fmt.Errorf("delta: inform: %w", inputError("Shard", informOpts.Shard, "must be empty: the controller of kind %s names no shards", params.ResourceKind))
	}
	e, err := c.reachTemporalFor(ctx, "inform kind "+params.ResourceKind)
	if err != nil {
		return nil, err
	}
	in := activities.InformInput{
		Installation: e.installation, Kind: params.ResourceKind, Trigger: activities.TriggerRequest,
		FullListing: params.FullListing, ProcessExisting: params.ProcessExisting, RunForeground: params.RunForeground, Force: params.Force,
	}
	if informOpts != nil {
		in.Options = *informOpts
	}
	options := client.StartWorkflowOptions{
		ID:        e.names.informScheduleID(params.ResourceKind) + "/" + rand.Text(),
		TaskQueue: e.names.informTaskQueue(params.ResourceKind),
		// The id is unique: if a run with it exists, an earlier try started it and its answer was lost. The SDK returns that run.
		WorkflowIDReusePolicy: enumspb.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE,
		StaticSummary:         informSummary(in),
		StaticDetails:         informDetails,
	}
	run, err := retryUnansweredRead(ctx, func() (client.WorkflowRun, error) {
		return e.temporal.ExecuteWorkflow(ctx, options, workflows.InformName, in)
	})
	if err != nil {
		return nil, fmt.Errorf("delta: inform kind %s: starting the workflow: %w", params.ResourceKind, err)
	}
	return run, nil
}

func checkInformOptions(params ScheduleInformParams, o *InformOptions) error {
	switch {
	case o == nil:
		return nil
	case checkKey("Shard", o.Shard) != nil:
		return checkKey("Shard", o.Shard)
	case o.Limit < 0:
		return inputError("Limit", o.Limit, "must be positive, or 0 for no limit")
	case params.FullListing && o.After != nil:
		return inputError("After", o.After, "must not be set together with FullListing, which lists everything")
	case params.FullListing && o.Cursor != "":
		return inputError("Cursor", o.Cursor, "must not be set together with FullListing, which lists everything")
	}
	return nil
}

// checkLists refuses kinds without an informer, including those of other clients.
func (c *Client) checkLists(ctx context.Context, kind string) error {
	if own, ok := c.config.Controllers.findKind(kind); ok {
		if own.handler.ListsNothing() {
			return inputError("ResourceKind", kind, listsNothingRule)
		}
		return nil
	}
	there, err := db.New().GetController(ctx, c.pool, kind)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil // no client has started with it yet, so the run waits for one
	case err != nil:
		return fmt.Errorf("reading the settings of kind %s: %w", kind, schemaError(err))
	case there.ListsNothing:
		return inputError("ResourceKind", kind, listsNothingRule)
	}
	return nil
}

const listsNothingRule = "must be a kind with an informer: the controller of this one embeds delta.NoInformer, so it lists nothing"

// PauseInformer keeps a kind's informer from running by its schedule until [Client.ResumeInformer]; requested runs go on.
// It applies to all clients, and survives the loss of Temporal. It needs Temporal. As with [Client.PauseKind], the kind
// need not be known yet.
func (c *Client) PauseInformer(ctx context.Context, kind string) error {
	return c.setInformerPaused(ctx, kind, true)
}

// ResumeInformer lets a kind's informer run by its schedule again. It needs Temporal.
func (c *Client) ResumeInformer(ctx context.Context, kind string) error {
	return c.setInformerPaused(ctx, kind, false)
}

func (c *Client) setInformerPaused(ctx context.Context, kind string, paused bool) error {
	if err := checkName("kind", kind); err != nil {
		return fmt.Errorf("delta: %s informer: %w", pauseVerb(paused), err)
	}
	e, err := c.reachTemporalFor(ctx, pauseVerb(paused)+" informer of kind "+kind)
	if err != nil {
		return err
	}
	if err := db.New().PauseInformer(ctx, c.pool, db.PauseInformerParams{Name: kind, Paused: paused}); err != nil {
		return fmt.Errorf("delta: %s informer of kind %s: %w", pauseVerb(paused), kind, schemaError(err))
	}
	for _, id := range []string{e.names.informScheduleID(kind), e.names.fullListingScheduleID(kind)} {
		if err := setSchedulePaused(ctx, e.temporal, id, paused); err != nil {
			return fmt.Errorf("delta: %s informer of kind %s: %w", pauseVerb(paused), kind, err)
		}
	}
	return nil
}
