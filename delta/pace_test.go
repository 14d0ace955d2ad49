package delta

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/activities"
)

// paced is the pace of a kind in automatic mode, with a clock of the test.
type paced struct {
	*pace
	clock time.Time
}

func newPaced(parallelism int) *paced {
	p := &paced{pace: newPace(parallelism, false), clock: time.Now()}
	p.now = func() time.Time { return p.clock }
	return p
}

// pass advances the clock.
func (p *paced) pass(d time.Duration) { p.clock = p.clock.Add(d) }

// worked wakes n singles, whose attempts end at once.
func (p *paced) worked(n int) {
	p.countWoken(n)
	for range n {
		p.Attempted()
	}
}

func TestAFewResourcesAreSinglesBeforeAnyMeasurement(t *testing.T) {
	t.Parallel()
	p := newPaced(8)
	require.Equal(t, 16, p.allowedSingles())
	p.countWoken(12)
	require.Equal(t, 4, p.allowedSingles())
	p.countWoken(4)
	require.Zero(t, p.allowedSingles())
	p.countWoken(10) // by a lease in progress
	require.Zero(t, p.allowedSingles())
	p.Attempted()
	require.Zero(t, p.allowedSingles())
	for range 25 {
		p.Attempted()
	}
	require.Equal(t, 16, p.allowedSingles())
	p.Attempted() // of a resource that another client has woken
	require.Equal(t, 16, p.allowedSingles())
}

func TestFailedWakeUpsTakeNoRoom(t *testing.T) {
	t.Parallel()
	p := newPaced(8)
	for range 10 {
		p.countWoken(16)
		require.Zero(t, p.allowedSingles())
		p.uncountWoken(5)
		require.Equal(t, 5, p.allowedSingles())
		p.uncountWoken(11)
		require.Equal(t, 16, p.allowedSingles())
	}
	p.countWoken(3)
	p.Attempted() // the start had an effect, although the call failed
	p.uncountWoken(3)
	require.Equal(t, 16, p.allowedSingles())
}

func TestHalfASecondOfWorkBoundsTheSingles(t *testing.T) {
	t.Parallel()
	for worked, singles := range map[int]int{
		0: 16, 1: 16, 159: 16, 160: 16, 169: 16, 170: 17, 1000: 100, 2550: 255, 2559: 255, 2560: 256, 2570: 256, 100_000: 256,
	} {
		p := newPaced(8)
		p.worked(worked)
		require.Equal(t, singles, p.allowedSingles(), "%d within five seconds", worked)
		p.countWoken(10)
		require.Equal(t, singles-10, p.allowedSingles(), "calls in progress are among them")
		require.LessOrEqual(t, len(p.ended), 5120, "the stored wake-ups have a bound")

		p.pass(paceOver)
		require.Equal(t, singles-10, p.allowedSingles(), "%d five seconds ago", worked)
		p.pass(1)
		require.Equal(t, 16-10, p.allowedSingles(), "older attempts do not count")
	}
}

// The pace does not learn of an attempt that ended on another client.
func TestWakeUpsAreForgottenAfterALease(t *testing.T) {
	t.Parallel()
	p := newPaced(8)
	p.countWoken(10)
	p.pass(time.Second)
	p.countWoken(6)
	require.Zero(t, p.allowedSingles())
	p.pass(activities.DispatchLease - time.Second)
	require.Zero(t, p.allowedSingles())
	p.pass(1)
	require.Equal(t, 10, p.allowedSingles())
	p.pass(time.Second)
	require.Equal(t, 16, p.allowedSingles())
}

func TestABatchHasTwoSecondsOfWork(t *testing.T) {
	t.Parallel()
	require.Equal(t, 100, newPaced(8).nextBatchSize(), "nothing is known yet")
	for _, c := range []struct {
		parallelism int
		took        time.Duration
		size        int
	}{
		{8, 0, 1000},
		{8, time.Millisecond, 1000},
		{8, 16 * time.Millisecond, 1000},
		{8, 20 * time.Millisecond, 800},
		{8, 100 * time.Millisecond, 160},
		{8, time.Second, 16},
		{8, time.Hour, 16},
		{1, 10 * time.Millisecond, 200},
		{1, time.Second, 16},
		{100, time.Second, 200},
		{1000, time.Second, 1000},
	} {
		p := newPaced(c.parallelism)
		for range 20 {
			p.Called(c.took)
		}
		require.Equal(t, c.size, p.nextBatchSize(), "%d calls of %s at once", c.parallelism, c.took)
	}
}

func TestBatchesFollowUntilOneHasNoMoreThanSinglesTake(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		ended          int // within five seconds, before
		leased, wanted int
		goesOn         bool
	}{
		{0, 100, 100, true},
		{0, 50, 100, true},
		{0, 1000, 1000, true},
		{0, 17, 100, true},
		{0, 17, 1000, true},
		{0, 16, 100, false},
		{0, 1, 1000, false},
		{0, 0, 100, false},
		{0, 0, 1, false},
		{1000, 101, 1000, true},
		{1000, 100, 1000, false},
		{0, 16, 32, true},
		{0, 15, 32, false},
		{0, 1, 1, true}, // half full: Work is slow, and the due rows fill its capacity
	} {
		p := newPaced(8)
		p.worked(c.ended)
		room := p.allowedSingles()
		p.noteBatch(1000, 1000)
		require.Zero(t, p.allowedSingles())
		p.noteBatch(c.leased, c.wanted)
		if c.goesOn {
			room = 0
		}
		require.Equal(t, room, p.allowedSingles(), "%d of %d", c.leased, c.wanted)
	}
}

// Whatever happens in whatever order, both sizes stay within their bounds, and so does the number of singles in progress.
func TestPaceStaysWithinItsBounds(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 50 {
		p := newPaced(1 + r.IntN(1000))
		for range 200 {
			switch r.IntN(7) {
			case 0, 1:
				size := p.allowedSingles()
				require.LessOrEqual(t, size, 256)
				require.GreaterOrEqual(t, size, 0)
				if size > 0 {
					require.False(t, p.batching)
					require.LessOrEqual(t, size+len(p.started), 256)
				}
				woken := r.IntN(size + 1)
				p.countWoken(woken)
				p.uncountWoken(r.IntN(woken + 1))
			case 2:
				for range r.IntN(500) {
					p.Attempted()
				}
			case 3:
				p.Called(time.Duration(r.Int64N(int64(time.Second) << r.IntN(12))))
			case 4:
				size := p.nextBatchSize()
				require.LessOrEqual(t, size, 1000)
				require.GreaterOrEqual(t, size, 16)
				p.noteBatch(r.IntN(size+1), size)
			case 5:
				p.HandedOver()
			default:
				p.pass(time.Duration(r.Int64N(int64(10 * time.Second))))
			}
			require.LessOrEqual(t, len(p.ended), 5120)
		}
		// After a pause, the pace is as at first, except for the duration of Work.
		p.pass(time.Hour)
		p.noteBatch(0, 100)
		require.Equal(t, 16, p.allowedSingles())
	}
}

// If one call in twenty is too long for a local activity, attempts become ordinary activities. A kind with a rate always uses those.
func TestAttemptsAreLocalWhileCallsAreShort(t *testing.T) {
	t.Parallel()
	p := newPaced(8)
	require.True(t, p.IsLocal(), "nothing is known yet")
	p.Called(activities.MaxLocalAttempt)
	require.True(t, p.IsLocal())
	p.Called(activities.MaxLocalAttempt + 1)
	require.False(t, p.IsLocal())
	calls := 0
	for ; !p.IsLocal(); calls++ {
		p.Called(time.Millisecond)
	}
	require.Equal(t, 4, calls, "the mean forgets")
	p.HandedOver()
	require.False(t, p.IsLocal())
	require.False(t, newPace(8, true).IsLocal())
}
