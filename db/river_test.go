package db_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/delta/deltatype"
)

const hashOfTheOriginal = `hash = 'river:'::bytea || sha256('as the original wrote the object')`

func TestARowWithTheOriginalsHashIsTheSameIfItsObjectIs(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, inform way) {
		t.Helper()
		env := deltatest.New(t)
		first := object("a", "1")
		first.EncodedObject = []byte(`{"b": 1e21, "a": [1.50, "<ü>"], "c": null}`)
		inform(t, env.Pool, first, plain)
		set(t, env.Pool, "a", hashOfTheOriginal)
		before := read(t, env.Pool, "a")

		same := object("a", "other hash")
		same.EncodedObject = []byte(`{"a":[1.5,"\u003cü\u003e"],"b":1000000000000000000000,"c":null}`)
		for range 2 {
			result := inform(t, env.Pool, same, plain)
			require.False(t, result.Scheduled)
			require.Equal(t, before, read(t, env.Pool, "a"), "it is not even written")
		}

		// With other options it is a change, and gets a hash of ours.
		same.Namespace, same.MoveNamespace = "new", true
		require.True(t, inform(t, env.Pool, same, plain).Scheduled)
		require.Equal(t, same.Hash, read(t, env.Pool, "a").Hash)
		require.False(t, inform(t, env.Pool, same, plain).Scheduled)

		// So it is with another object.
		set(t, env.Pool, "a", hashOfTheOriginal)
		changed := same
		changed.EncodedObject = []byte(`{"a":[1.5,"<ü>"],"b":1000000000000000000001,"c":null}`)
		require.True(t, inform(t, env.Pool, changed, plain).Scheduled)
		require.Equal(t, changed.Hash, read(t, env.Pool, "a").Hash)
	})
}

func TestASoftDeletedRowWithTheOriginalsHashStaysSo(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, inform way) {
		t.Helper()
		env := deltatest.New(t)
		inform(t, env.Pool, object("a", "1"), plain)
		set(t, env.Pool, "a", "state = 'deleted', "+hashOfTheOriginal)
		before := read(t, env.Pool, "a")
		require.False(t, inform(t, env.Pool, object("a", "2"), plain).Scheduled)
		require.Equal(t, before, read(t, env.Pool, "a"))
		require.True(t, inform(t, env.Pool, object("a", "2"), db.InformOptions{Revive: true, DefaultMaxAttempts: 7}).Scheduled)
	})
}

// Pages of rows that came over and rows that did not.
func TestMixedSetsAreToldApart(t *testing.T) {
	t.Parallel()
	env := deltatest.New(t)
	params := riverPage(20, "1")
	_, err := db.InformRetrying(t.Context(), env.Pool, params, plain)
	require.NoError(t, err)
	_, err = env.Pool.Exec(t.Context(), "UPDATE delta_resource SET "+hashOfTheOriginal+" WHERE id % 2 = 0")
	require.NoError(t, err)
	results, err := db.InformRetrying(t.Context(), env.Pool, params, plain)
	require.NoError(t, err)
	for _, r := range results {
		require.False(t, r.Scheduled)
	}
	results, err = db.InformRetrying(t.Context(), env.Pool, riverPage(20, "2"), plain)
	require.NoError(t, err)
	for _, r := range results {
		require.True(t, r.Scheduled)
	}
}

func riverPage(n int, content string) []deltatype.ObjectInformParams {
	params := make([]deltatype.ObjectInformParams, n)
	for i := range params {
		params[i] = object(fmt.Sprint(i), content)
	}
	return params
}
