package activities

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"go.temporal.io/sdk/temporal"

	"github.com/chariot-giving/delta/delta/deltatype"
)

// NoInformer is the type of the error of a pass of a kind without an informer.
const NoInformer = "delta.NoInformer"

// InformInput is the input of a pass.
type InformInput struct {
	Installation string `json:"installation"`
	Kind         string `json:"kind"`
	// Options reach the informer. Without After and Cursor, those of the kind are added.
	Options deltatype.InformOptions `json:"options,omitzero"`
	// Trigger says how the run was started, by a Trigger constant; empty for a workflow that a person started in
	// Temporal.
	Trigger string `json:"trigger,omitempty"`
	// FullListing lists everything: the kind's cursor is not used.
	FullListing bool `json:"full_listing,omitempty"`
	// Every is the interval of the schedule that started the run, where it has fractions of a second; 0 otherwise.
	Every time.Duration `json:"every,omitempty"`
	// ProcessExisting also schedules unchanged objects.
	ProcessExisting bool `json:"process_existing,omitempty"`
	// RunForeground makes the run wait until all that it informed has settled.
	RunForeground bool `json:"run_foreground,omitempty"`
	// Force writes listed objects even if they are older than the stored ones.
	Force bool `json:"force,omitempty"`
	// Named reports whether the run chose the shard in Options for this pass: the controller names it or, with Gone, no
	// longer does. A pass with Gone lists nothing, and withholds the deletion of the shard's resources until an
	// operator decides.
	Named bool `json:"named,omitempty"`
	Gone  bool `json:"gone,omitempty"`
	// Pass identifies the run, where its listing has to be recorded.
	Pass string `json:"pass,omitempty"`
}

// Listing has the settings of a kind's listings.
type Listing struct {
	// Overlap is how far before the cursor the next pass begins, for clocks that differ and objects that appear late.
	Overlap time.Duration
	// Complete reports whether every listing names all objects, Full whether those without a cursor do. Resources that
	// they leave out are gone.
	Complete, Full bool
	// MostDeleted is how many resources one listing may always mark deleted; more only up to MostDeletedShare of all of
	// the kind. With a share of 1 a listing may delete everything, even if it names nothing.
	MostDeleted      int
	MostDeletedShare float64
}

// InformProgress counts what a pass has listed so far. Heartbeats carry it, and the pass returns it.
type InformProgress struct {
	// Listed counts objects, Scheduled those that started a new generation, Refused those that break a rule and were
	// not taken.
	Listed    int `json:"listed"`
	Scheduled int `json:"scheduled"`
	Refused   int `json:"refused,omitempty"`
	// Unkept counts refused objects that are not kept: too large, impossible to store in Postgres, or too many.
	Unkept int `json:"unkept,omitempty"`
	// Stale counts objects that were older than the stored ones, and changed nothing.
	Stale int `json:"stale,omitempty"`
	// Deleted counts resources that a complete listing left out.
	Deleted int `json:"deleted,omitempty"`
	// Withheld counts resources that were not marked deleted because an operator has to decide first.
	Withheld int64 `json:"withheld,omitempty"`
	// Shards are the shards that the run lists, where the controller named some instead of a listing.
	Shards *ShardRun `json:"shards,omitempty"`
	// Pass is a report of the pass, for people in Temporal; nil where there was none.
	Pass *PassReport `json:"pass,omitempty"`
}

// Add returns the sum with the progress of another pass of the run.
func (p InformProgress) Add(o InformProgress) InformProgress {
	return InformProgress{
		Listed: p.Listed + o.Listed, Scheduled: p.Scheduled + o.Scheduled, Refused: p.Refused + o.Refused, Unkept: p.Unkept + o.Unkept, Stale: p.Stale + o.Stale,
		Deleted: p.Deleted + o.Deleted, Withheld: p.Withheld + o.Withheld, Pass: p.Pass.add(o.Pass),
	}
}

// InformPass lists the objects outside once and writes them in pages. The cursor moves only after a complete pass. A
// pass that was cut off, by an error, a timeout or the death of the worker, is repeated from the cursor of the last
// complete one, and finds the objects that it wrote unchanged.
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
	// The pass reports its progress itself. This heartbeat is for pages that wait for a lock.
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

// boundPass gives a pass its timeout, negative for none, and ends it when the client stops. The options are those that
// its informer gets.
func (a *Activities) boundPass(
	ctx context.Context, in InformInput, options deltatype.InformOptions,
) (bounded context.Context, timeout time.Duration, end func()) {
	in.Options = a.withEpoch(options)
	timeout = cmp.Or(a.Handler.InformTimeout(in), a.InformTimeout)
	ctx, unlink := a.untilStopped(ctx)
	ctx, cancel := withTimeout(ctx, timeout)
	return ctx, timeout, func() { cancel(); unlink() }
}
