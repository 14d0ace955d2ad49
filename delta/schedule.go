package delta

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/workflows"
)

// informCatchup is how late a missed run may still start: the next run lists the same objects.
const informCatchup = time.Minute

// informSchedule is the wanted state of a Temporal Schedule of a kind's informer.
type informSchedule struct {
	id string
	// spec is when it runs; nil if there should be no schedule.
	spec   *client.ScheduleSpec
	action *client.ScheduleWorkflowAction
	// atOnce makes it run when it is created.
	atOnce bool
	note   string
	// installation is the one that the note names.
	installation string
}

// informSchedules returns the schedules of a kind: of its passes, and of its full listings.
func (e *engine) informSchedules(c db.Controller) ([]informSchedule, error) {
	spec, err := decodeSpec(c.InformSchedule)
	if err != nil {
		return nil, err
	}
	if spec == nil {
		spec = intervalSpec(c.InformInterval, c.InformJitter)
	}
	passes := informSchedule{
		id: e.names.informScheduleID(c.Name), spec: spec, atOnce: true, installation: e.installation,
		note: "Lists the objects of kind " + c.Name + " for Delta installation " + e.installation + ".",
	}
	full := informSchedule{
		id: e.names.fullListingScheduleID(c.Name), spec: intervalSpec(c.FullListingInterval, c.InformJitter), atOnce: passes.spec == nil, installation: e.installation,
		note: "Lists all objects of kind " + c.Name + " for Delta installation " + e.installation + ".",
	}
	if c.ListsNothing {
		full.spec = nil
	}
	passes.action = e.informAction(passes.id, activities.InformInput{Installation: e.installation, Kind: c.Name, Every: partOfSecond(c.InformInterval)})
	full.action = e.informAction(full.id, activities.InformInput{
		Installation: e.installation, Kind: c.Name, Every: partOfSecond(c.FullListingInterval), FullListing: true,
	})
	return []informSchedule{passes, full}, nil
}

// partOfSecond returns an interval that runs must keep themselves, because Temporal's schedules cannot; 0 for whole
// seconds.
func partOfSecond(interval time.Duration) time.Duration {
	if interval%time.Second == 0 {
		return 0
	}
	return interval
}

func (e *engine) informAction(id string, in activities.InformInput) *client.ScheduleWorkflowAction {
	in.Trigger = activities.TriggerSchedule
	return &client.ScheduleWorkflowAction{
		ID: id, Workflow: workflows.InformName, TaskQueue: e.names.informTaskQueue(in.Kind), Args: []any{in},
		StaticSummary: informSummary(in), StaticDetails: informDetails,
	}
}

// writeToTemporal creates, changes or removes the schedule. Unless ours is set, the note of the existing schedule shows
// whether it is this installation's.
func (s informSchedule) writeToTemporal(ctx context.Context, c client.Client, paused, ours bool) error {
	handle := c.ScheduleClient().GetHandle(ctx, s.id)
	there, err := handle.Describe(ctx)
	missing := errors.As(err, new(*serviceerror.NotFound))
	switch {
	case err != nil && !missing:
		return fmt.Errorf("reading the schedule %s: %w", s.id, err)
	case s.spec == nil && missing, s.spec != nil && !missing && s.isWritten(&there.Schedule, paused, ours):
		return nil // mostly: reading costs nothing
	case s.spec == nil:
		return s.deleteFrom(ctx, handle)
	case missing:
		err = s.create(ctx, c, paused)
		if !errors.Is(err, temporal.ErrScheduleAlreadyRunning) { // another client has created it otherwise
			return err
		}
	}
	return s.update(ctx, handle, paused, ours)
}

func (s informSchedule) deleteFrom(ctx context.Context, handle client.ScheduleHandle) error {
	if err := handle.Delete(ctx); err != nil && !errors.As(err, new(*serviceerror.NotFound)) {
		return fmt.Errorf("deleting the schedule %s: %w", s.id, err)
	}
	return nil
}

func (s informSchedule) create(ctx context.Context, c client.Client, paused bool) error {
	_, err := c.ScheduleClient().Create(ctx, client.ScheduleOptions{
		ID:                 s.id,
		Spec:               *s.spec,
		Overlap:            enumspb.SCHEDULE_OVERLAP_POLICY_SKIP,
		CatchupWindow:      informCatchup,
		TriggerImmediately: s.atOnce && !paused,
		Paused:             paused,
		Note:               s.note,
		Action:             s.action,
	})
	if err != nil {
		return fmt.Errorf("creating the schedule %s: %w", s.id, err)
	}
	return nil
}

// update changes the spec, the action and whether the schedule is paused; the note may be an operator's.
func (s informSchedule) update(ctx context.Context, handle client.ScheduleHandle, paused, ours bool) error {
	err := handle.Update(ctx, client.ScheduleUpdateOptions{
		DoUpdate: func(in client.ScheduleUpdateInput) (*client.ScheduleUpdate, error) {
			there := &in.Description.Schedule
			if s.isWritten(there, paused, ours) {
				return nil, temporal.ErrSkipScheduleUpdate
			}
			there.Spec, there.Action = s.spec, s.action
			if there.State != nil {
				there.State.Paused = there.State.Paused || paused
			}
			return &client.ScheduleUpdate{Schedule: there}, nil
		},
	})
	if err != nil {
		return fmt.Errorf("updating the schedule %s: %w", s.id, err)
	}
	return nil
}

// isWritten reports whether an existing schedule has the wanted state. A schedule that an operator paused stays paused.
func (s informSchedule) isWritten(there *client.Schedule, paused, ours bool) bool {
	// The arguments may be encoded by the user's data converter, so the note names the installation. An operator who pauses
	// the schedule may replace the note, so it is checked only once.
	queue := ""
	if a, ok := there.Action.(*client.ScheduleWorkflowAction); ok {
		queue = a.TaskQueue
	}
	return queue == s.action.TaskQueue && isSameSpec(there.Spec, s.spec) &&
		there.State != nil && (!paused || there.State.Paused) && (ours || strings.Contains(there.State.Note, s.installation))
}

// setSchedulePaused pauses or unpauses a schedule, if it exists.
func setSchedulePaused(ctx context.Context, c client.Client, id string, paused bool) error {
	handle := c.ScheduleClient().GetHandle(ctx, id)
	var err error
	if paused {
		err = handle.Pause(ctx, client.SchedulePauseOptions{})
	} else {
		err = handle.Unpause(ctx, client.ScheduleUnpauseOptions{})
	}
	var missing *serviceerror.NotFound
	if err != nil && !errors.As(err, &missing) {
		return fmt.Errorf("the schedule %s: %w", id, err)
	}
	return nil
}
