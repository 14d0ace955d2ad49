package db_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// object returns an object for the tests: an id, and content that makes its hash.
func object(id, content string) deltatype.ObjectInformParams {
	encoded, err := json.Marshal(map[string]string{"id": id, "content": content})
	if err != nil {
		panic(err)
	}
	hash := sha256.Sum256(encoded)
	return deltatype.ObjectInformParams{Kind: "thing", ResourceID: id, EncodedObject: encoded, Hash: hash[:]}
}

var plain = db.InformOptions{DefaultMaxAttempts: 7}

// farAhead is a snapshot in which all transactions have ended.
const farAhead = "1000000000000:1000000000000:"

// informSet informs one object.
func informSet(t *testing.T, conn db.DBTX, o deltatype.ObjectInformParams, options db.InformOptions) *deltatype.ObjectInformResult {
	t.Helper()
	results, err := db.InformRetrying(context.Background(), conn, []deltatype.ObjectInformParams{o}, options)
	require.NoError(t, err)
	require.Len(t, results, 1)
	return results[0]
}

// informInSet informs one object beside another one: a set is written by another statement.
func informInSet(t *testing.T, conn db.DBTX, o deltatype.ObjectInformParams, options db.InformOptions) *deltatype.ObjectInformResult {
	t.Helper()
	beside := object("beside", "1")
	beside.Kind = "other"
	results, err := db.InformRetrying(context.Background(), conn, []deltatype.ObjectInformParams{beside, o}, options)
	require.NoError(t, err)
	require.Len(t, results, 2)
	return results[1]
}

// way informs one object.
type way = func(*testing.T, db.DBTX, deltatype.ObjectInformParams, db.InformOptions) *deltatype.ObjectInformResult

// eachWay runs a test for objects that are informed by themselves and in a set.
func eachWay(t *testing.T, test func(t *testing.T, inform way)) {
	t.Helper()
	t.Run("one", func(t *testing.T) {
		t.Parallel()
		test(t, informSet)
	})
	t.Run("set", func(t *testing.T) {
		t.Parallel()
		test(t, informInSet)
	})
}

// read reads a resource of the tests' kind.
func read(t *testing.T, conn db.DBTX, id string) *deltatype.ResourceRow {
	t.Helper()
	got, err := db.New().GetResource(context.Background(), conn, db.GetResourceParams{Kind: "thing", ObjectID: id})
	require.NoError(t, err)
	row, err := got.Resource.Row()
	require.NoError(t, err)
	return row
}

// set changes columns of one resource, beside Delta.
func set(t *testing.T, conn db.DBTX, id, assignments string) {
	t.Helper()
	tag, err := conn.Exec(context.Background(), "UPDATE delta_resource SET "+assignments+" WHERE object_id = $1", id)
	require.NoError(t, err)
	require.EqualValues(t, 1, tag.RowsAffected())
}

func isDeadlock(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "40P01"
}
