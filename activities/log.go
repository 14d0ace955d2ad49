package activities

import (
	"context"
	"log/slog"

	"go.temporal.io/sdk/activity"

	"github.com/chariot-giving/delta/db"
)

// IDField names an object in the log: by its id or, where object ids are kept from Temporal and the log, by its hash. A
// row that was informed before that setting has no hash.
func IDField(objectID string, hashedID *string, isHashed bool) slog.Attr {
	switch {
	case !isHashed:
		return slog.String("object_id", objectID)
	case hashedID == nil:
		return slog.String("hashed_id", "")
	}
	return slog.String("hashed_id", *hashedID)
}

// logFields returns the log fields of a resource's row.
func (a *Activities) logFields(r *db.Resource) []any {
	workflowID := ""
	if r.WorkflowID != nil {
		workflowID = *r.WorkflowID
	}
	id := IDField(r.ObjectID, r.HashedID, a.HashObjectIDs)
	return []any{"kind", r.Kind, id, "namespace", r.Namespace, "generation", r.Generation, "attempt", r.Attempt, "workflow_id", workflowID}
}

// refFields returns the log fields of a resource that only its name is known of.
func refFields(ctx context.Context, ref Ref) []any {
	id := IDField(ref.ObjectID, &ref.HashedID, ref.HashedID != "")
	return []any{"kind", ref.Kind, id, "namespace", ref.Namespace, "workflow_id", WorkflowID(ctx), "run_id", RunID(ctx)}
}

// logClaims logs the rows that an execution has claimed: the row of a single workflow, or the number of a batch's.
func (e *execution) logClaims(rows []*claimed) {
	switch {
	case len(rows) == 0 || !e.Logger.Enabled(context.Background(), slog.LevelDebug):
	case e.single:
		for _, one := range rows {
			e.Logger.Debug("an attempt was claimed", append(e.logFields(one.worked), "claim", e.claim.id, "waited", one.waited)...)
		}
	default:
		e.Logger.Debug("members of a batch were claimed", "kind", e.Handler.Kind(), "namespace", rows[0].worked.Namespace, "workflow_id", e.workflowID,
			"resources", len(rows), "claim", e.claim.id)
	}
}

// logOutcome logs an outcome that was written.
func (e *execution) logOutcome(one *claimed, written *db.WriteOutcomesRow) {
	if !e.Logger.Enabled(context.Background(), slog.LevelDebug) {
		return
	}
	row := one.rowAfter(written)
	e.Logger.Debug("an outcome was written", append(e.logFields(row), "claim", e.claim.id, "worked_generation", one.worked.Generation, "state", row.State, "took", one.outcome.Took)...)
}

// passLogger returns the logger of a pass.
func (a *Activities) passLogger(ctx context.Context, in InformInput) *slog.Logger {
	fields := []any{"kind", in.Kind}
	if shard := in.Options.Shard; shard != "" {
		fields = append(fields, "shard", shard)
	}
	if activity.IsActivity(ctx) {
		fields = append(fields, "workflow_id", WorkflowID(ctx), "run_id", RunID(ctx), "attempt", activity.GetInfo(ctx).Attempt)
	}
	return a.Logger.With(fields...)
}

// log returns the logger of the pass.
func (p *pass) log() *slog.Logger {
	if p.logger == nil {
		p.logger = p.activities.passLogger(context.Background(), p.in)
	}
	return p.logger
}

// LogFields returns the log fields of a pass that has ended.
func (o *PassObservation) LogFields() []any {
	p := &o.Progress
	fields := []any{"kind", o.Kind}
	if o.Shard != "" {
		fields = append(fields, "shard", o.Shard)
	}
	if o.RunID != "" {
		fields = append(fields, "workflow_id", o.WorkflowID, "run_id", o.RunID, "attempt", o.Attempt)
	}
	fields = append(fields, "trigger", o.Trigger, "listed", p.Listed, "new", o.New, "changed", p.Scheduled-o.New, "unchanged", o.Unchanged,
		"stale", p.Stale, "refused", p.Refused, "unkept", p.Unkept, "deleted", p.Deleted, "withheld", p.Withheld, "took", o.Took)
	if report := p.Pass; report != nil {
		fields = append(fields, "pages", report.Pages, "complete", report.Complete)
		if report.After != nil {
			fields = append(fields, "after", *report.After)
		}
	}
	return fields
}
