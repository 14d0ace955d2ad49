package activities

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"go.temporal.io/sdk/temporal"

	"github.com/chariot-giving/delta/db"
)

const (
	// NoShards is the type of the error of a worker with a controller that names no shards. Another worker's controller
	// may.
	NoShards = "delta.NoShards"
	// UnknownShard is the type of the error of a run of a shard that does not exist.
	UnknownShard = "delta.UnknownShard"
)

// quietListings is the time without a listing with shards, or without, after which a change of the controller counts as
// complete: during a rolling deploy, or before a rollback, both kinds of listings run.
const quietListings = 24 * time.Hour

// calendarSpread is the time over which the passes of shards begin if no interval gives the time until the next run.
const calendarSpread = time.Minute

// ShardRun is the plan of a run that lists shards.
type ShardRun struct {
	Passes []ShardPass `json:"passes"`
	// Spread is the time over which the passes begin.
	Spread time.Duration `json:"spread,omitempty"`
}

// ShardPass is one pass of such a run.
type ShardPass struct {
	Shard string `json:"shard"`
	// Gone reports whether the controller no longer names the shard.
	Gone bool `json:"gone,omitempty"`
}

// needsShards reports whether the controller has to name the shards before anything can be listed.
func (a *Activities) needsShards(in InformInput) bool {
	if a.Handler.NamesShards() {
		return !in.Named
	}
	return in.Options.Shard != ""
}

// nameShards asks the controller for the shards, in place of a pass, and returns the passes of the run. If that fails,
// nothing else has happened.
func (a *Activities) nameShards(ctx context.Context, in InformInput) (_ InformProgress, err error) {
	asked := a.newPass(ctx, in)
	if !a.Handler.NamesShards() {
		return InformProgress{}, asked.refuseRun(ctx, temporal.NewApplicationError(fmt.Sprintf(
			"informing shard %q of kind %s: the controller of this worker names no shards: it is another version, or Shards cannot be seen behind a decorator",
			in.Options.Shard, in.Kind), NoShards))
	}
	ctx, end := a.beginStep(ctx, PassNamesShards, in)
	defer func() {
		end(PassObservation{Kind: in.Kind, RunID: RunID(ctx), Took: time.Since(asked.startedAt), Err: err})
	}()
	defer a.startHeartbeat(ctx)()
	bounded, _, unlink := a.boundPass(ctx, in, in.Options)
	defer unlink()
	shards, err := a.Handler.Shards(bounded)
	if err != nil {
		return InformProgress{}, asked.noteFailedNaming(ctx, fmt.Errorf("naming the shards of kind %s: %w", in.Kind, err))
	}
	run, err := a.planShards(ctx, in, shards)
	if err != nil {
		return InformProgress{}, asked.noteFailedNaming(ctx, err)
	}
	if wanted := in.Options.Shard; wanted != "" && len(run.Passes) == 0 {
		return InformProgress{}, asked.refuseRun(ctx, temporal.NewNonRetryableApplicationError(
			fmt.Sprintf("kind %s has no shard %q: its controller names %s", in.Kind, wanted, describeShards(shards)), UnknownShard, nil))
	}
	return InformProgress{Shards: run}, nil
}

// noteFailedNaming records in the history why no shard was listed, and returns the error for Temporal.
func (p *pass) noteFailedNaming(ctx context.Context, failure error) error {
	p.in.Options.Shard = ""
	p.logger = p.activities.passLogger(ctx, p.in)
	if err := p.beginHistory(context.WithoutCancel(ctx)); err != nil {
		p.log().Warn("a failed run could not be noted", "error", err)
	}
	return p.endPass(ctx, failure)
}

// planShards records the shards, and chooses those that the run lists.
func (a *Activities) planShards(ctx context.Context, in InformInput, shards []string) (*ShardRun, error) {
	q := db.New()
	there, err := q.NameShards(ctx, a.Pool, db.NameShardsParams{Kind: in.Kind, Shards: append([]string{}, shards...)}) // null would mean that no shard is gone
	var whole []db.Withheld
	if err == nil {
		err = q.NoteNaming(ctx, a.Pool, in.Kind)
	}
	if err == nil { // a listing without shards may have withheld a deletion before
		whole, err = q.ForgetWithheld(ctx, a.Pool, db.ForgetWithheldParams{Kind: in.Kind})
	}
	if err != nil {
		return nil, fmt.Errorf("noting the shards of kind %s: %w", in.Kind, err)
	}
	logForgottenWithheld(a.passLogger(ctx, in), whole, there)
	if err := a.forgetLeft(ctx, db.ForgetLeftParams{Kind: in.Kind, Named: true}, a.passLogger(ctx, in)); err != nil {
		return nil, err
	}
	if err := a.wakeUnlistedBeside(ctx, in.Kind, shards); err != nil {
		return nil, err
	}
	if len(shards) == 0 {
		a.passLogger(ctx, in).Warn("the controller names no shards: nothing is listed")
	}
	run := &ShardRun{Passes: []ShardPass{}}
	for _, s := range there {
		if in.asksFor(s) {
			run.Passes = append(run.Passes, ShardPass{Shard: s.Shard, Gone: s.GoneAt != nil})
		}
	}
	if in.Trigger == TriggerSchedule {
		run.Spread, err = a.shardSpread(ctx, in)
	}
	return run, err
}

// logForgottenWithheld logs which deletions are no longer withheld because of the named shards, so that no operator
// waits for them.
func logForgottenWithheld(log *slog.Logger, whole []db.Withheld, shards []db.NameShardsRow) {
	for _, w := range whole {
		decision := ""
		if w.Decision != nil {
			decision = *w.Decision
		}
		log.Warn("the controller names shards: a deletion that a listing of the whole kind asked for, and that was withheld, is forgotten. Resources without a shard are "+
			"marked deleted by no listing", "missing", w.Missing, "of", w.Total, "since", w.Since.UTC().Format(time.RFC3339), "reason", w.Reason, "decision", decision)
	}
	var turned []string
	for _, s := range shards {
		if s.ForgotWithheld {
			turned = append(turned, s.Shard)
		}
	}
	if len(turned) > 0 {
		log.Warn("shards are named again, or no longer: their withheld deletions and the decisions about them are forgotten", "shards", describeShards(turned))
	}
}

// forgetLeft forgets refused objects, withheld deletions and cursors that no pass will use again: of the whole kind's
// listings, from before the controller named shards (left.Named), or of listings of shards, from before it stopped. A
// decision about them would have no effect.
func (a *Activities) forgetLeft(ctx context.Context, left db.ForgetLeftParams, log *slog.Logger) error {
	left.Quiet = quietListings
	forgotten, err := db.New().ForgetLeft(ctx, a.Pool, left)
	if err != nil {
		return fmt.Errorf("forgetting what other listings of kind %s refused or withheld: %w", left.Kind, err)
	}
	if forgotten.Refused+forgotten.Withheld+forgotten.Cursors > 0 {
		log.Info("the kind is listed in another way than before, with or without shards: what such listings had refused or withheld is forgotten, for it "+
			"was listed since, and so are their cursors", "refused", forgotten.Refused, "withheld", forgotten.Withheld, "cursors", forgotten.Cursors,
			"by_shards", left.Named)
	}
	return nil
}

// asksFor reports whether a run lists a shard. A paused shard is listed only by request, and a narrowed run does not
// check the resources of a gone shard.
func (in InformInput) asksFor(s db.NameShardsRow) bool {
	switch {
	case in.Options.Shard != "" && in.Options.Shard != s.Shard:
		return false
	case s.Paused && in.Trigger == TriggerSchedule:
		return false
	}
	return s.GoneAt == nil || !isNarrowed(in.Options)
}

// shardSpread returns the time over which the passes of a scheduled run begin, so that all have begun well before the
// next run.
func (a *Activities) shardSpread(ctx context.Context, in InformInput) (time.Duration, error) {
	controller, err := db.New().GetController(ctx, a.Pool, in.Kind)
	if err != nil && !isNoRows(err) {
		return 0, fmt.Errorf("reading the settings of kind %s: %w", in.Kind, err)
	}
	interval := controller.InformInterval
	if in.FullListing {
		interval = controller.FullListingInterval
	}
	if interval <= 0 {
		return calendarSpread, nil
	}
	return interval / 4 * 3, nil
}

// describeShards names the first of some shards.
func describeShards(shards []string) string {
	const most = 10
	if len(shards) == 0 {
		return "none"
	}
	shown := make([]string, 0, most)
	for _, shard := range shards[:min(len(shards), most)] {
		shown = append(shown, fmt.Sprintf("%q", shard))
	}
	if more := len(shards) - len(shown); more > 0 {
		return fmt.Sprintf("%s, and %d more", strings.Join(shown, ", "), more)
	}
	return strings.Join(shown, ", ")
}

// isGone reports whether a shard is still gone: the controller may have named it since the run began.
func (p *pass) isGone(ctx context.Context) (bool, error) {
	shard, err := db.New().GetShard(ctx, p.activities.Pool, db.GetShardParams{Kind: p.in.Kind, Shard: p.in.Options.Shard})
	if isNoRows(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading shard %s: %w", p.in.Options.Shard, err)
	}
	return shard.GoneAt != nil, nil
}

// forgetShard forgets a gone shard without resources.
func (p *pass) forgetShard(ctx context.Context) {
	switch n, err := db.New().ForgetShard(ctx, p.activities.Pool, db.ForgetShardParams{Kind: p.in.Kind, Shard: p.in.Options.Shard}); {
	case err != nil:
		p.log().Warn("a shard that is gone could not be forgotten", "error", err)
	case n > 0:
		p.log().Info("a shard is gone, and nothing of it is left")
	}
}
