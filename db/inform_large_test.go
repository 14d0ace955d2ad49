package db_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// A set that takes several statements has the same results as one that takes one.
func TestALargeSetIsWrittenAllOrNothing(t *testing.T) {
	t.Parallel()
	env := deltatest.New(t)
	const size = 2*db.InformPage + 3 // three statements
	large := func(content func(i int) string) (all []deltatype.ObjectInformParams) {
		for i := range size {
			all = append(all, object(fmt.Sprintf("%05d", size-i), content(i)))
		}
		return all
	}
	count := func() (rows, changed int) {
		err := env.Pool.QueryRow(t.Context(), "SELECT count(*), count(*) FILTER (WHERE generation = 2) FROM delta_resource").Scan(&rows, &changed)
		require.NoError(t, err)
		return rows, changed
	}

	// The object in the last statement is none that Postgres takes.
	broken := large(func(int) string { return "1" })
	broken[0].EncodedObject = []byte(`{"zero": "\u0000"}`)
	_, err := db.InformRetrying(t.Context(), env.Pool, broken, plain)
	require.ErrorContains(t, err, "Unicode")
	rows, _ := count()
	require.Zero(t, rows, "nothing of the set is left")

	first := large(func(int) string { return "1" })
	_, err = db.InformRetrying(t.Context(), env.Pool, first, plain)
	require.NoError(t, err)
	rows, _ = count()
	require.Equal(t, size, rows)

	// Every third changes.
	second := large(func(i int) string { return fmt.Sprint(1 + (i%3)/2) })
	results, err := db.InformRetrying(t.Context(), env.Pool, second, plain)
	require.NoError(t, err)
	for i, r := range results {
		require.Equal(t, second[i].ResourceID, r.Resource.ObjectID)
		require.Equal(t, i%3 == 2, r.Scheduled, i)
		require.True(t, r.AlreadyExists)
		require.JSONEq(t, string(second[i].EncodedObject), string(r.Resource.EncodedObject))
	}
	rows, changed := count()
	require.Equal(t, size, rows)
	require.Equal(t, size/3, changed)

	// In a transaction of the caller's it is that one's.
	tx, err := env.Pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = db.Inform(t.Context(), tx, large(func(int) string { return "3" }), plain)
	require.NoError(t, err)
	require.NoError(t, tx.Rollback(t.Context()))
	_, changed = count()
	require.Equal(t, size/3, changed)
}

// Large objects are written by more statements, each of which Postgres and the client hold in memory.
func TestAPageIsBoundByBytesToo(t *testing.T) {
	t.Parallel()
	env := deltatest.New(t)
	text := strings.Repeat("x", 1<<20)
	var set []deltatype.ObjectInformParams
	for i := range 20 {
		o := object(fmt.Sprintf("%02d", i), "1")
		o.EncodedObject = []byte(`{"text": "` + text + `"}`)
		set = append(set, o)
	}
	counted := &countedStatements{DBTX: env.Pool}
	results, err := db.Inform(t.Context(), counted, set, plain)
	require.NoError(t, err)
	require.Len(t, results, 20)
	require.Equal(t, 20, counted.objects)
	require.Equal(t, 3, counted.statements, "7 MiB each, and what is left")

	_, err = db.Inform(t.Context(), counted, set[:1], plain)
	require.NoError(t, err, "one is taken however large it is")
}

// countedStatements counts statements that write objects, and the objects. It is no pool, so that no transaction is begun on it.
type countedStatements struct {
	db.DBTX
	statements, objects int
}

func (c *countedStatements) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if strings.Contains(sql, "name: InformResources ") {
		c.statements++
		for _, arg := range args {
			if objects, ok := arg.([][]byte); ok {
				c.objects += len(objects)
				break
			}
		}
	}
	return c.DBTX.Query(ctx, sql, args...)
}
