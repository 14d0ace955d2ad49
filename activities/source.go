package activities

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"go.temporal.io/sdk/temporal"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/internal/shorten"
)

const (
	// SourceBeat is how often a source's run records that it is alive.
	SourceBeat = 2 * time.Second
	// SourceSilence is how long Postgres may not answer before the run ends, so that a client which reaches Postgres
	// can take over.
	SourceSilence = 10 * time.Second
	// sourceWell is how long a run lasts before earlier failures are forgotten.
	sourceWell = 10 * time.Second
	// minSourcePause and maxSourcePause bound the time until a failed source runs again, which doubles.
	minSourcePause = time.Second
	maxSourcePause = time.Minute
)

// Types of the errors with which a run of a source ends.
const (
	// SourceFailed is a run that has failed.
	SourceFailed = "delta.SourceFailed"
	// UnknownSource is a worker without the source in its controllers.
	UnknownSource = "delta.UnknownSource"
)

var (
	errSourceTaken  = errors.New("another run of the source has begun, and this one may not write any more")
	errSourceSilent = fmt.Errorf("Postgres has not answered for %s: the source is left to a client that reaches it", SourceSilence)
)

// SourceInput names a source of a kind.
type SourceInput struct {
	Installation string `json:"installation"`
	Kind         string `json:"kind"`
	Name         string `json:"name"`
}

// Source feeds a kind from another system until ctx ends. It returns why it cannot go on.
type Source func(ctx context.Context, feed *Feed) error

// RunSource runs a source while it goes on. Temporal runs it again when it returns or when its worker is gone, on any
// worker that has the source. Two runs may overlap, because a worker can be cut off from Temporal alone: the epoch of
// the latest run fences what they write.
func (a *Activities) RunSource(ctx context.Context, in SourceInput) error {
	if err := a.checkTarget(in.Installation, in.Kind); err != nil {
		return err
	}
	source, ok := a.Sources[in.Name]
	if !ok {
		// Another worker of the task queue may have it, for instance one of a newer version during a deploy.
		return temporal.NewApplicationError(fmt.Sprintf("this worker's controllers have no source %q of kind %q", in.Name, in.Kind), UnknownSource)
	}
	defer a.startHeartbeat(ctx)()
	feed, failures, err := a.claimSource(ctx, in)
	if err != nil {
		return a.describeSource(fmt.Errorf("beginning to run source %q of kind %s: %w", in.Name, in.Kind, err), minSourcePause)
	}
	began := time.Now()
	running, stop := a.untilStopped(ctx)
	defer stop()
	running, end := context.WithCancelCause(running)
	defer end(nil)
	go feed.watchRun(running, workerStop(ctx), end)
	err = source(running, feed)
	err = feed.whyEnded(running, err)
	feed.AbortListing(ctx, err)
	end(nil)
	switch {
	case ctx.Err() != nil: // it was cancelled, or Temporal has given it to another worker
		return ctx.Err()
	case errors.Is(err, errSourceStops), errors.Is(err, errSourceTaken):
		return temporal.NewApplicationErrorWithOptions(err.Error(), "delta.Stopping", temporal.ApplicationErrorOptions{NextRetryDelay: minRetryPause})
	}
	return a.failSource(ctx, feed, failures, began, err)
}

// errSourceStops ends the run of a client that stops.
var errSourceStops = errors.New("the client stops; another one goes on with the source")

// claimSource begins a run. Earlier runs can write no more.
func (a *Activities) claimSource(ctx context.Context, in SourceInput) (feed *Feed, failures int, err error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	claimed, err := db.New().ClaimSource(ctx, a.Pool, db.ClaimSourceParams{Kind: in.Kind, Name: in.Name, Runner: describeRunner()})
	if err != nil {
		return nil, 0, err
	}
	feed = &Feed{activities: a, in: in, epoch: claimed.Epoch}
	feed.reported.Store(&sourceReport{SourceReport: SourceReport{Phase: SourceRunning}, since: time.Now(), caughtUpAt: claimed.CaughtUpAt})
	if claimed.Position != nil {
		feed.position = *claimed.Position
	}
	feed.known, err = db.New().HasRefused(ctx, a.Pool, db.HasRefusedParams{Kind: in.Kind})
	return feed, int(claimed.Failures), err
}

// describeRunner names this process, for people.
func describeRunner() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return strconv.Itoa(os.Getpid()) + "@" + host
}

// watchRun ends the run when the worker stops, another run has begun, or Postgres has been silent for too long.
func (f *Feed) watchRun(ctx context.Context, stopping <-chan struct{}, end context.CancelCauseFunc) {
	beats := time.NewTicker(SourceBeat)
	defer beats.Stop()
	var waits lockWait
	for heard := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-stopping:
			end(errSourceStops)
			return
		case <-beats.C:
		}
		asked := time.Now()
		switch err := f.renewRun(ctx); {
		case err == nil:
			heard = asked
			f.nameBlockers(ctx, &waits)
		case errors.Is(err, errSourceTaken):
			end(err)
			return
		case time.Since(heard) > SourceSilence:
			end(fmt.Errorf("%w (%w)", errSourceSilent, err))
			return
		}
	}
}

// renewRun records that the run is alive. A page that is being written holds the row, perhaps for long, if it waits for
// a row that a user has locked. Then Postgres only has to answer, because the page fences itself.
func (f *Feed) renewRun(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	if f.writing.Load() != 0 {
		_, err := f.activities.Pool.Exec(ctx, "SELECT 1")
		return err
	}
	r := f.reported.Load()
	renewed, err := db.New().RenewSource(ctx, f.activities.Pool, db.RenewSourceParams{
		Kind: f.in.Kind, Name: f.in.Name, Epoch: f.epoch, WellAfter: sourceWell,
		Phase: r.Phase, PhaseAt: r.since, Reason: r.Reason, CaughtUpAt: r.caughtUpAt, BehindBytes: r.BehindBytes, BehindMessages: r.BehindMessages,
	})
	if err == nil && renewed == 0 {
		return errSourceTaken
	}
	return err
}

// whyEnded returns why a run has ended; err is the error of its source.
func (f *Feed) whyEnded(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		if errors.Is(cause, context.Canceled) { // a stop that does not wait, or a cancellation
			return errSourceStops
		}
		return cause
	}
	if err == nil {
		err = errors.New("the source has returned without an error, although its context has not ended")
	}
	return err
}

// failSource records and reports a failed run, and makes Temporal begin another one after a pause that grows with each
// failure.
func (a *Activities) failSource(ctx context.Context, feed *Feed, failures int, began time.Time, failure error) error {
	if time.Since(began) > sourceWell {
		failures = 0
	}
	pause := maxSourcePause
	if failures < 6 { // 1 s to 32 s
		pause = minSourcePause << failures
	}
	if errors.Is(failure, errSourceSilent) {
		pause = minSourcePause // another client may reach Postgres
	}
	in := feed.in
	failure = fmt.Errorf("source %q of kind %s: %w", in.Name, in.Kind, failure)
	noted, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
	defer cancel()
	_, err := db.New().FailSource(noted, a.Pool, db.FailSourceParams{
		Kind: in.Kind, Name: in.Name, Epoch: feed.epoch, Error: shorten.Text(failure.Error(), maxErrorBytes),
	})
	if err != nil {
		a.Logger.Warn("the failure of a source could not be noted on its row", "kind", in.Kind, "source", in.Name, "error", err)
	}
	if a.SourceFailed != nil {
		a.SourceFailed(PassObservation{
			Kind: in.Kind, WorkflowID: WorkflowID(ctx), RunID: RunID(ctx), Attempt: ActivityTry(ctx), Trigger: TriggerSource, Took: time.Since(began), Err: failure,
		})
	}
	return a.describeSource(failure, pause)
}

// describeSource returns the error for Temporal.
func (a *Activities) describeSource(failure error, pause time.Duration) error {
	text := shorten.Error(failure, maxErrorBytes)
	if a.HashObjectIDs {
		text = "it failed; for the reason see the row in delta_source and the log of the client: object ids are kept from Temporal"
	}
	return temporal.NewApplicationErrorWithOptions(text, SourceFailed, temporal.ApplicationErrorOptions{NextRetryDelay: pause})
}
