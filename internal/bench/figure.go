package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// figure is one measured quantity: Delta's, the bare thing's, and how they relate.
type figure struct {
	Name string `json:"name"`
	// What says what Delta's side and the bare side do.
	What string `json:"what"`
	Unit string `json:"unit"`
	// Delta and Bare are medians of the rounds. Ratio is the median of the rounds' ratios: the two sides of a round were
	// measured next to each other, so it moves less than the ratio of the medians.
	Delta float64 `json:"delta"`
	Bare  float64 `json:"bare"`
	Ratio float64 `json:"ratio"`
	// AtLeast or AtMost is the target; neither, and the figure is for information.
	AtLeast float64 `json:"at_least,omitempty"`
	AtMost  float64 `json:"at_most,omitempty"`
	// DeltaAtLeast and DeltaAtMost are targets for Delta's own value.
	DeltaAtLeast float64 `json:"delta_at_least,omitempty"`
	DeltaAtMost  float64 `json:"delta_at_most,omitempty"`
	Met          bool    `json:"met"`
	Rounds       []round `json:"rounds"`
}

// round is both sides, measured in turn.
type round struct {
	Delta float64 `json:"delta"`
	Bare  float64 `json:"bare"`
}

// settle computes the figure from its rounds.
func (f figure) settle() figure {
	var deltas, bares, ratios []float64
	for _, r := range f.Rounds {
		deltas, bares = append(deltas, r.Delta), append(bares, r.Bare)
		ratio := 0.0
		if r.Bare > 0 {
			ratio = r.Delta / r.Bare
		}
		ratios = append(ratios, ratio)
	}
	f.Delta, f.Bare, f.Ratio = quantile(deltas, 0.5), quantile(bares, 0.5), quantile(ratios, 0.5)
	f.Met = (f.AtLeast == 0 || f.Ratio >= f.AtLeast) && (f.AtMost == 0 || f.Ratio <= f.AtMost) &&
		(f.DeltaAtLeast == 0 || f.Delta >= f.DeltaAtLeast) && (f.DeltaAtMost == 0 || f.Delta <= f.DeltaAtMost)
	return f
}

// alone is a figure that nothing is compared with.
func (f figure) alone(values ...float64) figure {
	for _, v := range values {
		f.Rounds = append(f.Rounds, round{Delta: v})
	}
	return f.settle()
}

// isAlone tells that there is nothing it is compared with.
func (f figure) isAlone() bool { return f.Bare == 0 }

// target is the targets in words, and ok or MISS.
func (f figure) target() (target, verdict string) {
	var targets []string
	if f.AtLeast > 0 {
		targets = append(targets, fmt.Sprintf(">= %.2f", f.AtLeast))
	}
	if f.AtMost > 0 {
		targets = append(targets, fmt.Sprintf("<= %.2f", f.AtMost))
	}
	if f.DeltaAtLeast > 0 {
		targets = append(targets, ">= "+f.show(f.DeltaAtLeast))
	}
	if f.DeltaAtMost > 0 {
		targets = append(targets, "<= "+f.show(f.DeltaAtMost))
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

// warmUp is the turn that comes before all rounds and does not count. It may do less than the others.
const warmUp = -1

// side does its part of one turn and tells how many things it did in what time. Turns are counted from 0.
type side func(ctx context.Context, turn int) (done int, took time.Duration, err error)

// compare fills the rounds of a rate: each has so many turns, in which the two sides alternate. Short turns are the best
// answer to a machine that does other things too.
func compare(ctx context.Context, rounds, turns int, f figure, delta, bare side) (figure, error) {
	var done, took [2]float64
	play := func(turn int) error {
		first := turn & 1
		// Who goes first changes, so that what one side leaves behind does not always hit the other.
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
	return f.settle(), nil
}

// quantile is the value below which a share of the samples lies, by linear interpolation.
func quantile(samples []float64, share float64) float64 {
	if len(samples) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(samples))
	at := share * float64(len(sorted)-1)
	low := int(at)
	high := min(low+1, len(sorted)-1)
	return sorted[low] + (at-float64(low))*(sorted[high]-sorted[low])
}
