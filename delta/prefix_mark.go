package delta

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/chariot-giving/delta/db"
)

// ErrOtherInstallation is wrapped in the error of Start if another database already uses the prefix in the Temporal
// namespace.
var ErrOtherInstallation = errors.New("the prefix belongs to another Delta installation")

// prefixMark is the mark of an installation in Temporal: a schedule that never runs. Temporal creates it at
// most once, even if several clients try.
type prefixMark struct {
	// isOurs reports whether the mark is there, and of this installation.
	isOurs bool
	// heartbeat is the one that was written last.
	heartbeat int64
	// place is that of the tables whose client wrote the mark. Databases that were copied before a client had started differ in nothing else.
	place string
}

// id returns the id of the workflow that the schedule would start. It is the only field that is stored unchanged with
// any data converter.
func (m prefixMark) id(installation string) string {
	return installation + "/" + strconv.FormatInt(m.heartbeat, 10) + "/" + m.place
}

// parseMarkID reverses prefixMark.id. A mark without a heartbeat has 0.
func parseMarkID(id string) (installation string, mark prefixMark) {
	installation, rest, _ := strings.Cut(id, "/")
	beats, place, _ := strings.Cut(rest, "/")
	heartbeat, err := strconv.ParseInt(beats, 10, 64)
	if err != nil {
		heartbeat = 0
	}
	return installation, prefixMark{heartbeat: heartbeat, place: place}
}

// checkPlace returns an error if other tables than those here have the mark.
func (m prefixMark) checkPlace(here string) error {
	if m.isOurs && m.place != here {
		return fmt.Errorf("%w: Temporal knows the tables of the installation as those of another database (%s, and here %s), as after a copy of a template. %s",
			ErrRestoredDatabase, m.place, here, chooseRestored)
	}
	return nil
}

// claimPrefix marks the prefix, in this Temporal namespace, as this installation's, or finds that it belongs to another.
func (e *engine) claimPrefix(ctx context.Context, mark prefixMark) error {
	id := e.names.anchorScheduleID()
	_, err := e.temporal.ScheduleClient().Create(ctx, client.ScheduleOptions{
		ID:     id,
		Paused: true,
		Note: "Do not resume or delete: it never runs. It marks the prefix " + e.names.prefix + " as that of Delta installation " + e.installation +
			", so that no other database takes it.",
		Action: mark.action(e.names, e.installation),
	})
	if err != nil && !errors.Is(err, temporal.ErrScheduleAlreadyRunning) {
		return fmt.Errorf("creating the schedule %s: %w", id, err)
	}
	if err == nil {
		return nil
	}
	there, err := e.readPrefixMark(ctx)
	if err != nil {
		return err
	}
	return there.checkPlace(mark.place)
}

func (m prefixMark) action(n temporalNames, installation string) *client.ScheduleWorkflowAction {
	return &client.ScheduleWorkflowAction{ID: m.id(installation), Workflow: "delta.Installation", TaskQueue: n.prefix}
}

// raiseMark writes a heartbeat to Temporal, unless a higher one is there. least is the heartbeat that Temporal has if it has not gone back. A lower one is
// left as it is, for ensurePrefix to find: the call may have been repeated while Temporal was restored.
func (e *engine) raiseMark(ctx context.Context, mark prefixMark, least int64) error {
	return e.changeMark(ctx, func(there prefixMark) (prefixMark, error) {
		if err := there.checkPlace(mark.place); err != nil {
			return mark, err
		}
		if there.heartbeat < least {
			return mark, fmt.Errorf("it has heartbeat %d and had %d: Temporal has gone back, and the next look at it repairs that", there.heartbeat, least)
		}
		if there.heartbeat >= mark.heartbeat {
			return mark, temporal.ErrSkipScheduleUpdate
		}
		return mark, nil
	})
}

// moveMark notes in Temporal where the tables are now.
func (e *engine) moveMark(ctx context.Context, place string) error {
	return e.changeMark(ctx, func(there prefixMark) (prefixMark, error) {
		there.place = place
		return there, nil
	})
}

func (e *engine) changeMark(ctx context.Context, change func(there prefixMark) (prefixMark, error)) error {
	err := e.temporal.ScheduleClient().GetHandle(ctx, e.names.anchorScheduleID()).Update(ctx, client.ScheduleUpdateOptions{
		DoUpdate: func(in client.ScheduleUpdateInput) (*client.ScheduleUpdate, error) {
			schedule := &in.Description.Schedule
			there, err := e.decodeMark(schedule)
			if err != nil {
				return nil, err
			}
			mark, err := change(there)
			if err != nil {
				return nil, err
			}
			schedule.Action = mark.action(e.names, e.installation)
			return &client.ScheduleUpdate{Schedule: schedule}, nil
		},
	})
	if err != nil {
		return fmt.Errorf("updating the schedule %s: %w", e.names.anchorScheduleID(), err)
	}
	return nil
}

// readPrefixMark reads what Temporal knows of the prefix. It is an error if that is another installation's.
func (e *engine) readPrefixMark(ctx context.Context) (prefixMark, error) {
	found, err := retryUnansweredRead(ctx, func() (*client.ScheduleDescription, error) {
		return e.temporal.ScheduleClient().GetHandle(ctx, e.names.anchorScheduleID()).Describe(ctx)
	})
	if missing := new(serviceerror.NotFound); errors.As(err, &missing) {
		return prefixMark{}, nil
	}
	if missing := new(serviceerror.NamespaceNotFound); errors.As(err, &missing) {
		return prefixMark{}, fmt.Errorf("there is no namespace %q in Temporal: create it, or name another one, in "+
			"Config.TemporalNamespace, TEMPORAL_NAMESPACE, or the options of the client in Config.Temporal: %w", missing.Namespace, err)
	}
	if err != nil {
		return prefixMark{}, fmt.Errorf("reading the schedule %s: %w", e.names.anchorScheduleID(), err)
	}
	return e.decodeMark(&found.Schedule)
}

func (e *engine) decodeMark(s *client.Schedule) (prefixMark, error) {
	action, ok := s.Action.(*client.ScheduleWorkflowAction)
	if !ok {
		return prefixMark{}, fmt.Errorf("the schedule %s is not Delta's", e.names.anchorScheduleID())
	}
	there, mark := parseMarkID(action.ID)
	if there != e.installation {
		return prefixMark{}, fmt.Errorf("%w: in this Temporal namespace the prefix %q is that of installation %s, this database is installation %s. "+
			"Give one of them another Config.WorkflowIDPrefix or Temporal namespace. "+
			"If the other database is gone for good, free the prefix with `temporal schedule delete --schedule-id %s`",
			ErrOtherInstallation, e.names.prefix, there, e.installation, e.names.anchorScheduleID())
	}
	mark.isOurs = true
	return mark, nil
}

// readMark reads the mark, and checks that this database is the one that wrote it. expected has the place here, and the heartbeat that Temporal
// had before.
func (e *engine) readMark(ctx context.Context) (mark, expected prefixMark, err error) {
	// Postgres comes first: other clients go on meanwhile, and what they have noted here was in Temporal before.
	origin, err := e.readOrigin(ctx)
	if err != nil {
		return mark, expected, err
	}
	expected = prefixMark{heartbeat: origin.MarkedHeartbeat, place: origin.Here}
	mark, err = e.readPrefixMark(ctx)
	if err == nil {
		err = mark.checkPlace(origin.Here)
	}
	if err != nil || mark.heartbeat <= origin.Heartbeat {
		return mark, expected, err
	}
	again, err := e.readOrigin(ctx)
	if err == nil && mark.heartbeat > again.Heartbeat {
		err = fmt.Errorf("%w: Temporal knows heartbeat %d of it, and it has only %d, of %s. %s",
			ErrRestoredDatabase, mark.heartbeat, again.Heartbeat, again.HeartbeatAt.UTC().Format("2006-01-02 15:04:05 MST"), chooseRestored)
	}
	return mark, expected, err
}

// readOrigin reads what shows that the database is a copy, and checks that its tables are where the first client found them.
func (e *engine) readOrigin(ctx context.Context) (db.InstallationOriginRow, error) {
	return readOrigin(ctx, e.client.pool)
}

func readOrigin(ctx context.Context, pool db.DBTX) (db.InstallationOriginRow, error) {
	origin, err := db.New().InstallationOrigin(ctx, pool)
	if err != nil {
		return origin, fmt.Errorf("reading the installation: %w", schemaError(err))
	}
	if origin.Place != "" && origin.Place != origin.Here {
		return origin, fmt.Errorf("%w: its tables are those of another database (%s, and here %s), as after the restore of a dump. %s",
			ErrRestoredDatabase, origin.Place, origin.Here, chooseRestored)
	}
	return origin, nil
}
