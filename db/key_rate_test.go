package db_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/internal/soak"
)

// clocked is keys with a clock that stands still until the test moves it.
type clocked struct {
	keys
	start time.Time
	now   time.Duration
}

// newClocked has the functions of one connection find a clock of the test's before that of Postgres.
func newClocked(t *testing.T, concurrency int, rate float64) *clocked {
	t.Helper()
	k := newKeys(t, concurrency, rate)
	var schema string
	require.NoError(t, k.pool.QueryRow(t.Context(), "SELECT quote_ident(current_schema())").Scan(&schema))
	k.exec("CREATE FUNCTION clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS $$ SELECT current_setting('test.now')::timestamptz $$")
	config := k.pool.Config().Copy()
	config.MaxConns = 1
	config.ConnConfig.RuntimeParams["search_path"] = schema + ", pg_catalog"
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	k.pool = pool
	c := &clocked{keys: k, start: time.Now()}
	c.set(0)
	return c
}

// set sets the clock.
func (c *clocked) set(to time.Duration) {
	c.Helper()
	c.now = to
	c.exec("SELECT set_config('test.now', $1, FALSE)", c.start.Add(to).Format(time.RFC3339Nano))
}

// readTime is when something is, by the clock of the test; never for null.
func (c *clocked) readTime(sql string) time.Duration {
	c.Helper()
	var at *time.Time
	require.NoError(c, c.pool.QueryRow(c.Context(), sql).Scan(&at))
	if at == nil {
		return never
	}
	return at.Sub(c.start)
}

const never = time.Duration(math.MaxInt64)

// fleet are clients that wake, dispatch and claim rows of a key, as events of a clock.
type fleet struct {
	*clocked
	// latency is the time from the lease of a row to its claim; negative if the process dies meanwhile.
	latency func() time.Duration
	// arrivals and claims are when rows come for a slot, and may be claimed.
	arrivals, claims map[int64]time.Duration
	claimed          []time.Duration
	// idle is for how long rows that may not be claimed yet have kept a worker's slot.
	idle time.Duration
	// back counts rows that had come too early.
	back int
}

// nextEvent returns when the next event is.
func (f *fleet) nextEvent() time.Duration {
	next := min(f.readTime("SELECT min(wake_at) FROM delta_key"), f.readTime("SELECT min(dispatch_at) FROM delta_resource WHERE state <> 'synced'"))
	for _, events := range []map[int64]time.Duration{f.arrivals, f.claims} {
		for _, at := range events {
			next = min(next, at)
		}
	}
	return max(next, f.now)
}

// takeDue removes the events that are due, and returns their ids.
func (f *fleet) takeDue(events map[int64]time.Duration) (ids []int64) {
	for id, at := range events {
		if at <= f.now {
			ids = append(ids, id)
			delete(events, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// changeSome does what is to be done at a time.
func (f *fleet) step() {
	f.Helper()
	if ids := f.takeDue(f.claims); len(ids) > 0 {
		claim := uuid.NewString()
		rows := f.claim(claim, ids)
		require.Len(f, rows, len(ids))
		f.sync(claim, rows)
		for range ids {
			f.claimed = append(f.claimed, f.now)
		}
	}
	for _, id := range f.takeDue(f.arrivals) {
		f.claims[id] = f.now
		for _, row := range f.takeRows([]int64{id}, true) {
			if row.Queued {
				f.back++
				delete(f.claims, id)
				continue
			}
			require.LessOrEqual(f, row.Wait, 250*time.Millisecond)
			f.idle += row.Wait
			f.claims[id] = f.now + row.Wait
		}
	}
	_, err := db.New().WakeKeys(f.Context(), f.pool, db.WakeKeysParams{Kind: "thing"})
	require.NoError(f, err)
	rows, err := f.pool.Query(f.Context(), `UPDATE delta_resource SET dispatch_at = clock_timestamp() + interval '1 minute'
		WHERE dispatch_at <= clock_timestamp() AND state <> 'synced' RETURNING id`)
	require.NoError(f, err)
	defer rows.Close()
	for rows.Next() {
		var id int64
		require.NoError(f, rows.Scan(&id))
		if latency := f.latency(); latency >= 0 {
			f.arrivals[id] = f.now + latency
		}
	}
	require.NoError(f, rows.Err())
}

// requireNoMore fails if more calls have begun within any time than a rate allows, with so many together.
func (f *fleet) requireNoMore(rate, together float64) {
	f.Helper()
	for i, from := range f.claimed {
		for j, to := range f.claimed[i:] {
			if allowed := rate*(to-from).Seconds() + together; float64(j+1) > allowed+0.01 { // times are in whole microseconds
				f.Fatalf("%d calls began from %s to %s, and %.2f are allowed", j+1, from, to, allowed)
			}
		}
	}
}

func TestTheRateOfAKeyIsUsedUpAndNeverExceeded(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	for name, latency := range map[string]func(*rand.Rand) time.Duration{
		"at once": func(*rand.Rand) time.Duration { return 0 },
		"60 ms":   func(*rand.Rand) time.Duration { return 60 * time.Millisecond },
		"1 s":     func(*rand.Rand) time.Duration { return time.Second },
		"varies": func(r *rand.Rand) time.Duration {
			return 30*time.Millisecond + time.Duration(r.ExpFloat64()*float64(50*time.Millisecond))
		},
		"some died": nil,
	} {
		for _, rate := range []float64{0.5, 20, 60} {
			t.Run(fmt.Sprint(name, " at ", rate), func(t *testing.T) {
				if name != "varies" && (name != "some died" || rate != 60) { // calls that vary have the other latencies in them
					soak.Rare(t)
				}
				t.Parallel()
				const seed = 1
				random := rand.New(rand.NewPCG(seed, seed))
				f := &fleet{clocked: newClocked(t, 0, rate), arrivals: map[int64]time.Duration{}, claims: map[int64]time.Duration{}}
				died := 0
				f.latency = func() time.Duration {
					if latency != nil {
						return latency(random)
					}
					if random.IntN(20) == 0 {
						died++
						return -1
					}
					return 60 * time.Millisecond
				}
				most := max(60, int(6*rate))
				ids := f.addDue("key", most)
				require.NotZero(t, f.takeSlots(ids, false))
				for steps := 0; len(f.claimed) < most; steps++ {
					require.Less(t, steps, 30*most, "%d of %d were claimed", len(f.claimed), most)
					f.set(f.nextEvent())
					f.step()
				}
				together := max(math.Floor(rate*0.1), 1)
				f.requireNoMore(rate, together)
				warm := f.claimed[most/5:] // what claims take is learned from the first of them
				used := float64(len(warm)-1) / rate / (warm[len(warm)-1] - warm[0]).Seconds()
				t.Logf("%.0f%% of the rate was used; rows waited for %s, and %d came too early", 100*used, f.idle/time.Duration(most), f.back)
				if latency != nil {
					require.Greater(t, used, 0.9)
				}
				took, longest := f.claimed[most-1].Seconds(), 1.2*float64(most)/rate+5
				if died > 0 {
					longest += 2*float64(died) + 180 // the last of them are dispatched again when their leases have passed, and may die again
				}
				require.Less(t, took, longest, "%d died: each is waited for, for a second or so", died)
				require.Zero(t, f.count("state NOT IN ('synced')"))
			})
		}
	}
}
