package db_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/delta/deltatype"
)

func TestTheMostUrgentIsDispatchedFirstAndNothingOfAPausedKind(t *testing.T) {
	t.Parallel()
	env := deltatest.New(t)
	for _, priority := range []int16{4, 3, 2} { // the least urgent is the oldest
		var set []deltatype.ObjectInformParams
		for i := range 10 {
			o := object(fmt.Sprintf("p%d-%d", priority, i), "1")
			o.Priority = priority
			set = append(set, o)
		}
		_, err := db.InformRetrying(t.Context(), env.Pool, set, plain)
		require.NoError(t, err)
	}
	lease := func() (ids []string) {
		rows, err := db.New().LeaseDue(t.Context(), env.Pool, db.LeaseDueParams{
			Kind: "thing", Lease: time.Hour, Longest: time.Hour, Batch: 15, Priorities: allPriorities, FullNamespaces: []string{},
		})
		require.NoError(t, err)
		for _, r := range rows {
			ids = append(ids, r.ObjectID)
		}
		return ids
	}
	require.NoError(t, db.New().PauseKind(t.Context(), env.Pool, db.PauseKindParams{Name: "thing", Paused: true}))
	require.Empty(t, lease())
	require.NoError(t, db.New().PauseKind(t.Context(), env.Pool, db.PauseKindParams{Name: "thing", Paused: false}))

	var urgent, middle int
	for _, id := range lease() {
		switch id[:2] {
		case "p2":
			urgent++
		case "p3":
			middle++
		}
	}
	require.Equal(t, 10, urgent)
	require.Equal(t, 5, middle)
	require.Len(t, lease(), 15)
	require.Empty(t, lease(), "what is leased is left alone")
}
