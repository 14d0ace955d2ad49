package delta

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/db"
)

func TestALeaseLooksAtCrowdedNamespacesByThemselves(t *testing.T) {
	t.Parallel()
	began := time.Now().Add(-time.Hour)
	at := func(minute time.Duration) time.Time { return began.Add(minute * time.Minute) }
	c := crowd{
		first: map[string]*[6]time.Time{"a": {3: at(1)}, "b": {1: at(3), 3: at(2)}}, since: at(50), notedAt: time.Now(), took: time.Millisecond,
	}
	room := leaseRoom{full: []string{"a"}, limited: []string{"b", "quiet"}, rows: []int32{2, 7}}
	require.Equal(t, at(2), c.firstDue(room), "a has no room")
	plan := c.plan([]int16{1, 2, 3}, room, 500)
	require.Equal(t, leasePlan{
		priorities: []int16{1, 1, 2, 2, 3, 3}, namespaces: []string{"b", "", "b", "", "b", ""},
		since: []time.Time{at(3), at(50), at(50), at(50), at(2), at(50)}, most: []int32{2, 500, 2, 500, 2, 500}, passedBy: plan.passedBy,
	}, plan, "b has few rows of priority 2, or none, but may get some")
	require.ElementsMatch(t, []string{"a", "a", "b"}, plan.passedBy, "both are passed by elsewhere")
	require.Equal(t, []string{"a"}, room.full)

	batch := leaseRoom{full: []string{"a"}}
	require.EqualValues(t, 500, c.plan([]int16{3}, batch, 500).most[0], "members of a batch wait in it")

	// A crowd is left as it is while there is as much of it as there is room, and forgotten when there is less.
	rows := []db.LeaseDueRow{{Namespace: "b"}, {Namespace: "b"}, {Namespace: "c"}}
	c.noteLease(plan, rows, 500, time.Millisecond)
	require.True(t, c.isValid())
	c.noteLease(plan, rows[:1], 1, time.Millisecond)
	require.True(t, c.isValid(), "the lease was full before")
	c.noteLease(plan, rows[1:], 500, time.Millisecond)
	require.False(t, c.isValid())
	require.Zero(t, c.firstDue(room))
	require.Equal(t, leasePlan{
		priorities: []int16{3}, namespaces: []string{""}, since: []time.Time{{}}, most: []int32{500}, passedBy: []string{"a"},
	}, c.plan([]int16{3}, room, 500))
}

func TestACrowdIsValidForAWhile(t *testing.T) {
	t.Parallel()
	room := leaseRoom{full: []string{"a"}}
	for _, one := range []struct {
		ago, took time.Duration
		isValid   bool
	}{
		{crowdValidity / 2, time.Millisecond, true},
		{crowdValidity + time.Second, time.Millisecond, false},
		{crowdValidity + time.Second, time.Second, true},
		{crowdShare*time.Second + time.Second, time.Second, false},
	} {
		c := crowd{since: time.Now(), notedAt: time.Now().Add(-one.ago), took: one.took}
		require.Equal(t, one.isValid, c.isValid(), "%+v", one)
		require.Equal(t, !one.isValid, c.firstDue(room).IsZero(), "%+v", one)
	}
}
