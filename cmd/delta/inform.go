package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/wording"
)

// informFlags has the flags of delta inform.
type informFlags struct {
	params  delta.ScheduleInformParams
	options delta.InformOptions
	after   string
	timeout time.Duration
}

func informCommand(c *cli) *cobra.Command {
	var f informFlags
	cmd := &cobra.Command{
		Use:   "inform KIND",
		Short: "Run a kind's informer once, now, and wait for it",
		Long: "Run the informer of a kind now, in one of the running clients, and show its progress. The command ends when everything is listed.\n" +
			"With --foreground it ends when all listed resources have settled, and fails if any of them is degraded.\n\n" +
			"The run continues from the kind's cursor, unless you pass --after, --cursor or --full. For a kind with shards it lists all of them, each\n" +
			"from its own cursor, or only the one of --shard. The controller decides what --label and --order-by mean.\n" +
			"Ctrl-C or --timeout ends the waiting, not the run.",
		Example: "  delta inform user --foreground\n" +
			"  delta inform user --after 24h --label plan=pro",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: c.completeKindFirst,
		RunE: func(cmd *cobra.Command, args []string) error {
			f.params.ResourceKind = args[0]
			if err := f.validate(time.Now()); err != nil {
				return err
			}
			return c.withSession(cmd, func(ctx context.Context, s *session) error { return c.runInformer(ctx, s, &f) })
		},
	}
	c.addTemporalFlags(cmd)
	flags := cmd.Flags()
	flags.BoolVar(&f.params.ProcessExisting, "process-existing", false, "also sync objects that did not change")
	flags.BoolVar(&f.params.RunForeground, "foreground", false, "wait until all listed resources have settled")
	addShardFlag(cmd, &f.options.Shard, "list only this `shard` of the kind")
	flags.BoolVar(&f.params.FullListing, "full", false, "list everything, whatever the kind's cursor is")
	flags.BoolVar(&f.params.Force, "force", false, "also accept objects that are older than the stored ones")
	flags.StringVar(&f.after, "after", "", "list objects newer than this `time`: RFC 3339, or a duration before now such as 24h")
	flags.StringVar(&f.options.Cursor, "cursor", "", "`position` to begin at, in the informer's own format")
	flags.IntVar(&f.options.Limit, "limit", 0, "`maximum` number of objects to list; 0 for no limit")
	flags.StringToStringVar(&f.options.Labels, "label", nil, "list only objects with this label, `name=value`; repeat it for more")
	flags.StringVar(&f.options.OrderBy, "order-by", "", "`order`, such as \"created_at DESC\"")
	flags.DurationVar(&f.timeout, "timeout", 0, "how `long` to wait; 0 for no limit")
	return cmd
}

func (f *informFlags) validate(now time.Time) error {
	if f.options.Limit < 0 {
		return fmt.Errorf("--limit %d: must be positive, or 0 for no limit", f.options.Limit)
	}
	if f.timeout < 0 {
		return fmt.Errorf("--timeout %s: must be positive, or 0 for no limit", f.timeout)
	}
	if f.params.FullListing && (f.after != "" || f.options.Cursor != "") {
		return errors.New("--full lists everything: it must not be given together with --after or --cursor")
	}
	if f.after == "" {
		return nil
	}
	at, err := time.Parse(time.RFC3339, f.after)
	if err != nil {
		ago, err := time.ParseDuration(f.after)
		if err != nil || ago < 0 {
			return fmt.Errorf("--after %q: must be a time as 2026-01-31T12:00:00Z, or a duration before now as 24h", f.after)
		}
		at = now.Add(-ago)
	}
	at = at.UTC()
	f.options.After = &at
	return nil
}

// informJSON is the result of a run as --output json shows it.
type informJSON struct {
	Kind       string  `json:"kind"`
	WorkflowID string  `json:"workflow_id"`
	RunID      string  `json:"run_id"`
	Listed     int     `json:"listed"`
	Scheduled  int     `json:"scheduled"`
	Refused    int     `json:"refused"`
	Unkept     int     `json:"unkept"`
	Stale      int     `json:"stale"`
	Deleted    int     `json:"deleted"`
	Withheld   int64   `json:"withheld"`
	Error      *string `json:"error"`
}

// deadlineSkew is how much earlier than its context a call may fail with DeadlineExceeded.
const deadlineSkew = 100 * time.Millisecond

var errTimeout = errors.New("--timeout has passed")

func (c *cli) runInformer(ctx context.Context, s *session, f *informFlags) error {
	kind := f.params.ResourceKind
	if err := s.requireKind(ctx, kind); err != nil {
		return err
	}
	if err := s.requireTemporal(ctx); err != nil {
		return err
	}
	status, err := s.TemporalStatus(ctx, kind)
	if err != nil {
		return err
	}
	if there := status.Kinds[kind]; there.Error == nil && len(there.InformWorkers) == 0 {
		c.printNote(fmt.Sprintf("No worker polls %s: the run waits until a client with kind %s is started.", there.InformTaskQueue, kind))
	}
	watching := ctx
	if f.timeout > 0 {
		var cancel context.CancelFunc
		watching, cancel = context.WithTimeoutCause(ctx, f.timeout, errTimeout)
		defer cancel()
	}
	p := c.newProgress(kind)
	run, err := s.WatchInform(watching, f.params, &f.options, p.report)
	p.end()
	if deadline, bounded := watching.Deadline(); bounded && err != nil && time.Until(deadline) < deadlineSkew {
		<-watching.Done() // the call's deadline passes a moment before the context's
	}
	if err != nil && watching.Err() != nil {
		if run != nil {
			c.printNote("The run goes on in Temporal: workflow " + run.WorkflowID)
		}
		return context.Cause(watching)
	}
	if run == nil {
		return err
	}
	out := informJSON{
		Kind: kind, WorkflowID: run.WorkflowID, RunID: run.RunID, Listed: run.Listed, Scheduled: run.Scheduled,
		Refused: run.Refused, Unkept: run.Unkept, Stale: run.Stale, Deleted: run.Deleted, Withheld: run.Withheld,
	}
	if err != nil {
		text := formatError(err)
		out.Error = &text
	}
	done, printErr := c.printJSON(out)
	if !done && err == nil {
		_, printErr = fmt.Fprintln(c.out, out.formatSummary(f.params.RunForeground))
	}
	if run.Refused > 0 {
		c.printNote(wording.Count(run.Refused, "object") + " refused. All others were taken: delta kinds " + kind + " shows which were not, and why.")
	}
	if run.Unkept > 0 {
		c.printNote(wording.Number(run.Unkept) + " of them not kept (too large, or too many): when they are valid, a listing has to name them again: delta inform " + kind + " --full.")
	}
	if run.Withheld > 0 {
		c.printNote(wording.Count(run.Withheld, "resource") + " gone from the listing, of which none was marked deleted before somebody decides: delta kinds says why.")
	}
	return errors.Join(err, printErr)
}

func (r informJSON) formatSummary(foreground bool) string {
	text := fmt.Sprintf("%s: %s listed", r.Kind, wording.Number(r.Listed))
	if r.Scheduled == 0 {
		text += ", none to sync"
	} else {
		text += fmt.Sprintf(", %s to sync", wording.Number(r.Scheduled))
	}
	if r.Stale > 0 {
		text += fmt.Sprintf(", %s older than what is stored", wording.Number(r.Stale))
	}
	if r.Deleted > 0 {
		text += fmt.Sprintf(", %s gone and marked deleted", wording.Number(r.Deleted))
	}
	if foreground {
		text += "; all have settled"
	}
	return text
}
