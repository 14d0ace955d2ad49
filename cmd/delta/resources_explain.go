package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/wording"
)

func explainCommand(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "explain KIND ID",
		Short: "Say why a resource is not synced now, and what to do",
		Long: "explain says why a resource is not synced now: what decides first, then what else keeps it, or is worth knowing.\n" +
			"It changes nothing, and needs no client that runs. Without Temporal, what only Temporal knows is left out.",
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: c.completeKindFirst,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.with(cmd, func(ctx context.Context, s *session) error {
				explained, err := s.Explain(ctx, args[0], args[1])
				if err != nil {
					return err
				}
				if done, err := c.json(explanationOf(explained)); done {
					return err
				}
				return c.explain(explained)
			})
		},
	}
	c.connectionFlags(cmd)
	return cmd
}

// explanationJSON is an explanation as --output json shows it. Members are added, and never renamed or removed.
type explanationJSON struct {
	Kind     string       `json:"kind"`
	ObjectID string       `json:"object_id"`
	State    string       `json:"state"`
	Synced   bool         `json:"synced"`
	At       time.Time    `json:"at"`
	Reasons  []reasonJSON `json:"reasons"`
	// Errors are the latest, the latest first.
	Errors []errorJSON `json:"errors"`
	// TemporalError says why what only Temporal knows is missing; null otherwise.
	TemporalError *string `json:"temporal_error"`
}

type reasonJSON struct {
	Code   string     `json:"code"`
	Text   string     `json:"text"`
	Since  *time.Time `json:"since"`
	Until  *time.Time `json:"until"`
	Remedy string     `json:"remedy,omitempty"`
}

func explanationOf(e *delta.Explanation) explanationJSON {
	r := e.Resource
	out := explanationJSON{Kind: r.ObjectKind, ObjectID: r.ObjectID, State: string(r.State), Synced: e.IsSynced(), At: e.At, Errors: []errorJSON{}}
	for _, reason := range e.Reasons {
		out.Reasons = append(out.Reasons, reasonJSON{string(reason.Code), reason.Text, reason.Since, reason.Until, reason.Remedy})
	}
	for _, err := range e.LastErrors {
		out.Errors = append(out.Errors, errorJSON(err))
	}
	if e.TemporalError != nil {
		text := message(e.TemporalError)
		out.TemporalError = &text
	}
	return out
}

// explain writes an explanation for a person.
func (c *cli) explain(e *delta.Explanation) error {
	var b strings.Builder
	r := e.Resource
	fmt.Fprintf(&b, "%s/%s is %s (generation %d, attempt %d of %d)\n\n", r.ObjectKind, wording.Line(r.ObjectID), r.State, r.Generation, r.Attempt, r.MaxAttempts)
	widest := 0
	for _, reason := range e.Reasons {
		widest = max(widest, len(reason.Code))
	}
	for _, reason := range e.Reasons {
		c.writeReason(&b, reason, widest, e.At)
	}
	if len(e.LastErrors) > 0 {
		fmt.Fprint(&b, "\nlatest errors\n")
	}
	for _, err := range e.LastErrors {
		c.writeError(&b, err, e.At)
	}
	_, err := fmt.Fprint(c.out, b.String())
	return err
}

// writeReason writes a reason: its code, and beside that its text, its times and its remedy.
func (c *cli) writeReason(b *strings.Builder, reason delta.Reason, widest int, now time.Time) {
	indent := strings.Repeat(" ", widest+2)
	room := 0
	if c.width > 0 {
		room = max(c.width-len(indent), 20)
	}
	name := string(reason.Code)
	for _, line := range wrap(wording.Line(reason.Text), room) {
		fmt.Fprintf(b, "%-*s  %s\n", widest, name, line)
		name = ""
	}
	for _, one := range []struct {
		word string
		at   *time.Time
	}{{"since", reason.Since}, {"until", reason.Until}} {
		if one.at != nil {
			fmt.Fprintf(b, "%s%s %s (%s)\n", indent, one.word, one.at.Format(time.RFC3339), wording.When(one.at, now))
		}
	}
	if reason.Remedy == "" {
		return
	}
	mark := "→ "
	for _, line := range wrap(wording.Line(reason.Remedy), max(room-2, 0)) {
		fmt.Fprintf(b, "%s%s%s\n", indent, mark, line)
		mark = "  "
	}
}
