package deltatest

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math"
	"slices"
	"time"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/delta/internal/kit"
)

// rehearsal is one call of [Work], [Finalize] or [WorkBatch].
type rehearsal[T delta.Object] struct {
	action              string
	kind                *kit.Kind
	opts                WorkOpts
	isBatch, isFinalize bool
}

func openRehearsal[T delta.Object](what string, controller delta.Controller[T], opts *WorkOpts) (*rehearsal[T], error) {
	r := &rehearsal[T]{action: what}
	if opts != nil {
		r.opts = *opts
	}
	var err error
	if r.kind, err = openKind(controller, r.opts.Client); err != nil {
		return nil, r.wrapError(err)
	}
	return r, nil
}

// openKind adds the controller as a client does.
func openKind[T delta.Object](controller delta.Controller[T], client *delta.Client) (*kit.Kind, error) {
	controllers := delta.NewControllers()
	if err := delta.AddControllerSafely(controllers, controller); err != nil {
		return nil, err
	}
	return kit.Open(controllers, client), nil
}

func (r *rehearsal[T]) wrapError(err error) error {
	return fmt.Errorf("deltatest: %s: %w", r.action, err)
}

func (r *rehearsal[T]) rehearseOne(ctx context.Context, object T) (*Outcome[T], error) {
	all, err := r.rehearseAll(ctx, []T{object})
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

func (r *rehearsal[T]) rehearseAll(ctx context.Context, objects []T) ([]*Outcome[T], error) {
	if err := ctx.Err(); err != nil {
		return nil, r.wrapError(fmt.Errorf("ctx has ended before the call: %w", err))
	}
	rows := make([]*db.Resource, len(objects))
	for i, object := range objects {
		var err error
		if rows[i], err = r.makeRow(object); err != nil {
			return nil, r.wrapError(err)
		}
		if err := checkBatch(rows[:i], rows[i]); err != nil {
			return nil, r.wrapError(err)
		}
	}
	in := activities.RehearseInput{Rows: rows, Together: r.isBatch, Now: r.startTime()}
	if r.opts.DB != nil {
		in.Conn = r.opts.DB
	}
	rehearsed, err := r.kind.Activities.Rehearse(ctx, in)
	if err != nil {
		return nil, r.wrapError(err)
	}
	outcomes := make([]*Outcome[T], len(rehearsed))
	for i := range rehearsed {
		outcomes[i] = outcomeOf[T](&rehearsed[i])
	}
	return outcomes, nil
}

// checkBatch refuses objects that Delta would not give to one call of WorkBatch.
func checkBatch(others []*db.Resource, row *db.Resource) error {
	at := fmt.Sprintf("objects[%d]", len(others))
	for i, other := range others {
		switch {
		case other.ObjectID == row.ObjectID:
			return kit.InputError(at, row.ObjectID, "must have an id of its own: that of objects[%d] is the same", i)
		case other.Namespace != row.Namespace:
			return kit.InputError(at+".Namespace", row.Namespace, "must be that of the others, %q: WorkBatch is called for each namespace by itself", other.Namespace)
		}
	}
	return nil
}

func (r *rehearsal[T]) startTime() time.Time {
	now := r.opts.Now
	if now.IsZero() {
		now = time.Now()
	}
	return now.UTC().Truncate(time.Microsecond) // the resolution of Postgres
}

// makeRow returns the row of an object as a claim reads it.
func (r *rehearsal[T]) makeRow(object T) (*db.Resource, error) {
	params, err := r.kind.Encode(object, r.opts.Inform)
	if err != nil {
		return nil, err
	}
	o, now := r.opts, r.startTime()
	row := &db.Resource{
		ID: rowID(params.Kind, params.ResourceID), Kind: params.Kind, ObjectID: params.ResourceID, Namespace: cmp.Or(params.Namespace, delta.NamespaceDefault),
		State: deltatype.ResourceStatePending, Generation: cmp.Or(o.Generation, 1), SyncedGeneration: o.SyncedGeneration, SyncCount: o.SyncCount,
		Attempt: int32(cmp.Or(o.Attempt, 1)), MaxAttempts: cmp.Or(params.MaxAttempts, r.kind.Activities.DefaultMaxAttempts), Snoozes: int32(o.Snoozes),
		Priority: cmp.Or(params.Priority, delta.PriorityLive), Object: params.EncodedObject, ObjectVersion: params.ObjectVersion, Hash: params.Hash,
		Revision: params.Revision, Metadata: params.Metadata, Tags: params.Tags, CreatedAt: o.CreatedAt, AttemptedAt: &now, ExternalCreatedAt: params.CreatedAt,
	}
	if row.Metadata == nil {
		row.Metadata = []byte("{}")
	}
	if row.Tags == nil {
		row.Tags = []string{}
	}
	if row.CreatedAt.IsZero() {
		row.CreatedAt = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	if row.SyncedGeneration > 0 {
		row.SyncedAt = &row.CreatedAt
	}
	if o.Stored != nil {
		row.Object, row.ObjectVersion = o.Stored.Object, int32(o.Stored.Version)
	}
	cause := o.Cause
	if r.isFinalize {
		unfinalized := false
		row.State, row.Finalized = deltatype.ResourceStateDeleted, &unfinalized
		cause = cmp.Or(cause, deltatype.CauseCommand)
	}
	if cause != "" {
		row.Cause = &cause
	}
	for _, earlier := range o.Errors {
		encoded, err := json.Marshal(earlier)
		if err != nil {
			return nil, fmt.Errorf("Errors: %w", err)
		}
		row.Errors = append(row.Errors, encoded)
	}
	return row, r.checkOptions(row)
}

// checkOptions refuses options that no resource can have.
func (r *rehearsal[T]) checkOptions(row *db.Resource) error {
	newest := row.Generation
	if !r.isFinalize {
		newest--
	}
	causes := []deltatype.Cause{"", deltatype.CauseExhausted, deltatype.CauseHopeless, deltatype.CauseUnlisted, deltatype.CauseWork, deltatype.CauseCommand}
	if r.isFinalize {
		causes = causes[3:]
	}
	o := r.opts
	for _, rule := range []struct {
		field string
		value any
		holds bool
		rule  string
	}{
		{"Attempt", o.Attempt, o.Attempt >= 0 && o.Attempt <= int(row.MaxAttempts), fmt.Sprintf("must be between 1 and MaxAttempts, %d (or 0, for the default of 1)", row.MaxAttempts)},
		{"Generation", o.Generation, o.Generation >= 0, "must be at least 1 (or 0, for the default of 1)"},
		{"SyncedGeneration", o.SyncedGeneration, o.SyncedGeneration >= 0 && o.SyncedGeneration <= newest, fmt.Sprintf("must be between 0 and %d", newest)},
		{"SyncCount", o.SyncCount, o.SyncCount >= 0, "must not be negative"},
		{"Snoozes", o.Snoozes, o.Snoozes >= 0 && o.Snoozes <= math.MaxInt32, fmt.Sprintf("must be between 0 and %d", math.MaxInt32)},
		{"Cause", o.Cause, row.Cause == nil || slices.Contains(causes, *row.Cause), fmt.Sprintf("must be one of %q", causes)},
	} {
		if !rule.holds {
			return kit.InputError(rule.field, rule.value, "%s", rule.rule)
		}
	}
	if s := o.Stored; s != nil && (s.Version < 0 || s.Version > math.MaxInt32) {
		return kit.InputError("Stored.Version", s.Version, "must be between 0 and %d", math.MaxInt32)
	} else if s != nil && !json.Valid(s.Object) {
		return kit.InputError("Stored.Object", string(s.Object), "must be JSON: Postgres stores nothing else")
	}
	return nil
}

// rowID is the same for an object in every call, so that its IdempotencyKey is the same too.
func rowID(kind, id string) int64 {
	h := fnv.New64a()
	_, _ = fmt.Fprintf(h, "%s/%s", kind, id)
	return int64(h.Sum64() >> 1)
}

func outcomeOf[T delta.Object](r *activities.Rehearsed) *Outcome[T] {
	o := &Outcome[T]{
		Called: r.Outcome.Verdict != activities.VerdictUndecodable && r.Outcome.Verdict != activities.VerdictReleased,
		State:  r.Row.State, Cause: r.Row.Cause, Finalized: r.Row.Finalized != nil && *r.Row.Finalized,
		Err: r.Outcome.Err, Failure: r.Outcome.Error, Trace: r.Outcome.Trace, Counted: r.Counted,
		SnoozedFor: r.Outcome.SnoozeFor, SnoozeScope: r.Outcome.SnoozeScope, Row: r.Row,
	}
	if resource, ok := r.Decoded.(*delta.Resource[T]); ok {
		o.Object = resource.Object
	}
	if r.Row.DueAt != nil {
		o.NextAttemptAt = *r.Row.DueAt
	}
	return o
}
