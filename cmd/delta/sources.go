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
	// Phase is the phase of its run, with its beginning and, where it gives one, its reason.
	Phase  string    `json:"phase"`
	Since  time.Time `json:"since"`
	Reason *string   `json:"reason"`
	// LagSeconds, BehindBytes and BehindMessages are null where the source does not say.
	LagSeconds     *float64 `json:"lag_seconds"`
	BehindBytes    *int64   `json:"behind_bytes"`
	BehindMessages *int64   `json:"behind_messages"`
	// HeldBy is the transaction that it waits for; null where it waits for none.
	HeldBy    *string    `json:"held_by"`
	Runner    string     `json:"runner"`
	StartedAt time.Time  `json:"started_at"`
	SeenAt    time.Time  `json:"seen_at"`
	WrittenAt *time.Time `json:"written_at"`
	// Failures is how many runs in a row have failed, and Error why the latest did; null where another one has lasted for a while since.
	Failures int        `json:"failures"`
	FailedAt *time.Time `json:"failed_at"`
	Error    *string    `json:"error"`
}

func sourcesOf(k delta.KindStatus) []sourceJSON {
	all := make([]sourceJSON, len(k.Sources))
	for i, s := range k.Sources {
		all[i] = sourceJSON{
			Name: s.Name, Phase: string(s.Phase), Since: s.Since, Reason: textOf(s.Reason), BehindBytes: s.BehindBytes, BehindMessages: s.BehindMessages, Runner: s.Runner,
			StartedAt: s.StartedAt, SeenAt: s.SeenAt, WrittenAt: s.WrittenAt, Failures: s.Failures, FailedAt: s.FailedAt, Error: textOf(s.Error),
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

// behind is how much is before the source, in the unit that it counts.
func (s sourceJSON) behind() string {
	switch {
	case s.BehindMessages != nil:
		return wording.Count(*s.BehindMessages, "message")
	case s.BehindBytes != nil:
		return wording.Size(*s.BehindBytes)
	default:
		return "-"
	}
}

// sourceTable shows the sources of kinds, if they have any, and tells why those that failed did.
func (c *cli) sourceTable(all []kindJSON, now time.Time) error {
	var rows [][]string
	for _, k := range all {
		for _, s := range k.Sources {
			lag := "-"
			if s.LagSeconds != nil {
				lag = wording.Duration(time.Duration(*s.LagSeconds * float64(time.Second)))
			}
			rows = append(rows, []string{k.Kind, wording.Line(s.Name), s.Phase, wording.When(&s.Since, now), lag, s.behind(), wording.When(s.WrittenAt, now)})
		}
	}
	if len(rows) == 0 {
		return nil
	}
	_, _ = fmt.Fprintln(c.out)
	if err := c.table([]string{"KIND", "SOURCE", "DOES", "SINCE", "LAG", "BEHIND", "LAST WRITTEN"}, rows, 1); err != nil {
		return err
	}
	for _, k := range all {
		for _, s := range k.Sources {
			switch {
			case s.Error != nil:
				c.tell(fmt.Sprintf("%s: source %q fails, %s in a row: %s", k.Kind, s.Name, wording.Count(int64(s.Failures), "time"), wording.Line(*s.Error)))
			case s.HeldBy != nil:
				c.tell(fmt.Sprintf("%s: source %q waits for a lock that is held by %s", k.Kind, s.Name, wording.Line(*s.HeldBy)))
			}
		}
	}
	return nil
}
