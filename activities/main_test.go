package activities_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/delta/deltatype"
)

const kind = "thing"

var (
	synced  = activities.Outcome{Verdict: activities.VerdictSynced}
	failed  = activities.Outcome{Verdict: activities.VerdictFailed, Error: "boom", Trace: "main.go:1"}
	deleted = activities.Outcome{Verdict: activities.VerdictDeleted, Error: "gone"}
)

// handler is a controller made of functions.
type handler struct {
	work        func(ctx context.Context, row *deltatype.ResourceRow) activities.Outcome
	inform      func(ctx context.Context, options deltatype.InformOptions) <-chan activities.Listed
	workTimeout time.Duration
	passTimeout time.Duration
	completeTx  activities.CompleteTx
	same        func(stored, listed []byte) (same, ok bool)
	worked      atomic.Int64
}

func (h *handler) Kind() string { return kind }

func (h *handler) Work(ctx context.Context, task *activities.Task) activities.Outcome {
	h.worked.Add(1)
	h.completeTx = task.CompleteTx
	return h.work(ctx, task.Row)
}

func (h *handler) WorksBatches() bool { return false }

func (h *handler) WorkBatch(context.Context, []*activities.Task) []activities.Outcome { return nil }

func (h *handler) Encode(encoded, _ []byte) (deltatype.ObjectInformParams, error) {
	var content map[string]string
	if err := json.Unmarshal(encoded, &content); err != nil {
		return deltatype.ObjectInformParams{}, err
	}
	return object(content["id"], content["content"]), nil
}

func (h *handler) Compares() bool { return h.same != nil }

func (h *handler) Same(stored, listed []byte) (same, ok bool) { return h.same(stored, listed) }

func (h *handler) WorkTimeout(*activities.Task) time.Duration { return h.workTimeout }

func (h *handler) Inform(ctx context.Context, options deltatype.InformOptions) <-chan activities.Listed {
	return h.inform(ctx, options)
}

func (h *handler) InformTimeout() time.Duration { return h.passTimeout }

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
		Rest: activities.Rest{
			SyncedRetention: 24 * time.Hour, DegradedRetention: 48 * time.Hour, DeletedRetention: 72 * time.Hour,
		},
		AbandonAfter:       time.Minute, // a patience: what Work does when it gives up is in the tests that shorten it
		DefaultMaxAttempts: 10,
	}
	return h
}

// does is a Work that always comes to the same.
func does(outcome activities.Outcome) func(context.Context, *deltatype.ResourceRow) activities.Outcome {
	return func(context.Context, *deltatype.ResourceRow) activities.Outcome { return outcome }
}

// object is what the tests inform: an id, and content that makes its hash.
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

// brief is what of a step decides how the lifecycle goes on.
func brief(s activities.Step) activities.Step {
	return activities.Step{Next: s.Next, Wait: s.Wait, Generation: s.Generation, State: s.State}
}

// claim starts an attempt as the activity does, for a worker that is lost right after.
func (h *harness) claim(ref activities.Ref) {
	h.t.Helper()
	_, err := db.New().ClaimAttempt(context.Background(), h.Pool, db.ClaimAttemptParams{
		Net: activities.DispatchNet, Lost: "lost", MaxErrors: activities.MaxErrors, Kind: ref.Kind, ObjectID: ref.ObjectID,
	})
	require.NoError(h.t, err)
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

// now is the time of the database, whose clock the times of rows are from.
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
	tag, err := h.Pool.Exec(context.Background(), "UPDATE delta_resource SET "+assignments+" WHERE object_id = $1", ref.ObjectID)
	require.NoError(h.t, err)
	require.EqualValues(h.t, 1, tag.RowsAffected())
}

// namespace configures a namespace.
func (h *harness) namespace(name string, rest activities.Rest) {
	h.t.Helper()
	_, err := db.New().UpsertNamespace(context.Background(), h.Pool, db.UpsertNamespaceParams{
		Name: name, ResourceExpiry: rest.Expiry, SyncedRetention: rest.SyncedRetention,
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
