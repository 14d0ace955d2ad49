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

// countedBefore is how far resources are counted before a question.
const countedBefore = 1000

// choosing is something that is done to resources by name, or to all that filters choose.
type choosing struct {
	// verb is its name; doneOne and doneMany say of one, and of a number of them, that it is done.
	verb, doneOne, doneMany string
	// states are those that filters take, usual those where no state is given.
	states, usual []deltatype.ResourceState
	// everything tells that there is --all; asks, that it asks before resources by name too.
	everything, asks bool
	one              func(s *session) func(ctx context.Context, kind, id string) (*deltatype.ResourceRow, error)
	many             func(s *session) func(context.Context, delta.Filter) (int, error)
}

// undeleted are all states but deleted.
func undeleted() []deltatype.ResourceState {
	return slices.DeleteFunc(deltatype.ResourceStates(), func(s deltatype.ResourceState) bool { return s == deltatype.ResourceStateDeleted })
}

// chosenFlags are those of such a command.
type chosenFlags struct {
	filterFlags
	yes, all, dry bool
}

// command makes a command of it, whose flags and arguments are added.
func (ch choosing) command(c *cli, cmd *cobra.Command) *cobra.Command {
	var f chosenFlags
	which := "KIND ID... | filters"
	if ch.everything {
		which += " | --all"
		cmd.Flags().BoolVar(&f.all, "all", false, "all "+joined(ch.usual, "and")+" resources")
	}
	cmd.Use = ch.verb + " (" + which + ")"
	f.add(c, cmd)
	cmd.Flags().BoolVarP(&f.yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&f.dry, "dry-run", false, "for filters: say how many there are, and do nothing")
	cmd.ValidArgsFunction = c.completeKindFirst
	cmd.Args = func(cmd *cobra.Command, args []string) error { return ch.check(cmd, &f, args) }
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.with(cmd, func(ctx context.Context, s *session) error {
			if len(args) > 0 {
				return c.actNamed(ctx, s, ch, &f, args[0], args[1:])
			}
			return c.actChosen(ctx, s, ch, &f)
		})
	}
	return cmd
}

func (ch choosing) check(cmd *cobra.Command, f *chosenFlags, args []string) error {
	switch byFilter := f.all || f.any(cmd); {
	case byFilter && len(args) > 0:
		return errors.New("give names or filters, not both")
	case f.all && f.narrows(cmd):
		return errors.New("give --all or filters, not both: --state is the only one that goes with it")
	case len(args) == 1:
		return errors.New("give the id of a resource too, or --kind " + args[0])
	case !byFilter && len(args) == 0 && ch.everything:
		return errors.New("say which: KIND ID, filters, or --all")
	case !byFilter && len(args) == 0:
		return errors.New("say which: KIND ID, or filters")
	case len(args) > 0 && f.dry:
		return errors.New("--dry-run is for filters: look at resources by name with get")
	}
	if name := f.empty(cmd); name != "" {
		return fmt.Errorf("--%s must not be empty: it would choose everything", name)
	}
	for _, state := range f.states {
		if !slices.Contains(ch.states, deltatype.ResourceState(state)) {
			return fmt.Errorf("--state %s: must be %s: %s leaves the others as they are", state, joined(ch.states, "or"), ch.verb)
		}
	}
	return nil
}

func (c *cli) actNamed(ctx context.Context, s *session, ch choosing, f *chosenFlags, kind string, ids []string) error {
	if ch.asks {
		what := fmt.Sprintf("%s/%s", kind, wording.Line(ids[0]))
		if n := len(ids); n > 1 {
			what = fmt.Sprintf("%s of kind %s", wording.Count(n, "resource"), kind)
		}
		if err := c.confirm(ctx, f.yes, ch.title()+" "+what+"?"); err != nil {
			return err
		}
	}
	return c.act(ctx, ch.verb, ch.doneOne, kind, ids, ch.one(s))
}

// actChosen does it to all that the filters choose.
func (c *cli) actChosen(ctx context.Context, s *session, ch choosing, f *chosenFlags) error {
	filter := f.filter()
	filter.All = f.all
	if len(filter.States) == 0 {
		filter.States = ch.usual
	}
	if f.dry {
		return c.dryRun(ctx, s, ch, filter)
	}
	if !f.yes {
		found, err := s.List(ctx, filter, delta.Page{Limit: countedBefore})
		if err != nil {
			return err
		}
		what := wording.Count(len(found), "resource")
		if len(found) == countedBefore {
			what = wording.Number(countedBefore) + " resources or more"
		}
		if len(found) > 0 {
			if err := c.confirm(ctx, false, ch.title()+" "+what+"?"); err != nil {
				return err
			}
		}
	}
	count, err := ch.many(s)(ctx, filter)
	if err != nil {
		return fmt.Errorf("after %s: %w", wording.Count(count, "resource"), err)
	}
	if done, err := c.json(actionJSON{Action: ch.verb, Count: count, Resources: []resourceJSON{}, Failed: []failedJSON{}}); done {
		return err
	}
	_, err = fmt.Fprintf(c.out, "%s %s\n", wording.Count(count, "resource"), ch.doneMany)
	return err
}

// dryRun counts what the filters choose.
func (c *cli) dryRun(ctx context.Context, s *session, ch choosing, filter delta.Filter) error {
	count := 0
	for page := (delta.Page{Limit: countedBefore}); ; {
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
	if done, err := c.json(actionJSON{Action: ch.verb, DryRun: true, Count: count, Resources: []resourceJSON{}, Failed: []failedJSON{}}); done {
		return err
	}
	_, err := fmt.Fprintf(c.out, "%s: nothing was done\n", wording.Count(count, "resource"))
	return err
}

func (ch choosing) title() string { return strings.ToUpper(ch.verb[:1]) + ch.verb[1:] }

// joined names states: "a, b or c".
func joined(states []deltatype.ResourceState, word string) string {
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
