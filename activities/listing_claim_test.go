package activities_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// newMirror returns a harness with a complete listing; listed runs during the listing, and returns its objects.
func newMirror(t *testing.T, listed func() []activities.Listed) *harness {
	t.Helper()
	h := newInformer(t, func(context.Context, deltatype.InformOptions) <-chan activities.Listed {
		all := make(chan activities.Listed)
		go func() {
			defer close(all)
			for _, o := range listed() {
				all <- o
			}
		}()
		return all
	})
	h.Listing = activities.Listing{Complete: true, MostDeleted: 100, MostDeletedShare: 1}
	return h
}

// completePass runs a pass as a workflow does.
func (h *harness) completePass() activities.InformProgress {
	h.t.Helper()
	progress, err := h.pass(func(in *activities.InformInput) { in.Pass = uuid.NewString() })
	require.NoError(h.t, err)
	return progress
}

// What a transaction writes that had not ended when a complete pass began is out of its reach, whatever the times say: it is of an object
// that may have been made, or found, after the listing was taken.
func TestWhatIsWrittenDuringACompletePassIsNotDeletedByIt(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	live := db.InformOptions{DefaultMaxAttempts: 10, Revive: true}
	inform := func(conn db.DBTX, o deltatype.ObjectInformParams) error {
		_, err := db.Inform(context.Background(), conn, []deltatype.ObjectInformParams{o, object("beside", "1")}, live)
		return err
	}
	for name, write := range map[string]func(h *harness, conn db.DBTX) error{
		"unchanged": func(_ *harness, conn db.DBTX) error {
			_, err := db.Inform(context.Background(), conn, []deltatype.ObjectInformParams{object("a", "1")}, live)
			return err
		},
		"unchanged in a set": func(_ *harness, conn db.DBTX) error { return inform(conn, object("a", "1")) },
		"unchanged in another listing": func(_ *harness, conn db.DBTX) error {
			other := uuid.NewString()
			_, err := db.Inform(context.Background(), conn, []deltatype.ObjectInformParams{object("a", "1")}, db.InformOptions{DefaultMaxAttempts: 10, Pass: &other})
			return err
		},
		"inserted again": func(h *harness, conn db.DBTX) error {
			_, err := conn.Exec(context.Background(), "DELETE FROM delta_resource")
			if err == nil {
				err = inform(conn, object("a", "2"))
			}
			return err
		},
		"revived": func(h *harness, conn db.DBTX) error {
			_, err := conn.Exec(context.Background(), "UPDATE delta_resource SET state = 'deleted', cause = 'work'")
			if err == nil {
				_, err = activities.RunCommand(context.Background(), conn, kind, "a", activities.CommandRevive, h.Retention)
			}
			return err
		},
		"degraded, and listed by another pass": func(_ *harness, conn db.DBTX) error {
			_, err := conn.Exec(context.Background(), "UPDATE delta_resource SET state = 'degraded', cause = 'exhausted'")
			if err == nil {
				_, err = db.Inform(context.Background(), conn, []deltatype.ObjectInformParams{object("a", "1")}, db.InformOptions{DefaultMaxAttempts: 10})
			}
			return err
		},
		"invalidated": func(h *harness, conn db.DBTX) error {
			_, err := activities.RunCommand(context.Background(), conn, kind, "a", activities.CommandInvalidate, h.Retention)
			return err
		},
		"touched": func(h *harness, conn db.DBTX) error {
			_, err := activities.RunCommand(context.Background(), conn, kind, "a", activities.CommandSync, h.Retention)
			return err
		},
	} {
		for when, is := range map[string]struct{ begun, written bool }{
			"by itself":                                {},
			"in a transaction from before":             {begun: true},
			"before the pass, and committed meanwhile": {begun: true, written: true},
		} {
			if is.written && strings.HasPrefix(name, "unchanged") {
				continue // before the pass it writes nothing, and the listing is newer
			}
			t.Run(name+"/"+when, func(t *testing.T) {
				t.Parallel()
				write, is := write, is
				var h *harness
				var tx pgx.Tx
				h = newMirror(t, func() []activities.Listed {
					var conn db.DBTX = h.Pool
					if is.begun {
						conn = tx
					}
					if !is.written {
						require.NoError(t, write(h, conn))
					}
					if is.begun {
						require.NoError(t, tx.Commit(context.Background()))
					}
					// What is due is synced meanwhile: what waits for Work is not deleted in any case.
					_, err := h.Pool.Exec(context.Background(), "UPDATE delta_resource SET state = 'synced', due_at = NULL")
					require.NoError(t, err)
					return nil
				})
				ref := h.inform(object("a", "1"))
				h.set(ref, "state = 'synced', synced_at = now(), attempted_at = now(), due_at = NULL")
				if is.begun {
					var err error
					tx, err = h.Pool.Begin(t.Context())
					require.NoError(t, err)
					_, err = tx.Exec(t.Context(), "SELECT 1") // its now() is from before the pass
					require.NoError(t, err)
				}
				if is.written {
					require.NoError(t, write(h, tx))
				}
				require.Zero(t, h.completePass().Deleted)
				require.Equal(t, deltatype.ResourceStateSynced, h.row(ref).State)

				// The next pass has seen all of it, and may say that it is gone.
				write = func(*harness, db.DBTX) error { return nil }
				is = struct{ begun, written bool }{}
				require.Positive(t, h.completePass().Deleted)
				require.Equal(t, deltatype.ResourceStateDeleted, h.row(ref).State)
			})
		}
	}
}

// The mark costs a write: it is made only while a complete pass of the kind runs, and not by the pass itself.
func TestUnchangedInformsWriteOnlyWhileACompletePassRuns(t *testing.T) {
	t.Parallel()
	var h *harness
	writer := func(id string) (xid string) {
		require.NoError(t, h.Pool.QueryRow(context.Background(), "SELECT xmin FROM delta_resource WHERE object_id = $1", id).Scan(&xid))
		return xid
	}
	var before, during string
	h = newMirror(t, func() []activities.Listed {
		h.inform(object("a", "1"))
		during = writer("a")
		return []activities.Listed{item(object("a", "1")), item(object("b", "1"))}
	})
	a, b := h.inform(object("a", "1")), h.inform(object("b", "1"))
	h.set(a, "state = 'synced'")
	h.set(b, "state = 'synced'")
	before, listed := writer("a"), writer("b")
	h.inform(object("a", "1"))
	require.Equal(t, before, writer("a"), "no pass runs")
	require.Zero(t, h.completePass().Deleted)
	require.NotEqual(t, before, during, "a pass runs")
	require.Equal(t, listed, writer("b"), "what the pass has listed it remembers by itself")
	h.inform(object("a", "1"))
	require.Equal(t, during, writer("a"), "the pass has ended")
}

// Transaction ids of a dump are those of another server, and may be far ahead of those here.
func TestRowsOfADumpAreWithinReach(t *testing.T) {
	t.Parallel()
	h := newMirror(t, func() []activities.Listed { return nil })
	ref := h.inform(object("a", "1"))
	h.set(ref, "state = 'synced', written_by = '1000000000000'")
	require.Equal(t, 1, h.completePass().Deleted)
}

// A pass that lost its claim cannot know which informs left no trace.
func TestAPassThatLostItsClaimDeletesNothing(t *testing.T) {
	t.Parallel()
	var h *harness
	h = newMirror(t, func() []activities.Listed {
		activities.LoseClaims(h.Claims)
		return nil
	})
	h.Claims = activities.NewClaims(h.Pool, h.Logger)
	ref := h.inform(object("a", "1"))
	h.set(ref, "state = 'synced'")
	_, err := h.pass(func(in *activities.InformInput) { in.Pass = uuid.NewString() })
	require.ErrorContains(t, err, "Postgres was not reached in time")
	require.Equal(t, deltatype.ResourceStateSynced, h.row(ref).State)
}

// revised is an object with a revision.
func revised(id string, revision int64) deltatype.ObjectInformParams {
	o := object(id, "x")
	o.Revision = &revision
	return o
}

func TestObjectsThatEveryPassFindsStaleAreWarnedOf(t *testing.T) {
	t.Parallel()
	var listed []activities.Listed
	h := newMirror(t, func() []activities.Listed { return listed })
	var mu sync.Mutex
	var logged bytes.Buffer
	h.Logger = slog.New(slog.NewTextHandler(lockedWriter{&mu, &logged}, nil))
	h.inform(revised("always", 5))
	h.inform(revised("once", 5))
	h.inform(revised("twice", 5))
	always, twice := item(revised("always", 4)), item(revised("twice", 4))
	for pass, c := range []struct {
		listed []activities.Listed
		stale  int
	}{
		{[]activities.Listed{always, twice, item(revised("once", 1))}, 3},
		{[]activities.Listed{always, always, twice, item(revised("once", 6))}, 2},
		{[]activities.Listed{always, item(revised("twice", 5))}, 1},
		{[]activities.Listed{always, twice}, 2},
	} {
		listed = c.listed
		progress := h.completePass()
		require.Equal(t, c.stale, progress.Stale, pass)
		mu.Lock()
		require.Equal(t, pass >= 2, bytes.Contains(logged.Bytes(), []byte("always")), logged.String())
		require.NotContains(t, logged.String(), "once")
		require.NotContains(t, logged.String(), "twice")
		mu.Unlock()
	}
	kinds, err := db.New().StaleKinds(t.Context(), h.Pool, activities.MinStalePasses)
	require.NoError(t, err)
	require.Equal(t, []db.StaleKindsRow{{Kind: kind, Count: 1}}, kinds)

	// Forced, it is taken.
	_, err = h.pass(func(in *activities.InformInput) { in.Force = true })
	require.NoError(t, err)
	require.EqualValues(t, 4, *h.row(h.ref("always")).Revision)
	kinds, err = db.New().StaleKinds(t.Context(), h.Pool, activities.MinStalePasses)
	require.NoError(t, err)
	require.Empty(t, kinds)
}

type lockedWriter struct {
	mu *sync.Mutex
	to *bytes.Buffer
}

func (w lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.to.Write(p)
}

// A kind with full listings has incremental passes beside them: what these name exists, taken or refused.
func TestWhatAnIncrementalPassNamesIsNotDeletedByAFullOneBeside(t *testing.T) {
	t.Parallel()
	elsewhere := object("elsewhere", "1")
	elsewhere.Namespace = "globex"
	var h *harness
	h = newInformer(t, func(_ context.Context, options deltatype.InformOptions) <-chan activities.Listed {
		if options.After != nil {
			return lists(item(object("a", "1")), item(object("degraded", "1")), item(elsewhere), badItem("b"))(context.Background(), options)
		}
		_, err := h.pass(func(in *activities.InformInput) { in.Options.After = &time.Time{} })
		require.NoError(t, err)
		return lists()(context.Background(), options)
	})
	h.Listing = activities.Listing{Full: true, MostDeleted: 100}
	for _, id := range []string{"a", "b", "degraded", "elsewhere", "gone"} {
		h.set(h.inform(object(id, "1")), "state = 'synced'")
	}
	h.set(h.ref("degraded"), "state = 'degraded', cause = 'hopeless'")
	progress, err := h.pass(func(in *activities.InformInput) { in.Pass, in.FullListing = uuid.NewString(), true })
	require.NoError(t, err)
	require.Equal(t, 1, progress.Deleted)
	require.Equal(t, deltatype.ResourceStateDeleted, h.row(h.ref("gone")).State)
	for _, id := range []string{"a", "b", "elsewhere"} {
		require.Equal(t, deltatype.ResourceStateSynced, h.row(h.ref(id)).State, id)
	}
	require.Equal(t, deltatype.ResourceStateDegraded, h.row(h.ref("degraded")).State)
}

// That a degraded resource is tried once more says nothing of its object.
func TestWhatOnlyTimeDidIsWithinReach(t *testing.T) {
	t.Parallel()
	var h *harness
	h = newMirror(t, func() []activities.Listed {
		require.Equal(t, deltatype.ResourceStateFailed, h.endRetention(h.ref("a")).State)
		return nil
	})
	h.Retention.DegradedRetry = time.Hour
	ref := h.inform(object("a", "1"))
	h.set(ref, "state = 'degraded', cause = 'exhausted', due_at = now()")
	require.Equal(t, 1, h.completePass().Deleted)
	require.Equal(t, deltatype.CauseUnlisted, h.row(ref).Cause)
}

// What a pass refuses, or what stays deleted, is not counted as stale; what another listing left out is, and a forced pass brings it back.
func TestAPassCountsAsStaleWhatANewerVersionWouldHaveTaken(t *testing.T) {
	t.Parallel()
	elsewhere := revised("elsewhere", 4)
	elsewhere.Namespace = "globex"
	h := newMirror(t, func() []activities.Listed {
		return []activities.Listed{item(elsewhere), item(revised("removed", 4)), item(revised("left out", 4))}
	})
	for _, id := range []string{"elsewhere", "removed", "left out"} {
		h.inform(revised(id, 5))
	}
	h.set(h.ref("removed"), "state = 'deleted', cause = 'command'")
	h.set(h.ref("left out"), "state = 'deleted', cause = 'unlisted'")
	progress := h.completePass()
	require.Equal(t, activities.InformProgress{Listed: 3, Stale: 1, Refused: 1}, progress)
	require.Contains(t, h.readRefused()["elsewhere"], "MoveNamespace")
	require.Equal(t, deltatype.ResourceStateDeleted, h.row(h.ref("left out")).State)
	kinds, err := db.New().StaleKinds(t.Context(), h.Pool, 1)
	require.NoError(t, err)
	require.Equal(t, []db.StaleKindsRow{{Kind: kind, Count: 1}}, kinds)

	progress, err = h.pass(func(in *activities.InformInput) { in.Force = true })
	require.NoError(t, err)
	require.Equal(t, activities.InformProgress{Listed: 3, Scheduled: 1, Refused: 1}, progress)
	require.Equal(t, deltatype.ResourceStateScheduled, h.row(h.ref("left out")).State)
	require.Equal(t, deltatype.ResourceStateDeleted, h.row(h.ref("removed")).State)
	require.EqualValues(t, 5, *h.row(h.ref("elsewhere")).Revision)
}

// A process may outlive a restore of the database, in which the pass has recorded nothing, or less.
func TestAPassDeletesNothingInARestoredDatabase(t *testing.T) {
	t.Parallel()
	for name, lost := range map[string]string{
		"to before the pass": "DELETE FROM delta_pass",
		"to a page of it":    "DELETE FROM delta_listing",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var h *harness
			listings := 0
			h = newMirror(t, func() []activities.Listed {
				all := []activities.Listed{{Params: object("a", "1")}}
				if listings++; listings == 1 {
					all = append(all, activities.Listed{Params: object("b", "1")})
				}
				return all
			})
			require.Equal(t, 2, h.completePass().Listed)
			_, err := h.Pool.Exec(t.Context(), "UPDATE delta_resource SET state = 'synced'")
			require.NoError(t, err)
			ended := make(chan struct{})
			inform := h.handler.inform
			h.handler.inform = func(ctx context.Context, options deltatype.InformOptions) <-chan activities.Listed {
				all := make(chan activities.Listed)
				go func() {
					defer close(all)
					for o := range inform(ctx, options) {
						all <- o
					}
					// The page is written before the listing ends.
					for recorded := 0; recorded == 0 && ctx.Err() == nil; time.Sleep(time.Millisecond) {
						_ = h.Pool.QueryRow(ctx, "SELECT count(*) FROM delta_listing WHERE object_id = 'a'").Scan(&recorded)
					}
					_, err := h.Pool.Exec(ctx, lost)
					if err == nil {
						close(ended)
					}
				}()
				return all
			}
			_, err = h.pass(func(in *activities.InformInput) { in.Pass = uuid.NewString() })
			require.ErrorContains(t, err, "it was restored from a backup meanwhile")
			<-ended
			for _, row := range h.allRows() {
				require.NotEqual(t, deltatype.ResourceStateDeleted, row.State)
			}
		})
	}
}
