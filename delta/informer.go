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

// ScheduleInformParams say what a run of an informer is to do.
type ScheduleInformParams struct {
	// ResourceKind is the kind to list. Required.
	ResourceKind string
	// FullListing lists everything: the informer is given no cursor. What is left out is marked deleted, where the kind has a
	// FullListingInterval or CompleteListing. It cannot be set together with After or Cursor.
	FullListing bool
	// ProcessExisting also syncs objects that did not change.
	ProcessExisting bool
	// RunForeground has the run end when all that it informed has settled, and fail, naming them, if some of it degraded.
	// ScheduleInform does not wait for it: [Client.RunInform] does.
	RunForeground bool
	// Force writes what is listed although it is older than what is stored, as InformOpts.Force does.
	Force bool
}

// InformRun says what a run of an informer came to.
type InformRun struct {
	// WorkflowID and RunID name the workflow.
	WorkflowID, RunID string
	// Listed counts objects, Scheduled those that started a new generation.
	Listed, Scheduled int
	// Refused counts objects that break a rule: [Client.Refused] names them.
	Refused int
	// Unkept counts those of them whose object is not kept: it is larger than 64 KiB, Postgres cannot store it, or there are more than 1000. It is taken when
	// a listing names it again and it is valid, which an incremental one may not do.
	Unkept int
	// Stale counts objects that were older than what is stored, and changed nothing.
	Stale int
	// Deleted counts resources that a complete listing no longer had, Withheld those that were left until
	// somebody has decided of them ([Client.Withheld]).
	Deleted  int
	Withheld int64
}

// ScheduleInform has a kind's informer run once, now, beside its schedule, with the options given: nil, or neither After
// nor Cursor, goes on from where the kind's latest complete pass came to. It returns when the run has been started. The client need not be: the controller may be another
// client's. Where no client that was started has the kind, the run waits for one. It needs a Temporal that can be reached.
//
// Of a kind with shards ([Sharder]) all are listed, ten at once, or the one that the options name, each from its own cursor. The run fails if one
// of them does, when all have ended.
func (c *Client) ScheduleInform(ctx context.Context, params ScheduleInformParams, informOpts *InformOptions) error {
	_, err := c.startInform(ctx, params, informOpts)
	return err
}

// RunInform is ScheduleInform that waits for the run to end, and says what it came to. The run goes on in Temporal when ctx ends.
func (c *Client) RunInform(ctx context.Context, params ScheduleInformParams, informOpts *InformOptions) (*InformRun, error) {
	run, err := c.startInform(ctx, params, informOpts)
	if err != nil {
		return nil, err
	}
	return awaitInform(ctx, run, params.ResourceKind)
}

// awaitInform waits for a run to end, and says what it came to.
func awaitInform(ctx context.Context, run client.WorkflowRun, kind string) (*InformRun, error) {
	var progress activities.InformProgress
	err := run.Get(ctx, &progress)
	// A run that failed tells with its error how far it came.
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
		// The id is this run's alone: a run that has it was started by a try whose answer was lost, and the SDK returns it.
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

// checkLists refuses kinds without an informer, those of other clients too.
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

// PauseInformer keeps a kind's informer from running by its schedule until [Client.ResumeInformer]; runs that were asked for
// go on. It holds for all clients, and survives the loss of Temporal. It needs a Temporal that can be reached. The kind need not be
// known yet, as for [Client.PauseKind].
func (c *Client) PauseInformer(ctx context.Context, kind string) error {
	return c.setInformerPaused(ctx, kind, true)
}

// ResumeInformer lets a kind's informer run by its schedule again. It needs a Temporal that can be reached.
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
