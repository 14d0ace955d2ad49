package main

import (
	"fmt"
	"time"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/wording"
)

// sourceJSON is a source of a kind as --output json shows it.
type sourceJSON struct {
	Name string `json:"name"`
	// Phase is the phase of the source's run. Since is its beginning, and Reason its reason, if the source gives one.
	Phase  string    `json:"phase"`
	Since  time.Time `json:"since"`
	Reason *string   `json:"reason"`
	// LagSeconds, BehindBytes and BehindMessages are null if the source does not report them.
	LagSeconds     *float64 `json:"lag_seconds"`
	BehindBytes    *int64   `json:"behind_bytes"`
	BehindMessages *int64   `json:"behind_messages"`
	// HeldBy is the transaction that the source waits for, or null.
	HeldBy    *string    `json:"held_by"`
	Runner    string     `json:"runner"`
	StartedAt time.Time  `json:"started_at"`
	SeenAt    time.Time  `json:"seen_at"`
	WrittenAt *time.Time `json:"written_at"`
	// Failures is the number of failed runs in a row, and Error the error of the latest one; null once a later run has lasted for a while.
	Failures int        `json:"failures"`
	FailedAt *time.Time `json:"failed_at"`
	Error    *string    `json:"error"`
}

func toSourcesJSON(k delta.KindStatus) []sourceJSON {
	all := make([]sourceJSON, len(k.Sources))
	for i, s := range k.Sources {
		all[i] = sourceJSON{
			Name: s.Name, Phase: string(s.Phase), Since: s.Since, Reason: nullIfEmpty(s.Reason), BehindBytes: s.BehindBytes, BehindMessages: s.BehindMessages, Runner: s.Runner,
			StartedAt: s.StartedAt, SeenAt: s.SeenAt, WrittenAt: s.WrittenAt, Failures: s.Failures, FailedAt: s.FailedAt, Error: nullIfEmpty(s.Error),
		}
		if s.Lag != nil {
			seconds := s.Lag.Round(time.Millisecond).Seconds()
			all[i].LagSeconds = &seconds
		}
		if s.HeldBy != nil {
			held := s.HeldBy.String()
			all[i].HeldBy = &held
		}
	}
	return all
}

// formatBehind says how much the source still has to read, in bytes or messages.
func (s sourceJSON) formatBehind() string {
	switch {
	case s.BehindMessages != nil:
		return wording.Count(*s.BehindMessages, "message")
	case s.BehindBytes != nil:
		return wording.Size(*s.BehindBytes)
	default:
		return "-"
	}
}

// printSourceTable prints nothing if no kind has sources. Below the table it says why sources fail or wait.
func (c *cli) printSourceTable(all []kindJSON, now time.Time) error {
	var rows [][]string
	for _, k := range all {
		for _, s := range k.Sources {
			lag := "-"
			if s.LagSeconds != nil {
				lag = wording.Duration(time.Duration(*s.LagSeconds * float64(time.Second)))
			}
			rows = append(rows, []string{k.Kind, wording.Line(s.Name), s.Phase, wording.When(&s.Since, now), lag, s.formatBehind(), wording.When(s.WrittenAt, now)})
		}
	}
	if len(rows) == 0 {
		return nil
	}
	_, _ = fmt.Fprintln(c.out)
	if err := c.printTable([]string{"KIND", "SOURCE", "DOES", "SINCE", "LAG", "BEHIND", "LAST WRITTEN"}, rows, 1); err != nil {
		return err
	}
	for _, k := range all {
		for _, s := range k.Sources {
			switch {
			case s.Error != nil:
				c.printNote(fmt.Sprintf("%s: source %q fails, %s in a row: %s", k.Kind, s.Name, wording.Count(int64(s.Failures), "time"), wording.Line(*s.Error)))
			case s.HeldBy != nil:
				c.printNote(fmt.Sprintf("%s: source %q waits for a lock held by %s", k.Kind, s.Name, wording.Line(*s.HeldBy)))
			}
		}
	}
	return nil
}
