package db_test

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// revised is an object with a revision.
func revised(id, content string, revision int64) deltatype.ObjectInformParams {
	o := object(id, content)
	o.Revision = &revision
	return o
}

// comparedObject returns an object with a number as its content, that compares itself by it. It calls between while its
// code runs.
func comparedObject(id string, number int, between func()) deltatype.ObjectInformParams {
	o := object(id, strconv.Itoa(number))
	o.Compare = func(stored []byte, _ int) (int, bool) {
		if between != nil {
			between()
		}
		var other struct {
			Content int `json:"content,string"`
		}
		if json.Unmarshal(stored, &other) != nil {
			return 0, false
		}
		return number - other.Content, true
	}
	return o
}

func TestAnOlderRevisionIsStaleAndChangesNothing(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, inform way) {
		t.Helper()
		env := deltatest.New(t)
		inform(t, env.Pool, revised("a", "two", 2), plain)
		for _, state := range []string{"scheduled", "synced", "degraded", "deleted"} {
			set(t, env.Pool, "a", "state = '"+state+"'")
			before := read(t, env.Pool, "a")
			older := revised("a", "one", 1)
			older.Namespace, older.MoveNamespace, older.Tags = "other", true, []string{"older"}
			result := inform(t, env.Pool, older, db.InformOptions{DefaultMaxAttempts: 7, Revive: true})
			require.True(t, result.Stale, state)
			require.False(t, result.Scheduled, state)
			require.True(t, result.AlreadyExists, state)
			require.EqualValues(t, 2, *result.Resource.Revision, state)
			require.Equal(t, before, read(t, env.Pool, "a"), state)
		}
		set(t, env.Pool, "a", "state = 'synced'")

		// With the same revision, the content decides; a newer one is taken, and one that does not say is, too.
		same := inform(t, env.Pool, revised("a", "two and more", 2), plain)
		require.True(t, same.Scheduled)
		require.False(t, same.Stale)
		require.False(t, inform(t, env.Pool, revised("a", "two and more", 2), plain).Scheduled)
		require.True(t, inform(t, env.Pool, revised("a", "three", 3), plain).Scheduled)
		require.EqualValues(t, 3, *read(t, env.Pool, "a").Revision)

		// When it is forced, the older object replaces the newer one.
		forced := revised("a", "one", 1)
		forced.Force = true
		require.True(t, inform(t, env.Pool, forced, plain).Scheduled)
		require.EqualValues(t, 1, *read(t, env.Pool, "a").Revision)
		require.True(t, inform(t, env.Pool, object("a", "unversioned"), plain).Scheduled)
		require.Nil(t, read(t, env.Pool, "a").Revision)
	})
}

// A newer revision that changed nothing counts all the same: what lies between is stale from now on.
func TestANewerRevisionOfTheSameContentIsNotedWithoutASync(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, inform way) {
		t.Helper()
		env := deltatest.New(t)
		inform(t, env.Pool, revised("a", "x", 1), plain)
		result := inform(t, env.Pool, revised("a", "x", 3), plain)
		require.False(t, result.Scheduled)
		require.False(t, result.Stale)
		require.EqualValues(t, 3, *result.Resource.Revision)
		require.EqualValues(t, 1, read(t, env.Pool, "a").Generation)
		require.True(t, inform(t, env.Pool, revised("a", "y", 2), plain).Stale)
		require.Equal(t, object("a", "x").Hash, read(t, env.Pool, "a").Hash)
	})
}

func TestObjectsThatCompareThemselvesAreOrderedByTheSign(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, inform way) {
		t.Helper()
		env := deltatest.New(t)
		require.True(t, inform(t, env.Pool, comparedObject("a", 2, nil), plain).Scheduled)
		older := inform(t, env.Pool, comparedObject("a", 1, nil), plain)
		require.True(t, older.Stale)
		require.False(t, older.Scheduled)
		require.Equal(t, object("a", "2").Hash, older.Resource.Hash)

		// The same but for noise is left alone, as it is stored; its tags are taken.
		noise := comparedObject("a", 2, nil)
		noise.EncodedObject, noise.Hash, noise.Tags = []byte(`{"id":"a","content":"2","noise":1}`), []byte("noise"), []string{"new"}
		same := inform(t, env.Pool, noise, plain)
		require.False(t, same.Scheduled)
		require.False(t, same.Stale)
		row := read(t, env.Pool, "a")
		require.EqualValues(t, 1, row.Generation)
		require.Equal(t, object("a", "2").Hash, row.Hash)
		require.Equal(t, []string{"new"}, row.Tags)

		require.True(t, inform(t, env.Pool, comparedObject("a", 3, nil), plain).Scheduled)
		forced := comparedObject("a", 1, nil)
		forced.Force = true
		require.True(t, inform(t, env.Pool, forced, plain).Scheduled)
		require.Equal(t, object("a", "1").Hash, read(t, env.Pool, "a").Hash)

		// Where they cannot be compared, the hash decides.
		set(t, env.Pool, "a", `object = '{"content": "none"}', hash = 'none'`)
		require.True(t, inform(t, env.Pool, comparedObject("a", 0, nil), plain).Scheduled)
	})
}

// What is informed between the look at a row and the write is neither undone nor overtaken.
func TestARowThatChangesBetweenTheLookAndTheWriteIsComparedAgain(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		first, second, between int // content of the row, of what is informed, and of what is informed between
		stale                  bool
	}{
		"the same, and a newer one between":  {1, 1, 2, true},
		"newer, and a newer one between":     {1, 2, 3, true},
		"newest, and a newer one between":    {1, 3, 2, false},
		"new, and made by another between":   {0, 1, 2, true},
		"newer, and removed between":         {1, 2, -1, false},
		"the same, and removed between":      {1, 1, -1, false},
		"new, and an older one made between": {0, 2, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachWay(t, func(t *testing.T, informs way) {
				t.Helper()
				env := deltatest.New(t)
				if c.first > 0 {
					informSet(t, env.Pool, object("a", strconv.Itoa(c.first)), plain)
				}
				looked := 0
				between := func() {
					switch looked++; {
					case looked > 1:
					case c.between > 0:
						informSet(t, env.Pool, object("a", strconv.Itoa(c.between)), plain)
					default:
						_, err := env.Pool.Exec(context.Background(), "DELETE FROM delta_resource WHERE object_id = 'a'")
						require.NoError(t, err)
					}
				}
				o := comparedObject("a", c.second, between)
				var conn db.DBTX = env.Pool
				if c.first == 0 {
					conn = &afterLook{DBTX: env.Pool, do: between}
				}
				result := informs(t, conn, o, plain)
				require.Equal(t, c.stale, result.Stale)
				want := strconv.Itoa(max(c.second, c.between))
				require.Equal(t, object("a", want).Hash, read(t, env.Pool, "a").Hash, "an older object was written over a newer one")
			})
		})
	}
}

// afterLook runs something between the statement that looks at the rows and the first that writes.
type afterLook struct {
	db.DBTX
	do func()
}

func (c *afterLook) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if do := c.do; strings.Contains(sql, "InformResource") && do != nil {
		c.do = nil
		do()
	}
	return c.DBTX.Query(ctx, sql, args...)
}

func TestOfAnObjectThatIsGivenTwiceTheNewerCounts(t *testing.T) {
	t.Parallel()
	for name, version := range map[string]func(n int) deltatype.ObjectInformParams{
		"revision": func(n int) deltatype.ObjectInformParams { return revised("a", strconv.Itoa(n), int64(n)) },
		"compare":  func(n int) deltatype.ObjectInformParams { return comparedObject("a", n, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := deltatest.New(t)
			results, err := db.Inform(t.Context(), env.Pool, []deltatype.ObjectInformParams{version(2), version(3), version(1)}, plain)
			require.NoError(t, err)
			require.Equal(t, object("a", "3").Hash, read(t, env.Pool, "a").Hash)
			for i, stale := range []bool{false, false, true} {
				require.Equal(t, stale, results[i].Stale, i)
				require.Equal(t, !stale, results[i].Scheduled, i)
				require.Equal(t, object("a", "3").Hash, results[i].Resource.Hash)
			}
		})
	}
}

// Informs that share a statement do not wait for a row that a transaction holds and that has only tags to write.
func TestANoteThatWaitsForALockIsLeftToItsCaller(t *testing.T) {
	t.Parallel()
	env := deltatest.New(t)
	informSet(t, env.Pool, object("held", "1"), plain)
	informSet(t, env.Pool, object("free", "1"), plain)
	tx, err := env.Pool.Begin(t.Context())
	require.NoError(t, err)
	defer tx.Rollback(context.Background()) //nolint:errcheck // ends the lock
	_, err = tx.Exec(t.Context(), "SELECT FROM delta_resource WHERE object_id = 'held' FOR UPDATE")
	require.NoError(t, err)

	held := object("held", "1")
	held.Tags = []string{"new"}
	options := db.InformOptions{DefaultMaxAttempts: 7, LockTimeout: 10 * time.Millisecond}
	results, err := db.InformRetrying(t.Context(), env.Pool, []deltatype.ObjectInformParams{object("free", "2"), held}, options)
	require.NoError(t, err)
	require.True(t, results[0].Scheduled)
	require.Nil(t, results[1])
	require.NoError(t, tx.Rollback(t.Context()))
	require.Equal(t, []string{"new"}, informSet(t, env.Pool, held, options).Resource.Tags)
}

// Outside a transaction each statement commits by itself: what was written is said to be, although a later statement had to be repeated.
func TestWhatWasWrittenIsSaidToBeAlthoughANoteIsRepeated(t *testing.T) {
	t.Parallel()
	env := deltatest.New(t)
	informSet(t, env.Pool, object("tagged", "1"), plain)
	tagged := object("tagged", "1")
	tagged.Tags = []string{"new"}
	conn := &failsOnce{DBTX: env.Pool, statement: "NoteResources"}
	results, err := db.InformRetrying(t.Context(), conn, []deltatype.ObjectInformParams{object("new", "1"), tagged}, plain)
	require.NoError(t, err)
	require.True(t, conn.failed)
	require.True(t, results[0].Scheduled)
	require.False(t, results[0].AlreadyExists)
	require.Equal(t, []string{"new"}, results[1].Resource.Tags)
}

// failsOnce has a statement end in a deadlock the first time.
type failsOnce struct {
	db.DBTX
	statement string
	failed    bool
}

func (c *failsOnce) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if strings.Contains(sql, c.statement) && !c.failed {
		c.failed = true
		return nil, &pgconn.PgError{Code: "40P01"}
	}
	return c.DBTX.Query(ctx, sql, args...)
}
