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
	// NoShards is the type of the error of a worker whose controller names no shards: another worker's may.
	NoShards = "delta.NoShards"
	// UnknownShard is the type of the error of a run of a shard that there is not.
	UnknownShard = "delta.UnknownShard"
)

// quietListings is for how long no listing with shards, or without, has begun when a change of the controller is taken to be over: in a rolling
// deploy, or before it is rolled back, both run.
const quietListings = 24 * time.Hour

// calendarSpread is over what time the passes of shards begin where no interval says how long it is until the next run.
const calendarSpread = time.Minute

// ShardRun is the plan of a run that lists shards.
type ShardRun struct {
	Passes []ShardPass `json:"passes"`
	// Spread is over what time the passes are to begin.
	Spread time.Duration `json:"spread,omitempty"`
}

// ShardPass is one pass of such a run.
type ShardPass struct {
	Shard string `json:"shard"`
	// Gone says that the controller no longer names the shard.
	Gone bool `json:"gone,omitempty"`
}

// needsShards reports whether the shards have to be named before anything can be listed.
func (a *Activities) needsShards(in InformInput) bool {
	if a.Handler.NamesShards() {
		return !in.Named
	}
	return in.Options.Shard != ""
}

// nameShards has the controller name the shards, in place of a pass, and says which passes the run is to make of them. If that fails, nothing
// else has happened.
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

// noteFailedNaming has the history and the kind show why no shard was listed, and returns the error that Temporal is given.
func (p *pass) noteFailedNaming(ctx context.Context, failure error) error {
	p.in.Options.Shard = ""
	p.logger = p.activities.passLogger(ctx, p.in)
	if err := p.beginHistory(context.WithoutCancel(ctx)); err != nil {
		p.log().Warn("a failed run could not be noted", "error", err)
	}
	return p.endPass(ctx, failure)
}

// planShards notes which shards there are, and chooses those that the run lists.
func (a *Activities) planShards(ctx context.Context, in InformInput, shards []string) (*ShardRun, error) {
	q := db.New()
	there, err := q.NameShards(ctx, a.Pool, db.NameShardsParams{Kind: in.Kind, Shards: append([]string{}, shards...)}) // null would be none that is gone
	var whole []db.Withheld
	if err == nil {
		err = q.NoteNaming(ctx, a.Pool, in.Kind)
	}
	if err == nil { // a listing without shards may have withheld something, before there were any
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

// logForgottenWithheld says which deletions are no longer withheld because of the shards that were named, so that nobody waits for what they come to.
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
		log.Warn("shards are named again, or no longer: what was withheld of them is forgotten, and so is what was decided", "shards", describeShards(turned))
	}
}

// forgetLeft forgets what listings of the whole kind had refused or withheld before its controller named shards (left.Named), or what listings of shards
// had before it no longer did, and how far they had come. No pass would look at that again, and a decision would have no effect.
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

// asksFor reports whether a run lists a shard. One that is paused is listed where that is asked for, and what is left of one that is gone is
// not looked at by a run that lists only some.
func (in InformInput) asksFor(s db.NameShardsRow) bool {
	switch {
	case in.Options.Shard != "" && in.Options.Shard != s.Shard:
		return false
	case s.Paused && in.Trigger == TriggerSchedule:
		return false
	}
	return s.GoneAt == nil || !isNarrowed(in.Options)
}

// shardSpread is over what time the passes of a scheduled run begin: they have all begun well before the next run.
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

// describeShards shows the first of some shards.
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

// isGone reports whether a shard is still gone: its controller may have named it since the run began.
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

// forgetShard forgets a shard that is gone, if nothing of it is left.
func (p *pass) forgetShard(ctx context.Context) {
	switch n, err := db.New().ForgetShard(ctx, p.activities.Pool, db.ForgetShardParams{Kind: p.in.Kind, Shard: p.in.Options.Shard}); {
	case err != nil:
		p.log().Warn("a shard that is gone could not be forgotten", "error", err)
	case n > 0:
		p.log().Info("a shard is gone, and nothing of it is left")
	}
}
