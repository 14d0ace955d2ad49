package delta

import (
	"context"
	"errors"
	"fmt"

	"github.com/chariot-giving/delta/db"
)

// scheduleChecksEvery is after how many intervals of maintenance the schedules of a kind are compared with its row, by one of
// the clients. Nothing changes them but a client that starts, a pause, and a person in Temporal; a Temporal that has lost
// them shows itself by its mark.
const scheduleChecksEvery = 5

// writeSchedules writes the kind's schedules when a client starts.
func (e *engine) writeSchedules(ctx context.Context, kind string) error {
	if e.client.config.DisableInformers {
		return nil
	}
	controller, err := db.New().GetController(ctx, e.client.pool, kind)
	if err != nil {
		return fmt.Errorf("reading the settings of kind %q: %w", kind, schemaError(err))
	}
	return e.writeSchedulesOf(ctx, controller, false)
}

// writeSchedulesOf writes the kind's schedules as the database has them, which is how the client that started last set them:
// clients that differ would undo each other's changes otherwise, and a new schedule runs at once. ours reports that an
// existing schedule belongs to this installation.
func (e *engine) writeSchedulesOf(ctx context.Context, controller db.Controller, ours bool) error {
	schedules, err := e.informSchedules(controller)
	if err != nil {
		return fmt.Errorf("kind %q: %w", controller.Name, err)
	}
	for _, s := range schedules {
		err := retryUnanswered(ctx, func() error { return s.writeToTemporal(ctx, e.temporal, controller.InformPaused, ours) })
		if err != nil {
			return err
		}
	}
	return nil
}

// checkSchedules compares the schedules of those kinds with their rows for which that is due, and repairs them.
func (e *engine) checkSchedules(ctx context.Context) error {
	if e.client.config.DisableInformers {
		return nil
	}
	due, err := db.New().ClaimScheduleChecks(ctx, e.client.pool, db.ClaimScheduleChecksParams{
		Kinds: e.client.config.Controllers.kindNames(), Every: scheduleChecksEvery * e.client.config.MaintenanceJobInterval,
	})
	if err != nil {
		return fmt.Errorf("reading which schedules are to be checked: %w", schemaError(err))
	}
	var failed []string
	var errs []error
	for _, controller := range due {
		if err := e.writeSchedulesOf(ctx, controller, true); err != nil {
			failed, errs = append(failed, controller.Name), append(errs, err)
		}
	}
	if len(failed) > 0 {
		errs = append(errs, e.forgetScheduleChecks(ctx, failed...))
	}
	return errors.Join(errs...)
}

// forgetScheduleChecks has the schedules of kinds, or of all, checked with the next maintenance of any client that has them.
func (e *engine) forgetScheduleChecks(ctx context.Context, kinds ...string) error {
	if err := db.New().ForgetScheduleChecks(ctx, e.client.pool, append([]string{}, kinds...)); err != nil {
		return fmt.Errorf("noting that schedules are to be checked: %w", schemaError(err))
	}
	return nil
}
