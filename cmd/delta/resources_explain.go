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
		Short: "Explain why a resource is not synced now, and what to do",
		Long: "Explain why a resource is not synced now: first the deciding reason, then other reasons and whatever else is worth knowing.\n" +
			"Nothing is changed, and no client has to run. Without Temporal, the reasons that only Temporal knows are left out.",
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: c.completeKindFirst,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.withSession(cmd, func(ctx context.Context, s *session) error {
				explained, err := s.Explain(ctx, args[0], args[1])
				if err != nil {
					return err
				}
				if done, err := c.printJSON(toExplanationJSON(explained)); done {
					return err
				}
				return c.printExplanation(explained)
			})
		},
	}
	c.addConnectionFlags(cmd)
	return cmd
}

// explanationJSON is an explanation as --output json shows it. Members may be added, but are never renamed or removed.
type explanationJSON struct {
	Kind     string       `json:"kind"`
	ObjectID string       `json:"object_id"`
	State    string       `json:"state"`
	Synced   bool         `json:"synced"`
	At       time.Time    `json:"at"`
	Reasons  []reasonJSON `json:"reasons"`
	// Errors has the latest errors, the latest first.
	Errors []errorJSON `json:"errors"`
	// TemporalError says why the reasons that only Temporal knows are missing; null otherwise.
	TemporalError *string `json:"temporal_error"`
}

type reasonJSON struct {
	Code   string     `json:"code"`
	Text   string     `json:"text"`
	Since  *time.Time `json:"since"`
	Until  *time.Time `json:"until"`
	Remedy string     `json:"remedy,omitempty"`
}

func toExplanationJSON(e *delta.Explanation) explanationJSON {
	r := e.Resource
	out := explanationJSON{Kind: r.ObjectKind, ObjectID: r.ObjectID, State: string(r.State), Synced: e.IsSynced(), At: e.At, Errors: []errorJSON{}}
	for _, reason := range e.Reasons {
		out.Reasons = append(out.Reasons, reasonJSON{string(reason.Code), reason.Text, reason.Since, reason.Until, reason.Remedy})
	}
	for _, err := range e.LastErrors {
		out.Errors = append(out.Errors, errorJSON(err))
	}
	if e.TemporalError != nil {
		text := formatError(e.TemporalError)
		out.TemporalError = &text
	}
	return out
}

// printExplanation prints an explanation as text.
func (c *cli) printExplanation(e *delta.Explanation) error {
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

// writeReason writes the code of a reason, and beside it the text, the times and the remedy.
func (c *cli) writeReason(b *strings.Builder, reason delta.Reason, widest int, now time.Time) {
	indent := strings.Repeat(" ", widest+2)
	room := 0
	if c.width > 0 {
		room = max(c.width-len(indent), 20)
	}
	name := string(reason.Code)
	for _, line := range wrapText(wording.Line(reason.Text), room) {
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
	for _, line := range wrapText(wording.Line(reason.Remedy), max(room-2, 0)) {
		fmt.Fprintf(b, "%s%s%s\n", indent, mark, line)
		mark = "  "
	}
}
