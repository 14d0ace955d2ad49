package db_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/delta/deltatype"
)

func TestAnInformMovesNoRowToAnotherNamespaceUnlessItSaysSo(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, inform way) {
		t.Helper()
		env := deltatest.New(t)
		mine, theirs := object("1001", "mine"), object("1001", "theirs")
		mine.Namespace, theirs.Namespace = "acme", "globex"
		inform(t, env.Pool, mine, plain)
		for _, state := range deltatype.ResourceStates() {
			_, err := env.Pool.Exec(t.Context(), "UPDATE delta_resource SET state = $1::text::delta_resource_state", string(state))
			require.NoError(t, err)
			before := read(t, env.Pool, "1001")
			for _, options := range []db.InformOptions{plain, {DefaultMaxAttempts: 10, Revive: true}, {DefaultMaxAttempts: 10, ProcessExisting: true}} {
				result := inform(t, env.Pool, theirs, options)
				require.Equal(t, &deltatype.NamespaceError{Kind: mine.Kind, ObjectID: "1001", Namespace: "acme", Given: "globex"}, result.Refused, state)
				require.False(t, result.Scheduled)
				require.Equal(t, "acme", result.Resource.Namespace)
				require.Equal(t, before, read(t, env.Pool, "1001"), state)
			}
		}

		theirs.MoveNamespace = true
		result := inform(t, env.Pool, theirs, db.InformOptions{DefaultMaxAttempts: 10, Revive: true})
		require.NoError(t, result.Refused)
		require.True(t, result.Scheduled)
		require.Equal(t, "globex", read(t, env.Pool, "1001").Namespace)
		result = inform(t, env.Pool, object("1001", "of no namespace"), plain)
		require.NoError(t, result.Refused)
		require.Equal(t, "globex", read(t, env.Pool, "1001").Namespace)
	})
}

func TestOfASetOnlyTheObjectsAreRefusedThatWouldMove(t *testing.T) {
	t.Parallel()
	env := deltatest.New(t)
	var set []deltatype.ObjectInformParams
	for _, id := range []string{"a", "b", "c", "d"} {
		o := object(id, "1")
		o.Namespace = "acme"
		set = append(set, o)
	}
	_, err := db.Inform(t.Context(), env.Pool, set, plain)
	require.NoError(t, err)
	for i := range set {
		set[i].Hash = object("x", "2").Hash
	}
	set[1].Namespace, set[2].Namespace = "globex", "globex"
	set[2].MoveNamespace = true
	results, err := db.Inform(t.Context(), env.Pool, set, plain)
	require.NoError(t, err)
	for i, r := range results {
		require.Equal(t, i == 1, r.Refused != nil, set[i].ResourceID)
		require.Equal(t, i != 1, r.Scheduled, set[i].ResourceID)
	}
	require.EqualValues(t, 1, read(t, env.Pool, "b").Generation)
	require.Equal(t, "globex", read(t, env.Pool, "c").Namespace)
}
