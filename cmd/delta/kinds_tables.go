package main

import (
	"strings"
	"time"

	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/wording"
)

// printCountTable always shows the states synced and degraded, and others if a resource is in them.
func (c *cli) printCountTable(all []kindJSON) error {
	headers := []string{"KIND", "TOTAL"}
	var shown []string
	for _, state := range stateNames() {
		usual := state == string(deltatype.ResourceStateSynced) || state == string(deltatype.ResourceStateDegraded)
		for _, k := range all {
			if usual || k.Counts[state] > 0 {
				headers, shown = append(headers, strings.ToUpper(state)), append(shown, state)
				break
			}
		}
	}
	rows, isEstimated := make([][]string, len(all)), false
	for i, k := range all {
		number := wording.Number[int64]
		isEstimated = isEstimated || k.Estimated
		if k.Estimated {
			number = wording.Estimate
		}
		rows[i] = []string{k.Kind, number(k.Total)}
		for _, state := range shown {
			rows[i] = append(rows[i], number(k.Counts[state]))
		}
	}
	if err := c.printTable(headers, rows, 0); err != nil || !isEstimated {
		return err
	}
	c.printNote("~ is an estimate, from a part of the table.")
	return nil
}

func (c *cli) printInformerTable(all []kindJSON, now time.Time, reached bool) error {
	rows := make([][]string, len(all))
	for i, k := range all {
		every, next := "-", wording.When(k.Informer.NextRun, now)
		switch seconds := k.Informer.IntervalSeconds; {
		case k.Informer.BySchedule:
			every = "by calendar"
		case seconds == nil:
		case k.Informer.ListsNothing:
			every = "lists nothing"
		case *seconds < 0:
			every = "never"
		default:
			every = wording.Interval(time.Duration(*seconds * float64(time.Second)))
		}
		if full := k.Informer.FullIntervalSeconds; full != nil {
			every += ", all " + wording.Interval(time.Duration(*full*float64(time.Second)))
		}
		switch {
		case k.Informer.Paused:
			next = "paused"
		case !reached:
			next = "?"
		}
		work := "runs"
		switch {
		case k.Paused:
			work = "paused"
		case k.SnoozedUntil != nil:
			work = "snoozed " + wording.Duration(k.SnoozedUntil.Sub(now))
		}
		rows[i] = []string{
			k.Kind, work, wording.Number(k.Late), wording.Number(k.Refused), every, wording.When(k.Informer.LastSuccess, now),
			formatLag(k.Informer.LagSeconds), next,
		}
	}
	return c.printTable([]string{"KIND", "WORK", "LATE", "REFUSED", "INFORMS EVERY", "LAST SUCCESS", "LAG", "NEXT RUN"}, rows, 0)
}

func formatLag(seconds *float64) string {
	if seconds == nil {
		return "-"
	}
	return wording.Duration(time.Duration(*seconds * float64(time.Second)))
}
