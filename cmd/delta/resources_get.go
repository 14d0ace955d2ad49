package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/wording"
)

func getCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:               "get KIND ID",
		Short:             "Show everything that is known about one resource",
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: c.completeKindFirst,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.withSession(cmd, func(ctx context.Context, s *session) error {
				row, err := s.Get(ctx, args[0], args[1])
				if err != nil {
					return err
				}
				if done, err := c.printJSON(toResourceJSON(row)); done {
					return err
				}
				snoozes, err := s.Snoozes(ctx)
				if err != nil {
					return err
				}
				key, err := s.LimitKey(ctx, args[0], args[1])
				if err != nil {
					return err
				}
				return c.printResource(row, snoozes, key, time.Now())
			})
		},
	}
}

// nextStep describes the step that follows at a resource's due time.
func nextStep(r *deltatype.ResourceRow) string {
	switch r.State {
	case deltatype.ResourceStateSynced:
		return "it expires, or its row is removed"
	case deltatype.ResourceStateDegraded:
		if r.Cause == deltatype.CauseHopeless {
			return "its row is removed"
		}
		return "it is tried, or its row removed"
	case deltatype.ResourceStateDeleted:
		if r.Finalized != nil && !*r.Finalized {
			return "it is finalized"
		}
		return "its row is removed"
	default:
		return "it is tried"
	}
}

// formatLimitKey shows a limit key, and whether the resource waits for a slot of it.
func formatLimitKey(name string, key *delta.LimitKeyStatus, now time.Time) string {
	if key == nil || (key.Concurrency == 0 && key.Rate == 0) {
		return name
	}
	running := fmt.Sprintf("%d running", key.Running)
	if key.Concurrency > 0 {
		running = fmt.Sprintf("%d of %d running", key.Running, key.Concurrency)
	}
	if key.Rate > 0 {
		running += fmt.Sprintf(", %g/s", key.Rate)
	}
	if key.WaitsSince == nil {
		return fmt.Sprintf("%s (%s)", name, running)
	}
	return fmt.Sprintf("%s: it waits for a slot, %s (%s, %s waiting)", name, wording.When(key.WaitsSince, now), running, wording.Number(key.Waiting))
}

// printResource prints a resource as lines of a name and a value.
func (c *cli) printResource(r *deltatype.ResourceRow, snoozes []delta.Snooze, key *delta.LimitKeyStatus, now time.Time) error {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-12s %s\n", name, fmt.Sprintf(format, args...))
	}
	at := func(name string, t *time.Time) {
		if t != nil {
			line(name, "%s (%s)", t.Format(time.RFC3339), wording.When(t, now))
		}
	}
	line("resource", "%s/%s", r.ObjectKind, wording.Line(r.ObjectID))
	line("namespace", "%s", r.Namespace)
	state := string(r.State)
	if r.Paused {
		state += ", paused"
	}
	line("state", "%s", state)
	if r.Cause != "" && (r.State == deltatype.ResourceStateDegraded || r.State == deltatype.ResourceStateDeleted) {
		line("cause", "%s", r.Cause)
	}
	if r.Finalized != nil && r.State == deltatype.ResourceStateDeleted {
		line("finalized", "%s", map[bool]string{true: "yes", false: "not yet"}[*r.Finalized])
	}
	synced := fmt.Sprintf("last synced: %d, of %s", r.SyncedGeneration, wording.Count(r.SyncCount, "sync"))
	if r.SyncCount == 0 {
		synced = "never synced"
	}
	line("generation", "%d (%s), made %s (%s)", r.Generation, synced, r.GenerationAt.Format(time.RFC3339), wording.When(&r.GenerationAt, now))
	if r.Revision != nil {
		line("revision", "%d", *r.Revision)
	}
	if r.ObjectVersion != 0 {
		line("version", "%d of its Go type", r.ObjectVersion)
	}
	if r.Shard != "" {
		line("shard", "%s", r.Shard)
	}
	if r.LimitKey != "" {
		line("limit key", "%s", formatLimitKey(r.LimitKey, key, now))
	}
	if r.Parents != nil {
		line("parents", "%s", wording.Line(strings.Join(formatRefs(r.Parents), ", ")))
	}
	if r.AwaitedParents != nil {
		line("awaits", "%s", wording.Line(strings.Join(formatRefs(r.AwaitedParents), ", ")))
	}
	tries := fmt.Sprintf("%d of %d", r.Attempt, r.MaxAttempts)
	if r.Snoozes > 0 {
		tries += fmt.Sprintf(", and %s", wording.Count(int64(r.Snoozes), "snooze"))
	}
	line("tries", "%s", tries)
	line("priority", "%d", r.Priority)
	at("created", &r.CreatedAt)
	at("outside", r.ExternalCreatedAt)
	at("tried", r.AttemptedAt)
	at("synced", r.SyncedAt)
	at("listed", r.ListedAt)
	if r.DueAt != nil {
		line("next step", "%s (%s): %s", r.DueAt.Format(time.RFC3339), wording.When(r.DueAt, now), nextStep(r))
	}
	if r.DispatchAt != nil {
		line("dispatch", "%s (%s): when a dispatcher looks at it", r.DispatchAt.Format(time.RFC3339), wording.When(r.DispatchAt, now))
	}
	if r.ClaimedUntil != nil {
		line("claimed", "until %s (%s), or longer if it was renewed", r.ClaimedUntil.Format(time.RFC3339), wording.When(r.ClaimedUntil, now))
	}
	for _, snooze := range snoozes {
		if snooze.Kind == r.ObjectKind || snooze.Namespace == r.Namespace {
			what := "namespace"
			if snooze.Kind != "" {
				what = "kind"
			}
			line("snoozed", "its %s, until %s (%s)", what, snooze.Until.Format(time.RFC3339), wording.When(&snooze.Until, now))
		}
	}
	if r.WorkflowID != "" {
		line("workflow", "%s", wording.Line(r.WorkflowID))
	}
	if len(r.Tags) > 0 {
		line("tags", "%s", strings.Join(r.Tags, ", "))
	}
	if r.HashedID != "" {
		line("hashed id", "%s", r.HashedID)
	}
	line("row", "%d", r.ID)
	line("hash", "%x", r.Hash)
	block := func(name string, encoded []byte) {
		var text bytes.Buffer
		if json.Indent(&text, encoded, "  ", "  ") != nil {
			text.Reset()
			text.WriteString(wording.Line(string(encoded)))
		}
		fmt.Fprintf(&b, "\n%s\n  %s\n", name, text.String())
	}
	if deltatype.IsEncoded(r.EncodedObject) {
		c.writeEncodedNote(&b, len(r.EncodedObject))
	} else {
		block("object", r.EncodedObject)
	}
	if string(r.Metadata) != "{}" {
		block("metadata", r.Metadata)
	}
	if len(r.Errors) > 0 {
		fmt.Fprint(&b, "\nerrors, oldest first\n")
	}
	for _, e := range r.Errors {
		c.writeError(&b, e, now)
	}
	if n := len(r.Errors); n > 0 && r.Errors[n-1].Trace != "" {
		fmt.Fprint(&b, "\nstack of the latest error\n")
		for text := range strings.Lines(r.Errors[n-1].Trace) {
			text = wording.Line(text)
			if c.width > 0 {
				text = truncateText(text, max(c.width-2, minColumnWidth))
			}
			fmt.Fprintf(&b, "  %s\n", text)
		}
	}
	_, err := fmt.Fprint(c.out, b.String())
	return err
}

// writeEncodedNote writes, in place of an object that this command cannot decode, how to read it.
func (c *cli) writeEncodedNote(b *strings.Builder, size int) {
	fmt.Fprint(b, "\nobject\n")
	for _, text := range wrapText(fmt.Sprintf("It is encoded (%s) by Config.ObjectCodec of the clients, and this command has no codec. To read it, open the console that a program "+
		"with the codec serves (package console), or call Client.Get there. -o json prints the stored form.", wording.Count(size, "byte")), max(c.width-2, 0)) {
		fmt.Fprintf(b, "  %s\n", text)
	}
}

// writeError writes the error of an attempt. Attempt 0 is an error before the first attempt.
func (c *cli) writeError(b *strings.Builder, e deltatype.AttemptError, now time.Time) {
	fmt.Fprintf(b, "  %s  try %d (%s)\n", e.At.Format(time.RFC3339), e.Attempt, wording.When(&e.At, now))
	for _, text := range wrapText(wording.Line(e.Error), max(c.width-4, 0)) {
		fmt.Fprintf(b, "    %s\n", text)
	}
}
