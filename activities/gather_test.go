package activities

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/db"
)

// runGather runs gatherOutcomes with a channel of outcomes. It returns when the sets were written, with the members of
// each. locked reports which of a set are locked.
func runGather(t *testing.T, send func(one func(id int64)), locked func(id int64, at time.Duration) bool) (sets map[time.Duration][]int64, left []int64) {
	t.Helper()
	began, results := time.Now(), make(chan *claimed)
	sets = map[time.Duration][]int64{}
	go func() {
		defer close(results)
		send(func(id int64) { results <- &claimed{worked: &db.Resource{ID: id}} })
	}()
	for _, one := range gatherOutcomes(results, func(set []*claimed) (left []*claimed) {
		at := time.Since(began)
		require.NotEmpty(t, set)
		for _, one := range set {
			sets[at] = append(sets[at], one.worked.ID)
			if locked != nil && locked(one.worked.ID, at) {
				left = append(left, one)
			}
		}
		return left
	}) {
		left = append(left, one.worked.ID)
	}
	return sets, left
}

// A set is of what comes within a time after its first, wherever in the attempt that is.
func TestOutcomesThatComeTogetherAreWrittenTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sets, left := runGather(t, func(one func(int64)) {
			time.Sleep(flushInterval - 10*time.Millisecond)
			one(1)
			time.Sleep(20 * time.Millisecond)
			one(2)
			time.Sleep(time.Minute)
			one(3)
		}, nil)
		require.Empty(t, left)
		require.Equal(t, map[time.Duration][]int64{
			2*flushInterval - 10*time.Millisecond: {1, 2}, flushInterval + 10*time.Millisecond + time.Minute: {3}, // the last one at the end
		}, sets)
	})
}

func TestManyOutcomesAreWrittenAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sets, _ := runGather(t, func(one func(int64)) {
			for id := range int64(maxFlush + 1) {
				one(id)
			}
			time.Sleep(time.Minute)
		}, nil)
		require.Len(t, sets[0], maxFlush)
		require.Equal(t, []int64{maxFlush}, sets[flushInterval])
		require.Len(t, sets, 2)
	})
}

// What is locked is written again, however often others come meanwhile, and keeps none of them back.
func TestLockedOutcomesAreWrittenAgainAfterAWhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sets, left := runGather(t, func(one func(int64)) {
			one(1)
			one(2)
			for id := range int64(9) {
				time.Sleep(300 * time.Millisecond)
				one(10 + id)
			}
		}, func(id int64, at time.Duration) bool { return id == 2 || (id == 1 && at < 2*lockedInterval) })
		require.Equal(t, []int64{2}, left)
		require.Equal(t, []int64{1, 2}, sets[flushInterval])
		require.Equal(t, []int64{1, 2}, sets[flushInterval+lockedInterval])
		require.Equal(t, []int64{1, 2}, sets[flushInterval+2*lockedInterval])
		require.Equal(t, []int64{10}, sets[300*time.Millisecond+flushInterval])
		require.Equal(t, []int64{11}, sets[600*time.Millisecond+flushInterval])
	})
}
