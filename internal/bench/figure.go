package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// figure is one measured quantity: the values of Delta and of the bare side, and their ratio.
type figure struct {
	Name string `json:"name"`
	// What describes the work of Delta's side and of the bare side.
	What string `json:"what"`
	Unit string `json:"unit"`
	// Delta and Bare are medians of the rounds. Ratio is the median of the rounds' ratios, because the two sides of a round are measured next to each
	// other, so it varies less than the ratio of the medians.
	Delta float64 `json:"delta"`
	Bare  float64 `json:"bare"`
	Ratio float64 `json:"ratio"`
	// AtLeast or AtMost is the target of the ratio, if there is one.
	AtLeast float64 `json:"at_least,omitempty"`
	AtMost  float64 `json:"at_most,omitempty"`
	// DeltaAtLeast and DeltaAtMost are targets for Delta's own value.
	DeltaAtLeast float64 `json:"delta_at_least,omitempty"`
	DeltaAtMost  float64 `json:"delta_at_most,omitempty"`
	Met          bool    `json:"met"`
	Rounds       []round `json:"rounds"`
}

// round has the values of both sides, measured in turn.
type round struct {
	Delta float64 `json:"delta"`
	Bare  float64 `json:"bare"`
}

// computeMedians computes the values of the figure from its rounds.
func (f figure) computeMedians() figure {
	var deltas, bares, ratios []float64
	for _, r := range f.Rounds {
		deltas, bares = append(deltas, r.Delta), append(bares, r.Bare)
		ratio := 0.0
		if r.Bare > 0 {
			ratio = r.Delta / r.Bare
		}
		ratios = append(ratios, ratio)
	}
	f.Delta, f.Bare, f.Ratio = computeQuantile(deltas, 0.5), computeQuantile(bares, 0.5), computeQuantile(ratios, 0.5)
	f.Met = (f.AtLeast == 0 || f.Ratio >= f.AtLeast) && (f.AtMost == 0 || f.Ratio <= f.AtMost) &&
		(f.DeltaAtLeast == 0 || f.Delta >= f.DeltaAtLeast) && (f.DeltaAtMost == 0 || f.Delta <= f.DeltaAtMost)
	return f
}

// withValues returns the figure with values of Delta only.
func (f figure) withValues(values ...float64) figure {
	for _, v := range values {
		f.Rounds = append(f.Rounds, round{Delta: v})
	}
	return f.computeMedians()
}

// hasNoBare reports whether the figure has no bare side.
func (f figure) hasNoBare() bool { return f.Bare == 0 }

// formatTarget returns the targets as text, and "ok" or "MISS".
func (f figure) formatTarget() (target, verdict string) {
	var targets []string
	if f.AtLeast > 0 {
		targets = append(targets, fmt.Sprintf(">= %.2f", f.AtLeast))
	}
	if f.AtMost > 0 {
		targets = append(targets, fmt.Sprintf("<= %.2f", f.AtMost))
	}
	if f.DeltaAtLeast > 0 {
		targets = append(targets, ">= "+f.formatValue(f.DeltaAtLeast))
	}
	if f.DeltaAtMost > 0 {
		targets = append(targets, "<= "+f.formatValue(f.DeltaAtMost))
	}
	switch {
	case len(targets) == 0:
		return "", ""
	case f.Met:
		verdict = "ok"
	default:
		verdict = "MISS"
	}
	return strings.Join(targets, ", "), verdict
}

// warmUp is the turn before all rounds, which does not count. It may do less than the others.
const warmUp = -1

// side does its part of one turn, and returns the amount done and the time it took. Turns are counted from 0.
type side func(ctx context.Context, turn int) (done int, took time.Duration, err error)

// compareRates measures the rounds of a rate. The two sides alternate in the turns of a round. Turns are short, so that other load of the machine affects
// both sides.
func compareRates(ctx context.Context, rounds, turns int, f figure, delta, bare side) (figure, error) {
	var done, took [2]float64
	play := func(turn int) error {
		first := turn & 1
		// The sides take turns in going first, so that leftovers of one do not always slow down the other.
		for _, i := range []int{first, 1 - first} {
			name, s := "delta", delta
			if i == 1 {
				name, s = "bare", bare
			}
			count, duration, err := s(ctx, turn)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			done[i] += float64(count)
			took[i] += duration.Seconds()
		}
		return nil
	}
	if err := play(warmUp); err != nil {
		return f, err
	}
	for n := range rounds {
		done, took = [2]float64{}, [2]float64{}
		for turn := range turns {
			if err := play(n*turns + turn); err != nil {
				return f, err
			}
		}
		f.Rounds = append(f.Rounds, round{Delta: done[0] / took[0], Bare: done[1] / took[1]})
	}
	return f.computeMedians(), nil
}

// computeQuantile returns the value below which a share of the samples lies, by linear interpolation.
func computeQuantile(samples []float64, share float64) float64 {
	if len(samples) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(samples))
	at := share * float64(len(sorted)-1)
	low := int(at)
	high := min(low+1, len(sorted)-1)
	return sorted[low] + (at-float64(low))*(sorted[high]-sorted[low])
}
