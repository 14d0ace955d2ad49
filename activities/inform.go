package activities

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"go.temporal.io/sdk/temporal"

	"github.com/chariot-giving/delta/delta/deltatype"
)

// NoInformer is the type of the error of a pass of a kind that lists nothing.
const NoInformer = "delta.NoInformer"

// InformInput says what a pass lists.
type InformInput struct {
	Installation string `json:"installation"`
	Kind         string `json:"kind"`
	// Options reach the informer. Where they have neither After nor Cursor, those of the kind are filled in.
	Options deltatype.InformOptions `json:"options,omitzero"`
	// Trigger names the start of the run, by one of the Trigger constants; empty for a workflow that a person started in Temporal.
	Trigger string `json:"trigger,omitempty"`
	// FullListing has everything listed: the kind's cursor is left out.
	FullListing bool `json:"full_listing,omitempty"`
	// Every is the interval of the schedule that started the run, where it has parts of a second; 0 otherwise.
	Every time.Duration `json:"every,omitempty"`
	// ProcessExisting also schedules objects that did not change.
	ProcessExisting bool `json:"process_existing,omitempty"`
	// RunForeground has the run wait until all that it informed has settled.
	RunForeground bool `json:"run_foreground,omitempty"`
	// Force writes what is listed although it is older than what is stored.
	Force bool `json:"force,omitempty"`
	// Named says that the run has the pass list the shard in Options: the controller named it, or, with Gone, no longer does. Then nothing is
	// listed, and what is left of the shard is withheld until somebody has decided.
	Named bool `json:"named,omitempty"`
	Gone  bool `json:"gone,omitempty"`
	// Pass identifies the run, where what it lists has to be remembered.
	Pass string `json:"pass,omitempty"`
}

// Listing says how the listings of a kind are taken.
type Listing struct {
	// Overlap is how far before the cursor the next pass begins, for clocks that differ and objects that show up late.
	Overlap time.Duration
	// Complete says that every listing names all there is, Full that those do which have no cursor: what they leave out is gone.
	Complete, Full bool
	// MostDeleted is how many resources one listing may mark deleted in any case; more than that only up to MostDeletedShare
	// of all of the kind. A share of 1 lets a listing delete everything, also one that names nothing.
	MostDeleted      int
	MostDeletedShare float64
}

// InformProgress counts what a pass has listed so far; it is what heartbeats carry and what the pass returns.
type InformProgress struct {
	// Listed counts objects, Scheduled those that started a new generation, Refused those that break a rule and were not taken.
	Listed    int `json:"listed"`
	Scheduled int `json:"scheduled"`
	Refused   int `json:"refused,omitempty"`
	// Unkept counts those of the refused whose object is not kept: it is too large, Postgres cannot store it, or there are too many.
	Unkept int `json:"unkept,omitempty"`
	// Stale counts those that were older than what is stored, and changed nothing.
	Stale int `json:"stale,omitempty"`
	// Deleted counts resources that a complete listing no longer had.
	Deleted int `json:"deleted,omitempty"`
	// Withheld counts those that were not marked deleted, because somebody has to decide of them first.
	Withheld int64 `json:"withheld,omitempty"`
	// Shards are what the run is to list, where the controller has named them instead.
	Shards *ShardRun `json:"shards,omitempty"`
	// Pass says more of the pass, to people who look at it in Temporal; nil where there was none.
	Pass *PassReport `json:"pass,omitempty"`
}

// Add returns the sum with what another pass of the run came to.
func (p InformProgress) Add(o InformProgress) InformProgress {
	return InformProgress{
		Listed: p.Listed + o.Listed, Scheduled: p.Scheduled + o.Scheduled, Refused: p.Refused + o.Refused, Unkept: p.Unkept + o.Unkept, Stale: p.Stale + o.Stale,
		Deleted: p.Deleted + o.Deleted, Withheld: p.Withheld + o.Withheld, Pass: p.Pass.add(o.Pass),
	}
}

// InformPass lists once what exists outside and writes it in pages. The cursor moves only after a complete pass: one
// that was cut off, by an error, a timeout or the death of the worker, is repeated from where the last complete one
// left it, and finds what it wrote unchanged.
func (a *Activities) InformPass(ctx context.Context, in InformInput) (progress InformProgress, err error) {
	if err := a.checkTarget(in.Installation, in.Kind); err != nil {
		return InformProgress{}, err
	}
	if err := a.checkLists(); err != nil {
		return InformProgress{}, a.newPass(ctx, in).refuseRun(ctx, err)
	}
	if a.needsShards(in) {
		return a.nameShards(ctx, in)
	}
	// Beside the progress that the pass reports itself, for when a page has to wait for a lock.
	defer a.startHeartbeat(ctx)()
	ctx, end := a.beginStep(ctx, PassLists, in)
	p := a.newPass(ctx, in)
	err = p.run(ctx)
	end(p.makeObservation(ctx, err))
	return p.progress, p.endPass(ctx, err)
}

// checkLists refuses passes of a kind without an informer.
func (a *Activities) checkLists() error {
	if !a.Handler.ListsNothing() {
		return nil
	}
	return temporal.NewNonRetryableApplicationError(
		fmt.Sprintf("informing kind %s: its controller embeds delta.NoInformer, so it lists nothing", a.Handler.Kind()), NoInformer, nil)
}

// boundPass gives a pass whose informer is given these options its timeout, which is negative for none, and ends it when the client stops.
func (a *Activities) boundPass(
	ctx context.Context, in InformInput, options deltatype.InformOptions,
) (bounded context.Context, timeout time.Duration, end func()) {
	in.Options = a.withEpoch(options)
	timeout = cmp.Or(a.Handler.InformTimeout(in), a.InformTimeout)
	ctx, unlink := a.untilStopped(ctx)
	ctx, cancel := withTimeout(ctx, timeout)
	return ctx, timeout, func() { cancel(); unlink() }
}
