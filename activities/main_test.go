package activities_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/delta/deltatype"
)

const (
	kind = "thing"
	// patience is how long a test waits for what a busy machine may delay.
	patience = time.Minute
)

var (
	synced  = activities.Outcome{Verdict: activities.VerdictSynced}
	failed  = activities.Outcome{Verdict: activities.VerdictFailed, Error: "boom", Trace: "main.go:1"}
	deleted = activities.Outcome{Verdict: activities.VerdictDeleted, Error: "gone"}
)

func init() {
	activities.TestDatabase = func(t *testing.T) *pgxpool.Pool { return deltatest.New(t).Pool }
}

// handler is a controller made of functions.
type handler struct {
	work         func(ctx context.Context, row *deltatype.ResourceRow) activities.Outcome
	workTask     func(ctx context.Context, task *activities.Task) activities.Outcome
	inform       func(ctx context.Context, options deltatype.InformOptions) <-chan activities.Listed
	shards       func() ([]string, error)
	finalize     func(ctx context.Context, row *deltatype.ResourceRow) activities.Outcome
	finalizeTask func(ctx context.Context, task *activities.Task) activities.Outcome
	workTimeout  time.Duration
	passTimeout  time.Duration
	encode       func(encoded []byte) error
	// encoded changes what Encode makes of an object.
	encoded func(o deltatype.ObjectInformParams) deltatype.ObjectInformParams
	worked  atomic.Int64
}

func (h *handler) Kind() string { return kind }

func (h *handler) Work(ctx context.Context, task *activities.Task) activities.Outcome {
	h.worked.Add(1)
	if h.workTask != nil {
		return h.workTask(ctx, task)
	}
	return h.work(ctx, task.Row)
}

func (h *handler) Finalizes() bool { return h.finalize != nil || h.finalizeTask != nil }

func (h *handler) Finalize(ctx context.Context, task *activities.Task) activities.Outcome {
	if h.finalizeTask != nil {
		return h.finalizeTask(ctx, task)
	}
	return h.finalize(ctx, task.Row)
}

func (h *handler) WorksBatches() bool { return false }

func (h *handler) WorkBatch(context.Context, []*activities.Task) []activities.Outcome { return nil }

func (h *handler) Encode(encoded, _ []byte) (deltatype.ObjectInformParams, error) {
	if h.encode != nil {
		if err := h.encode(encoded); err != nil {
			return deltatype.ObjectInformParams{}, err
		}
	}
	var content map[string]string
	if err := json.Unmarshal(encoded, &content); err != nil {
		return deltatype.ObjectInformParams{}, err
	}
	made := object(content["id"], content["content"])
	if h.encoded != nil {
		made = h.encoded(made)
	}
	return made, nil
}

func (h *handler) WorkTimeout(*activities.Task) time.Duration { return h.workTimeout }

func (h *handler) Inform(ctx context.Context, options deltatype.InformOptions) <-chan activities.Listed {
	return h.inform(ctx, options)
}

func (h *handler) ListsNothing() bool { return false }

func (h *handler) NamesShards() bool { return h.shards != nil }

func (h *handler) Shards(context.Context) ([]string, error) { return h.shards() }

func (h *handler) InformTimeout(activities.InformInput) time.Duration { return h.passTimeout }

// harness is an isolated database and the activities of one kind on it.
type harness struct {
	env *deltatest.Env
	*activities.Activities
	t       *testing.T
	handler *handler
}

// newHarness makes activities with a Work; nil is one that must not be called.
func newHarness(t *testing.T, work func(ctx context.Context, row *deltatype.ResourceRow) activities.Outcome) *harness {
	t.Helper()
	env := deltatest.New(t)
	installation, err := db.New().GetInstallation(t.Context(), env.Pool)
	require.NoError(t, err)
	if work == nil {
		work = func(context.Context, *deltatype.ResourceRow) activities.Outcome {
			t.Error("Work is called")
			return failed
		}
	}
	h := &harness{env: env, t: t, handler: &handler{work: work}}
	h.Activities = &activities.Activities{
		Pool:          env.Pool,
		Installation:  installation.ID,
		Handler:       h.handler,
		Logger:        slog.New(slog.NewTextHandler(io.Discard, nil)),
		WorkTimeout:   time.Minute,
		InformTimeout: time.Minute,
		Retention: activities.Retention{
			SyncedRetention: 24 * time.Hour, DegradedRetention: 48 * time.Hour, DeletedRetention: 72 * time.Hour,
		},
		AbandonAfter:       time.Minute, // a patience: what Work does when it gives up is in the tests that shorten it
		DefaultMaxAttempts: 10,
	}
	return h
}

// does returns a Work with always the same outcome.
func does(outcome activities.Outcome) func(context.Context, *deltatype.ResourceRow) activities.Outcome {
	return func(context.Context, *deltatype.ResourceRow) activities.Outcome { return outcome }
}

// object returns an object for the tests: an id, and content that makes its hash.
func object(id, content string) deltatype.ObjectInformParams {
	encoded, err := json.Marshal(map[string]string{"id": id, "content": content})
	if err != nil {
		panic(err)
	}
	hash := sha256.Sum256(encoded)
	return deltatype.ObjectInformParams{Kind: kind, ResourceID: id, EncodedObject: encoded, Hash: hash[:]}
}

// inform informs an object as a user does, and returns what names its resource.
func (h *harness) inform(o deltatype.ObjectInformParams) activities.Ref {
	h.t.Helper()
	_, err := db.InformRetrying(context.Background(), h.Pool, []deltatype.ObjectInformParams{o},
		db.InformOptions{DefaultMaxAttempts: 10, Revive: true})
	require.NoError(h.t, err)
	return activities.Ref{Installation: h.Installation, Kind: o.Kind, ObjectID: o.ResourceID}
}

// attempt makes an attempt that must not fail as an activity.
func (h *harness) attempt(ref activities.Ref) activities.Step {
	h.t.Helper()
	step, err := h.Attempt(context.Background(), ref)
	require.NoError(h.t, err)
	return brief(step)
}

// brief returns the fields of a step that decide how the workflow goes on.
func brief(s activities.Step) activities.Step {
	return activities.Step{Next: s.Next, Wait: s.Wait, Generation: s.Generation, State: s.State}
}

// claim claims a resource for another execution, as the activity does, and returns the claim, which is alive.
func (h *harness) claim(ref activities.Ref) (claim string) {
	h.t.Helper()
	return h.claimAs(ref, false)
}

// claimAs claims for an execution with a controller that finalizes, or does not.
func (h *harness) claimAs(ref activities.Ref, finalizes bool) (claim string) {
	h.t.Helper()
	claim = uuid.NewString()
	rows, err := db.New().ClaimResources(context.Background(), h.Pool, db.ClaimResourcesParams{
		Claim: claim, ClaimFor: time.Hour, WholeKind: true, Kind: ref.Kind, Ids: []int64{h.row(ref).ID},
		Lost: "lost", MaxErrors: activities.MaxErrors, MostLost: 1 << 15, Finalizes: finalizes,
	})
	require.NoError(h.t, err)
	require.Len(h.t, rows, 1, "%s cannot be claimed", ref)
	return claim
}

// killClaim makes the claim of a resource dead, as if its worker had not renewed it for long.
func (h *harness) killClaim(ref activities.Ref) {
	h.t.Helper()
	_, err := h.env.Pool.Exec(context.Background(),
		"DELETE FROM delta_claim c USING delta_resource r WHERE c.id = r.claim AND r.kind = $1 AND r.object_id = $2", ref.Kind, ref.ObjectID)
	require.NoError(h.t, err)
	h.set(ref, "claimed_until = now()")
}

// claimOf is the latest claim of a resource.
func (h *harness) claimOf(ref activities.Ref) (claim string) {
	h.t.Helper()
	err := h.env.Pool.QueryRow(context.Background(), "SELECT claim FROM delta_resource WHERE kind = $1 AND object_id = $2", ref.Kind, ref.ObjectID).
		Scan(&claim)
	require.NoError(h.t, err)
	return claim
}

// outcomeOf are the parameters that write an outcome for a row as it was worked.
func outcomeOf(worked *deltatype.ResourceRow, claim, state string) db.WriteOutcomesParams {
	encoded := ""
	if state != "synced" && state != "scheduled" {
		encoded = fmt.Sprintf(`{"at": "2026-01-01T00:00:00Z", "attempt": %d, "error": "written"}`, worked.Attempt)
	}
	return db.WriteOutcomesParams{
		Claim: claim, Lease: activities.DispatchLease, MaxErrors: activities.MaxErrors, DefaultSyncedRetention: time.Hour,
		DefaultDegradedRetention: time.Hour, DefaultDeletedRetention: time.Hour,
		Ids: []int64{worked.ID}, Generations: []int64{worked.Generation}, States: []string{state}, Delays: []time.Duration{time.Hour},
		Counted: []bool{state != "scheduled"}, Snoozed: []bool{state == "scheduled"}, Graces: []time.Duration{activities.DueGrace},
		Kept: []bool{false}, Errors: []string{encoded},
	}
}

// writeOutcome writes one beside the activity.
func (h *harness) writeOutcome(worked *deltatype.ResourceRow, claim, state string) []db.WriteOutcomesRow {
	h.t.Helper()
	rows, err := db.New().WriteOutcomes(context.Background(), h.env.Pool, outcomeOf(worked, claim, state))
	require.NoError(h.t, err)
	return rows
}

// loseAttempt starts an attempt, and loses its worker right after.
func (h *harness) loseAttempt(ref activities.Ref) {
	h.t.Helper()
	h.claim(ref)
	h.killClaim(ref)
}

// row reads a resource; nil if there is none.
func (h *harness) row(ref activities.Ref) *deltatype.ResourceRow {
	h.t.Helper()
	got, err := db.New().GetResource(context.Background(), h.Pool, db.GetResourceParams{Kind: ref.Kind, ObjectID: ref.ObjectID})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	require.NoError(h.t, err)
	row, err := got.Resource.Row()
	require.NoError(h.t, err)
	return row
}

// now returns the database's time, because the times of rows are by its clock.
func (h *harness) now() (now time.Time) {
	h.t.Helper()
	require.NoError(h.t, h.Pool.QueryRow(context.Background(), "SELECT clock_timestamp()").Scan(&now))
	return now
}

// requireWait checks what a step says of a row that is due: it waits from the moment at which the database answered, which
// is between the two times, until then.
func requireWait(t *testing.T, row *deltatype.ResourceRow, wait time.Duration, before, after time.Time) {
	t.Helper()
	require.NotNil(t, row.DueAt)
	require.LessOrEqual(t, wait, row.DueAt.Sub(before))
	require.GreaterOrEqual(t, wait, row.DueAt.Sub(after))
}

// set changes columns of a resource, beside Delta.
func (h *harness) set(ref activities.Ref, assignments string) {
	h.t.Helper()
	tag, err := h.env.Pool.Exec(context.Background(), "UPDATE delta_resource SET "+assignments+" WHERE object_id = $1", ref.ObjectID)
	require.NoError(h.t, err)
	require.EqualValues(h.t, 1, tag.RowsAffected())
}

// namespace configures a namespace.
func (h *harness) namespace(name string, rest activities.Retention) {
	h.t.Helper()
	_, err := db.New().UpsertNamespace(context.Background(), h.Pool, db.UpsertNamespaceParams{
		Name: name, ResourceExpiry: rest.Expiry, SyncedRetention: &rest.SyncedRetention,
		DegradedRetention: rest.DegradedRetention, DeletedRetention: rest.DeletedRetention,
	})
	require.NoError(h.t, err)
}

// errorsOf are the texts of a row's errors.
func errorsOf(row *deltatype.ResourceRow) (texts []string) {
	for _, e := range row.Errors {
		texts = append(texts, e.Error)
	}
	return texts
}
