package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/remedy"
	"github.com/chariot-giving/delta/internal/wording"
)

func kindsCommand(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "kinds [KIND...]",
		Short: "Count resources by kind and state, and show the status of informers",
		Long: "Count the resources of each kind by state, and show for each informer when a pass last succeeded, and its lag: the time since\n" +
			"that success, if the latest pass failed or a run is missing.\n\n" +
			"A resource is late if its next step is more than a minute overdue, or its worker was lost more than a minute ago. An object is\n" +
			"refused if a listing named it but it breaks a rule, which is shown below. Only Temporal knows when informers run next: without\n" +
			"Temporal that column shows a question mark.",
		ValidArgsFunction: c.completeKinds,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.withSession(cmd, func(ctx context.Context, s *session) error { return c.printKinds(ctx, s, args) })
		},
	}
	c.addTemporalFlags(cmd)
	return cmd
}

func (c *cli) printKinds(ctx context.Context, s *session, only []string) error {
	for _, kind := range only {
		if err := s.requireKind(ctx, kind); err != nil {
			return err
		}
	}
	all, err := s.Kinds(ctx)
	if err != nil {
		return err
	}
	all = selectKinds(all, only)
	status, temporalErr := s.readTemporalStatus(ctx, all)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	now := time.Now()
	out := kindsJSON{Kinds: make([]kindJSON, len(all))}
	for i, k := range all {
		out.Kinds[i] = toKindJSON(k, status)
	}
	if out.Refused, err = readRefused(ctx, s, all); err != nil {
		return err
	}
	if temporalErr != nil {
		text := formatError(temporalErr)
		out.TemporalError = &text
	}
	if done, err := c.printJSON(out); done {
		return err
	}
	if len(all) == 0 {
		c.printNote("There are no kinds yet: no client has started on this database, and it has no resources.")
		return nil
	}
	if err := c.printCountTable(out.Kinds); err != nil {
		return err
	}
	for _, k := range out.Kinds {
		c.printResourceNotes(k, now)
	}
	_, _ = fmt.Fprintln(c.out)
	if err := c.printInformerTable(out.Kinds, now, temporalErr == nil); err != nil {
		return err
	}
	if err := c.printShardTable(out.Kinds, now); err != nil {
		return err
	}
	if err := c.printSourceTable(out.Kinds, now); err != nil {
		return err
	}
	for _, k := range out.Kinds {
		c.printInformerNotes(k)
	}
	if err := c.printRefusedTable(out.Refused, now); err != nil {
		return err
	}
	if temporalErr != nil {
		c.printNote("When informers run next is not known: " + wording.Line(*out.TemporalError))
	}
	return nil
}

// printResourceNotes says which resources of a kind wait for something, or were not taken.
func (c *cli) printResourceNotes(k kindJSON, now time.Time) {
	if k.Queued > 0 {
		c.printNote(fmt.Sprintf("%s: %s for slots of %s, the first %s", k.Kind, wording.Count(k.Queued, "resource")+" waiting", wording.Count(k.QueuedKeys, "limit key"),
			wording.When(k.OldestQueued, now)))
	}
	if k.Awaiting > 0 {
		c.printNote(fmt.Sprintf("%s: %s for %s to be synced, the first %s", k.Kind, wording.Count(k.Awaiting, "resource")+" waiting",
			wording.Count(k.AwaitedParents, "parent"), wording.When(k.OldestAwaiting, now)))
	}
	if k.Touches > 0 {
		c.printNote(fmt.Sprintf("%s: the children of %s, the first %s, are being touched", k.Kind, wording.Count(k.Touches, "changed parent"), wording.When(k.OldestTouch, now)))
	}
	if k.Undecodable > 0 {
		c.printNote(fmt.Sprintf("%s: %s waiting for a worker that understands their stored objects: %s", k.Kind, wording.Count(k.Undecodable, "resource"),
			remedy.UnderstandObjects(k.Kind)))
	}
	if k.Stale > 0 {
		c.printNote(fmt.Sprintf("%s: %s listed in an older version than the stored one, pass after pass, and not taken: "+
			"is their Compare, or Revision, right? (delta inform %s --force takes them)", k.Kind, wording.Count(k.Stale, "object"), k.Kind))
	}
}

// printInformerNotes prints the error of the latest pass, and the open decisions on withheld deletions.
func (c *cli) printInformerNotes(k kindJSON) {
	if e := k.Informer.Error; e != nil {
		what := "the latest pass failed"
		if len(k.Informer.Shards) > 0 {
			what = "the shards could not be named"
		}
		c.printNote(fmt.Sprintf("%s: %s: %s", k.Kind, what, wording.Line(*e)))
	}
	c.printShardNotes(k)
	if w := k.Informer.Withheld; w != nil && w.Decision == "" {
		c.printNote(fmt.Sprintf("%s: the listings leave out %s resources since %s (%s): none is marked deleted. "+
			"Decide with delta informs approve %s, or dismiss.", k.Kind, w.formatMissing(), w.Since.Format(time.RFC3339), w.Reason, k.Kind))
	}
}

func selectKinds(all []delta.KindStatus, only []string) []delta.KindStatus {
	if len(only) == 0 {
		return all
	}
	var left []delta.KindStatus
	for _, k := range all {
		for _, name := range only {
			if k.Kind == name {
				left = append(left, k)
				break
			}
		}
	}
	return left
}

// readTemporalStatus reads the status of kinds from Temporal.
func (s *session) readTemporalStatus(ctx context.Context, all []delta.KindStatus) (*delta.TemporalStatus, error) {
	if err := s.requireTemporal(ctx); err != nil {
		return nil, err
	}
	names := make([]string, len(all))
	for i, k := range all {
		names[i] = k.Kind
	}
	status, err := s.TemporalStatus(ctx, names...)
	if err != nil {
		return nil, err
	}
	return status, joinKindErrors(status)
}

// joinKindErrors returns the errors of reading the status of kinds from Temporal; nil if there are none.
func joinKindErrors(status *delta.TemporalStatus) error {
	var all []error
	for _, kind := range slices.Sorted(maps.Keys(status.Kinds)) {
		if err := status.Kinds[kind].Error; err != nil {
			all = append(all, fmt.Errorf("kind %s: %w", kind, err))
		}
	}
	return errors.Join(all...)
}
