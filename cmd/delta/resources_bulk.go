package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/wording"
)

// maxCounted is how many resources are counted at most for the question before a command.
const maxCounted = 1000

// bulkCommand is a command for resources by name, or for all resources that filters select.
type bulkCommand struct {
	// verb is the command's name; doneOne and doneMany are printed after the name or the number of resources, when it is done.
	verb, doneOne, doneMany string
	// states are the values that --state accepts, and defaultStates those without --state.
	states, defaultStates []deltatype.ResourceState
	// hasAllFlag reports whether the command has --all, and isAskingFirst whether it asks before resources by name too.
	hasAllFlag, isAskingFirst bool
	one                       func(s *session) func(ctx context.Context, kind, id string) (*deltatype.ResourceRow, error)
	many                      func(s *session) func(context.Context, delta.Filter) (int, error)
}

// undeletedStates returns all states but deleted.
func undeletedStates() []deltatype.ResourceState {
	return slices.DeleteFunc(deltatype.ResourceStates(), func(s deltatype.ResourceState) bool { return s == deltatype.ResourceStateDeleted })
}

// bulkFlags has the flags of a bulkCommand.
type bulkFlags struct {
	filterFlags
	yes, all, dry bool
}

// newCommand completes cmd with the name, flags and arguments of the command.
func (ch bulkCommand) newCommand(c *cli, cmd *cobra.Command) *cobra.Command {
	var f bulkFlags
	which := "KIND ID... | filters"
	if ch.hasAllFlag {
		which += " | --all"
		cmd.Flags().BoolVar(&f.all, "all", false, "all "+joinStates(ch.defaultStates, "and")+" resources")
	}
	cmd.Use = ch.verb + " (" + which + ")"
	f.addFlags(c, cmd)
	cmd.Flags().BoolVarP(&f.yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&f.dry, "dry-run", false, "with filters: only count the resources")
	cmd.ValidArgsFunction = c.completeKindFirst
	cmd.Args = func(cmd *cobra.Command, args []string) error { return ch.validate(cmd, &f, args) }
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.withSession(cmd, func(ctx context.Context, s *session) error {
			if len(args) > 0 {
				return c.runOnNamed(ctx, s, ch, &f, args[0], args[1:])
			}
			return c.runOnFiltered(ctx, s, ch, &f)
		})
	}
	return cmd
}

func (ch bulkCommand) validate(cmd *cobra.Command, f *bulkFlags, args []string) error {
	switch byFilter := f.all || f.isAnySet(cmd); {
	case byFilter && len(args) > 0:
		return errors.New("use names or filters, not both")
	case f.all && f.isNarrowing(cmd):
		return errors.New("use --all or filters, not both: only --state can be used with --all")
	case len(args) == 1:
		return errors.New("missing id of the resource: use KIND ID, or --kind " + args[0])
	case !byFilter && len(args) == 0 && ch.hasAllFlag:
		return errors.New("no resources selected: use KIND ID, filters, or --all")
	case !byFilter && len(args) == 0:
		return errors.New("no resources selected: use KIND ID, or filters")
	case len(args) > 0 && f.dry:
		return errors.New("--dry-run needs filters: to inspect resources by name, use get")
	}
	if name := f.findEmptyFlag(cmd); name != "" {
		return fmt.Errorf("--%s must not be empty: it would select everything", name)
	}
	for _, state := range f.states {
		if !slices.Contains(ch.states, deltatype.ResourceState(state)) {
			return fmt.Errorf("--state %s: must be %s: %s does not change others", state, joinStates(ch.states, "or"), ch.verb)
		}
	}
	return nil
}

func (c *cli) runOnNamed(ctx context.Context, s *session, ch bulkCommand, f *bulkFlags, kind string, ids []string) error {
	if ch.isAskingFirst {
		what := fmt.Sprintf("%s/%s", kind, wording.Line(ids[0]))
		if n := len(ids); n > 1 {
			what = fmt.Sprintf("%s of kind %s", wording.Count(n, "resource"), kind)
		}
		if err := c.askToConfirm(ctx, f.yes, ch.capitalizedVerb()+" "+what+"?"); err != nil {
			return err
		}
	}
	return c.runOnEach(ctx, ch.verb, ch.doneOne, kind, ids, ch.one(s))
}

// runOnFiltered runs the command on all resources that the filters select.
func (c *cli) runOnFiltered(ctx context.Context, s *session, ch bulkCommand, f *bulkFlags) error {
	filter := f.toFilter()
	filter.All = f.all
	if len(filter.States) == 0 {
		filter.States = ch.defaultStates
	}
	if f.dry {
		return c.countFiltered(ctx, s, ch, filter)
	}
	if !f.yes {
		found, err := s.List(ctx, filter, delta.Page{Limit: maxCounted})
		if err != nil {
			return err
		}
		what := wording.Count(len(found), "resource")
		if len(found) == maxCounted {
			what = wording.Number(maxCounted) + " resources or more"
		}
		if len(found) > 0 {
			if err := c.askToConfirm(ctx, false, ch.capitalizedVerb()+" "+what+"?"); err != nil {
				return err
			}
		}
	}
	count, err := ch.many(s)(ctx, filter)
	if err != nil {
		return fmt.Errorf("after %s: %w", wording.Count(count, "resource"), err)
	}
	if done, err := c.printJSON(actionJSON{Action: ch.verb, Count: count, Resources: []resourceJSON{}, Failed: []failedJSON{}}); done {
		return err
	}
	_, err = fmt.Fprintf(c.out, "%s %s\n", wording.Count(count, "resource"), ch.doneMany)
	return err
}

// countFiltered counts the resources that the filters select.
func (c *cli) countFiltered(ctx context.Context, s *session, ch bulkCommand, filter delta.Filter) error {
	count := 0
	for page := (delta.Page{Limit: maxCounted}); ; {
		found, err := s.List(ctx, filter, page)
		if err != nil {
			return err
		}
		count += len(found)
		if len(found) < page.Limit {
			break
		}
		page.After = found[len(found)-1].ID
	}
	if done, err := c.printJSON(actionJSON{Action: ch.verb, DryRun: true, Count: count, Resources: []resourceJSON{}, Failed: []failedJSON{}}); done {
		return err
	}
	_, err := fmt.Fprintf(c.out, "%s: nothing was done\n", wording.Count(count, "resource"))
	return err
}

func (ch bulkCommand) capitalizedVerb() string { return strings.ToUpper(ch.verb[:1]) + ch.verb[1:] }

// joinStates lists states as "a, b or c".
func joinStates(states []deltatype.ResourceState, word string) string {
	var b strings.Builder
	for i, state := range states {
		switch {
		case i > 0 && i == len(states)-1:
			b.WriteString(" " + word + " ")
		case i > 0:
			b.WriteString(", ")
		}
		b.WriteString(string(state))
	}
	return b.String()
}

// actionJSON is the output of a bulkCommand with --output json.
type actionJSON struct {
	Action    string         `json:"action"`
	DryRun    bool           `json:"dry_run,omitempty"`
	Count     int            `json:"count"`
	Resources []resourceJSON `json:"resources"`
	Failed    []failedJSON   `json:"failed"`
}

type failedJSON struct {
	Kind     string `json:"kind"`
	ObjectID string `json:"object_id"`
	Error    string `json:"error"`
}

// runOnEach calls do for each of the named resources, also after one of them failed. The exit code is that of the first error.
func (c *cli) runOnEach(ctx context.Context, action, done, kind string, ids []string,
	do func(ctx context.Context, kind, id string) (*deltatype.ResourceRow, error),
) error {
	var rows []*deltatype.ResourceRow
	var first error
	failed := []failedJSON{}
	for _, id := range ids {
		row, err := do(ctx, kind, id)
		if err != nil {
			if ctx.Err() != nil {
				return err
			}
			if first == nil {
				first = err
			}
			failed = append(failed, failedJSON{Kind: kind, ObjectID: id, Error: formatError(err)})
			continue
		}
		rows = append(rows, row)
		if c.output == outputTable {
			_, _ = fmt.Fprintf(c.out, "%s/%s %s\n", row.ObjectKind, wording.Line(row.ObjectID), done)
		}
	}
	if _, err := c.printJSON(actionJSON{Action: action, Count: len(rows), Resources: toResourcesJSON(rows), Failed: failed}); err != nil {
		return err
	}
	if first == nil {
		return nil
	}
	for _, f := range failed {
		c.printNote("delta: " + f.Error)
	}
	return &silentExit{exitCodeOf(markFailure(first))}
}
