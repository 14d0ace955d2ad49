package delta

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/chariot-giving/delta/db"
)

// Figure counts the attempts of a kind in a minute, in all clients together.
type Figure struct {
	// Kind is the kind, Minute when the minute began.
	Kind   string
	Minute time.Time
	// Attempts counts the attempts whose outcome was written in the minute, by outcome, without outcomes that none had. It
	// includes attempts of Finalize, whose successes have an outcome of their own.
	Attempts map[Outcome]int64
	// P50 and P95 estimate how long half, and 95 %, of the calls of Work and Finalize took at most; a WorkBatch counts once
	// for each of its resources. 0 if nothing was called. Durations are counted in ranges that double from 1 ms to 2.3
	// hours; longer ones count as 2.3 hours.
	P50, P95 time.Duration
}

// FigureSteps returns the figures of a kind, or of all kinds if kind is empty, summed over steps of time, the earliest
// first. The first step begins with the minute of since, and Minute is when a step begins. P50 and P95 are those of all
// calls of the step, which cannot be computed from those of its minutes. Steps without attempts are left out. A step is a
// whole number of minutes, one at least. See [Client.Figures] for completeness and retention.
func (c *Client) FigureSteps(ctx context.Context, kind string, since time.Time, step time.Duration) ([]Figure, error) {
	if step < time.Minute || step%time.Minute != 0 {
		return nil, fmt.Errorf("delta: figures: %w", inputError("step", step, "must be a whole number of minutes, 1 at least"))
	}
	if since = since.UTC().Truncate(time.Minute); since.Before(time.Now().Add(-2 * figuresKept)) {
		return nil, fmt.Errorf("delta: figures: %w", inputError("since", since, "must be within the last four days: figures are kept for two"))
	}
	rows, err := c.listFigures(ctx, kind, since)
	if err != nil {
		return nil, err
	}
	type key struct {
		kind string
		step time.Time
	}
	at := map[key]int{}
	var sums []db.Figure
	for i := range rows {
		row := &rows[i]
		row.Minute = since.Add(row.Minute.Sub(since).Truncate(step))
		k := key{row.Kind, row.Minute}
		if _, ok := at[k]; !ok {
			at[k] = len(sums)
			sums = append(sums, *row)
			continue
		}
		addFigure(&sums[at[k]], row)
	}
	all := make([]Figure, len(sums))
	for i := range sums {
		all[i] = figureOf(&sums[i])
	}
	return all, nil
}

// addFigure adds the counts of another row of the kind.
func addFigure(sum, more *db.Figure) {
	sum.Synced += more.Synced
	sum.Finalized += more.Finalized
	sum.Failed += more.Failed
	sum.Degraded += more.Degraded
	sum.Deleted += more.Deleted
	sum.Snoozed += more.Snoozed
	sum.Undecodable += more.Undecodable
	for i := range min(len(sum.Durations), len(more.Durations)) {
		sum.Durations[i] += more.Durations[i]
	}
}

// Figures returns the minutes of a kind, or of all kinds if kind is empty, that began at since or later, the earliest
// first. They are kept for two days. Minutes without attempts are left out.
//
// Each client adds its counts a few seconds after the end of a minute, and when it stops. So the latest minutes are
// incomplete, and up to a minute of a client whose process dies is missing.
func (c *Client) Figures(ctx context.Context, kind string, since time.Time) ([]Figure, error) {
	rows, err := c.listFigures(ctx, kind, since)
	if err != nil {
		return nil, err
	}
	all := make([]Figure, len(rows))
	for i := range rows {
		all[i] = figureOf(&rows[i])
	}
	return all, nil
}

// listFigures reads the rows of minutes.
func (c *Client) listFigures(ctx context.Context, kind string, since time.Time) ([]db.Figure, error) {
	if kind != "" {
		if err := checkName("kind", kind); err != nil {
			return nil, fmt.Errorf("delta: figures: %w", err)
		}
	}
	if earliest := time.Now().Add(-figuresKept); since.Before(earliest) {
		since = earliest // earlier ones are about to be removed, and Postgres takes no time before the year 4713 BC
	}
	rows, err := db.New().ListFigures(ctx, c.pool, db.ListFiguresParams{Kind: kind, Since: since})
	if err != nil {
		return nil, fmt.Errorf("delta: figures: %w", schemaError(err))
	}
	return rows, nil
}

func figureOf(r *db.Figure) Figure {
	f := Figure{Kind: r.Kind, Minute: r.Minute.UTC(), Attempts: map[Outcome]int64{}, P50: estimateQuantile(r.Durations, 0.5), P95: estimateQuantile(r.Durations, 0.95)}
	for o, n := range attemptsOf(r) {
		if n > 0 {
			f.Attempts[countedOutcomes[o]] = n
		}
	}
	return f
}

// attemptsOf returns the counts of a row, in the order of countedOutcomes.
func attemptsOf(r *db.Figure) [len(countedOutcomes)]int64 {
	return [...]int64{r.Synced, r.Finalized, r.Failed, r.Degraded, r.Deleted, r.Snoozed, r.Undecodable}
}

// boundOf returns the upper bound of a range of durations.
func boundOf(bucket int) time.Duration { return time.Millisecond << bucket }

// estimateQuantile estimates the duration that a share of the calls took at most, as if the calls of a range were spread
// evenly over it.
func estimateQuantile(durations []int64, share float64) time.Duration {
	total := int64(0)
	for _, n := range durations {
		total += n
	}
	if total == 0 {
		return 0
	}
	rank, below := share*float64(total), int64(0)
	for b, n := range durations {
		if float64(below+n) < rank {
			below += n
			continue
		}
		lower := time.Duration(0)
		if b > 0 {
			lower = boundOf(b - 1)
		}
		if b == durationBuckets-1 {
			return lower
		}
		within := (rank - float64(below)) / float64(n)
		return lower + time.Duration(math.Round(within*float64(boundOf(b)-lower)))
	}
	return boundOf(durationBuckets - 2)
}
