package db_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// standing is a row, and an object that is informed of it.
type standing struct {
	state, cause string
	rowRevision  *int64
	object       deltatype.ObjectInformParams
	// isOther is set for other content, isSeen for an ExpectedHash that is the row's, or none.
	isOther, isSeen bool
}

// allStandings are all combinations of what decides whether an object is written.
func allStandings() (all []standing) {
	n := func(v int64) *int64 { return &v }
	stored := object("", "stored").Hash
	states := [][2]string{
		{"scheduled", ""}, {"synced", ""}, {"degraded", "exhausted"}, {"degraded", "hopeless"}, {"deleted", "unlisted"}, {"deleted", "command"}, {"unknown", ""},
	}
	for _, state := range states {
		for _, rowRevision := range []*int64{nil, n(5)} {
			for _, content := range []string{"stored", "other"} {
				for _, revision := range []*int64{nil, n(4), n(5), n(6)} {
					for _, force := range []bool{false, true} {
						for _, namespace := range []string{"", "acme", "globex", "moved"} {
							for _, expected := range [][]byte{nil, stored, []byte("another"), {}} {
								for _, option := range []string{"", "tags", "tags, and Work", "attempts"} {
									o := object(fmt.Sprintf("%06d", len(all)), content)
									o.Hash = object("", content).Hash
									o.Revision, o.Force, o.ExpectedHash = revision, force, expected
									if o.Namespace = namespace; namespace == "moved" {
										o.Namespace, o.MoveNamespace = "globex", true
									}
									switch option {
									case "tags", "tags, and Work":
										o.Tags, o.SyncMetadata = []string{"new"}, option != "tags"
									case "attempts":
										o.MaxAttempts = 9
									}
									all = append(all, standing{state[0], state[1], rowRevision, o, content == "other", expected == nil || string(expected) == string(stored)})
								}
							}
						}
					}
				}
			}
		}
	}
	return all
}

func (s *standing) isRefused() bool { return s.object.Namespace == "globex" && !s.object.MoveNamespace }

func (s *standing) isStale() bool {
	return !s.object.Force && s.object.Revision != nil && s.rowRevision != nil && *s.object.Revision < *s.rowRevision
}

// isDue reports whether the object is to be written, apart from where its row is, and whether it was looked at.
func (s *standing) isDue(options db.InformOptions) bool {
	if s.isStale() || (s.cause == "command" && !options.Revive) {
		return false
	}
	settled := slices.Contains([]string{"degraded", "deleted", "unknown"}, s.state)
	return s.isOther || s.object.MoveNamespace || s.object.SyncMetadata || s.object.MaxAttempts == 9 || s.cause == "exhausted" || s.cause == "unlisted" ||
		(settled && options.Revive) || (s.state != "scheduled" && options.ProcessExisting)
}

// The statements that write rows and those that read unwritten rows have opposite conditions, in four places. An
// object that neither takes would be asked for again in vain; one that both take would be lost if it changed between the two.
func TestWhatIsNotWrittenIsKeptAndNothingElse(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	env := deltatest.New(t)
	all := allStandings()
	insertStandings(t, env, all)
	for _, options := range []db.InformOptions{
		plain, {DefaultMaxAttempts: 7, Revive: true}, {DefaultMaxAttempts: 7, ProcessExisting: true}, {DefaultMaxAttempts: 7, Revive: true, ProcessExisting: true},
	} {
		t.Run(fmt.Sprintf("revive %t, process existing %t", options.Revive, options.ProcessExisting), func(t *testing.T) {
			for page := range slices.Chunk(all, db.InformPage) {
				checkSet(t, env, page, options)
			}
			checkSingles(t, env, all, options)
		})
	}
}

func insertStandings(t *testing.T, env *deltatest.Env, all []standing) {
	t.Helper()
	stored := object("", "stored")
	_, err := env.Pool.CopyFrom(t.Context(), pgx.Identifier{"delta_resource"},
		[]string{"kind", "object_id", "object", "hash", "namespace", "state", "cause", "revision", "max_attempts", "tags"},
		pgx.CopyFromSlice(len(all), func(i int) ([]any, error) {
			s := all[i]
			var cause any
			if s.cause != "" {
				cause = s.cause
			}
			return []any{"thing", s.object.ResourceID, stored.EncodedObject, stored.Hash, "acme", s.state, cause, s.rowRevision, 7, []string{"old"}}, nil
		}))
	require.NoError(t, err)
}

func rolledBack(t *testing.T, env *deltatest.Env, do func(tx pgx.Tx)) {
	t.Helper()
	tx, err := env.Pool.Begin(context.Background())
	require.NoError(t, err)
	defer tx.Rollback(context.Background()) //nolint:errcheck // the test wants the rollback
	do(tx)
}

func checkSet(t *testing.T, env *deltatest.Env, page []standing, options db.InformOptions) {
	t.Helper()
	set := make([]*deltatype.ObjectInformParams, len(page))
	for i := range page {
		set[i] = &page[i].object
	}
	params := db.InformParams(set, options)
	kept, written := map[string]bool{}, map[string]bool{}
	rolledBack(t, env, func(tx pgx.Tx) {
		rows, err := db.New().KeptResources(context.Background(), tx, db.KeptParams(params))
		require.NoError(t, err)
		for _, r := range rows {
			kept[r.ObjectID] = true
		}
		changed, err := db.New().InformResources(context.Background(), tx, params)
		require.NoError(t, err)
		for _, r := range changed {
			written[r.ObjectID] = true
		}
	})
	for i := range page {
		s := &page[i]
		id, due := s.object.ResourceID, s.isDue(options)
		require.Equal(t, !s.isRefused() && s.isSeen && due, written[id], "written: %+v", *s)
		require.Equal(t, s.isRefused() || (s.isSeen && !due), kept[id], "kept: %+v", *s)
	}
}

// checkSingles looks at some of them, since each is a statement.
func checkSingles(t *testing.T, env *deltatest.Env, all []standing, options db.InformOptions) {
	t.Helper()
	random := rand.New(rand.NewPCG(newSeed(t), 1))
	rolledBack(t, env, func(tx pgx.Tx) {
		for _, i := range random.Perm(len(all))[:1000] {
			s := &all[i]
			due := s.isDue(options)
			if !s.isRefused() && s.isSeen {
				got, err := db.New().GetResource(context.Background(), tx, db.GetResourceParams{Kind: "thing", ObjectID: s.object.ResourceID})
				require.NoError(t, err)
				require.Equal(t, due, db.NeedsWrite(&got.Resource, &s.object, options), "needed: %+v", *s)
			}
			result, err := db.InformOnce(context.Background(), tx, &s.object, options)
			require.NoError(t, err)
			if !s.isRefused() && !s.isSeen {
				require.Nil(t, result, "it changed since it was looked at: %+v", *s)
				continue
			}
			require.NotNil(t, result, "neither written nor kept: %+v", *s)
			require.Equal(t, s.isRefused(), result.Refused != nil, "refused: %+v", *s)
			require.Equal(t, !s.isRefused() && s.isStale(), result.Stale, "stale: %+v", *s)
			require.Equal(t, !s.isRefused() && due, result.Scheduled, "scheduled: %+v", *s)
		}
	})
}

// Versions of two tenants' objects say nothing of each other: the refusal comes first, and Compare is not called.
func TestAnObjectThatIsRefusedIsNeitherComparedNorStale(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, inform way) {
		t.Helper()
		env := deltatest.New(t)
		mine := revised("a", "5", 5)
		mine.Namespace = "acme"
		inform(t, env.Pool, mine, plain)
		set(t, env.Pool, "a", "state = 'deleted', cause = 'unlisted'")
		before := read(t, env.Pool, "a")
		theirs := comparedObject("a", 4, func() { t.Error("Compare is called with another tenant's object") })
		for _, o := range []deltatype.ObjectInformParams{revised("a", "4", 4), revised("a", "6", 6), theirs} {
			for _, force := range []bool{false, true} {
				o.Namespace, o.Force = "globex", force
				result := inform(t, env.Pool, o, db.InformOptions{DefaultMaxAttempts: 7, Revive: true})
				require.Error(t, result.Refused)
				require.False(t, result.Stale)
				require.False(t, result.Scheduled)
				require.Equal(t, before, read(t, env.Pool, "a"))
			}
		}
	})
}

// Of two tenants' objects with one id that are given together, neither is older.
func TestAnObjectIsNotStaleForTheSakeOfAnotherTenants(t *testing.T) {
	t.Parallel()
	env := deltatest.New(t)
	mine, theirs := revised("a", "mine", 3), revised("a", "theirs", 9)
	mine.Namespace, theirs.Namespace = "acme", "globex"
	informSet(t, env.Pool, mine, plain)
	mine.Revision, mine.Hash = revised("a", "", 4).Revision, []byte("changed")
	results, err := db.Inform(t.Context(), env.Pool, []deltatype.ObjectInformParams{theirs, mine}, plain)
	require.NoError(t, err)
	require.True(t, results[1].Scheduled)
	require.False(t, results[1].Stale)

	// An older one of the same tenant's is refused as the newer one is.
	older := theirs
	older.Revision = revised("a", "", 8).Revision
	results, err = db.Inform(t.Context(), env.Pool, []deltatype.ObjectInformParams{theirs, older}, plain)
	require.NoError(t, err)
	for _, r := range results {
		require.Error(t, r.Refused)
		require.False(t, r.Stale)
	}
}

func TestAStaleObjectBringsNothingBackAndAForcedOneDoes(t *testing.T) {
	t.Parallel()
	live := db.InformOptions{DefaultMaxAttempts: 7, Revive: true}
	for _, c := range []struct {
		row             string
		listed, revived bool // brought back by a listing, by an inform
	}{
		{"state = 'deleted', cause = 'unlisted'", true, true},
		{"state = 'deleted', cause = 'command'", false, true},
		{"state = 'deleted', cause = 'work'", false, true},
		{"state = 'degraded', cause = 'exhausted'", true, true},
		{"state = 'degraded', cause = 'hopeless'", true, true}, // its content changes
	} {
		t.Run(c.row, func(t *testing.T) {
			t.Parallel()
			eachWay(t, func(t *testing.T, inform way) {
				t.Helper()
				env := deltatest.New(t)
				for name, version := range map[string]func(n int) deltatype.ObjectInformParams{
					"revision": func(n int) deltatype.ObjectInformParams { return revised("revision", fmt.Sprint(n), int64(n)) },
					"compare":  func(n int) deltatype.ObjectInformParams { return comparedObject("compare", n, nil) },
				} {
					for options, back := range map[*db.InformOptions]bool{&plain: c.listed, &live: c.revived} {
						newest := version(5)
						newest.Force = true
						inform(t, env.Pool, newest, live)
						set(t, env.Pool, name, c.row)
						before := read(t, env.Pool, name)
						require.True(t, inform(t, env.Pool, version(4), *options).Stale)
						require.Equal(t, before, read(t, env.Pool, name), "a stale one")
						forced := version(4)
						forced.Force = true
						require.Equal(t, back, inform(t, env.Pool, forced, *options).Scheduled, "a forced one")
					}
				}
			})
		})
	}
}
