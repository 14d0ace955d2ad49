package activities

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/backoff"
	"github.com/chariot-giving/delta/internal/shorten"
)

// Feed writes the objects that a source reports. It belongs to one run, and one goroutine.
type Feed struct {
	activities *Activities
	in         SourceInput
	// epoch fences writes: they succeed only for the latest run.
	epoch    int64
	position string
	// known reports whether the kind may have refused objects.
	known bool
	// writing is the time since which a page, which holds the source's row, is being written, in nanoseconds since
	// 1970; 0 where none is.
	writing atomic.Int64
	// reported is the latest report of the source.
	reported atomic.Pointer[sourceReport]
	// listing is the source's complete listing that is under way; nil for none.
	listing *pass
}

// FeedPage has changes that are written together. It names each object once.
type FeedPage struct {
	// Live are new or changed objects, Listed those that a listing has found.
	Live, Listed []deltatype.ObjectInformParams
	// Refused are objects that cannot be taken, each with its error.
	Refused []Listed
	// Gone are the ids of objects that are gone.
	Gone []string
	// Position is the source's position after the page; empty leaves it unchanged.
	Position string
}

// Installation returns the database's id.
func (f *Feed) Installation() string { return f.activities.Installation }

// Position returns the position of the latest written page; empty before one.
func (f *Feed) Position() string { return f.position }

// feedTries is how often a page that ends in a deadlock is written.
const feedTries = 10

// Write writes a page and its position in one transaction. Nothing is written if another run of the source has begun.
func (f *Feed) Write(ctx context.Context, page FeedPage) error {
	f.writing.Store(time.Now().UnixNano())
	defer f.writing.Store(0)
	var w writtenPage
	err := error(nil)
	pauses := newLockedPauses()
	for range feedTries {
		w = writtenPage{feed: f, page: page}
		err = pgx.BeginTxFunc(ctx, f.activities.Pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error { return w.writePage(ctx, tx) })
		if !db.IsContended(err) || backoff.Pause(ctx, pauses.Delay()) != nil {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("writing a page of %d: %w", len(page.Live)+len(page.Listed)+len(page.Refused)+len(page.Gone), err)
	}
	if page.Position != "" {
		f.position = page.Position
	}
	f.known = f.known || len(w.refused) > 0
	return w.reportPage(ctx)
}

// writtenPage is a page and its results.
type writtenPage struct {
	feed *Feed
	page FeedPage
	// live and listed are the results of informs. refused are objects that were refused here or before, and deleted the
	// rows that were marked deleted.
	live, listed []*deltatype.ObjectInformResult
	refused      []Listed
	deleted      []db.Resource
	// unkept counts refused objects without their JSON. unnoted counts those of them that are not even noted, because
	// the kind has too many.
	unkept, unnoted int
}

func (w *writtenPage) writePage(ctx context.Context, tx pgx.Tx) (err error) {
	f, q := w.feed, db.New()
	r := f.reported.Load()
	params := db.AdvanceSourceParams{
		Kind: f.in.Kind, Name: f.in.Name, Epoch: f.epoch, IdleTimeout: strconv.FormatInt(SourceSilence.Milliseconds(), 10),
		Phase: r.Phase, PhaseAt: r.since, Reason: r.Reason, CaughtUpAt: r.caughtUpAt, BehindBytes: r.BehindBytes, BehindMessages: r.BehindMessages,
	}
	if w.page.Position != "" {
		params.Position = &w.page.Position
	}
	switch _, err := q.AdvanceSource(ctx, tx, params); {
	case errors.Is(err, pgx.ErrNoRows):
		return errSourceTaken
	case err != nil:
		return err
	}
	w.refused = w.page.Refused
	if err := w.recordListed(ctx, tx); err != nil {
		return err
	}
	if w.live, err = w.informObjects(ctx, tx, w.page.Live, w.informOptions(true)); err != nil {
		return err
	}
	if w.listed, err = w.informObjects(ctx, tx, w.page.Listed, w.informOptions(false)); err != nil {
		return err
	}
	if len(w.page.Gone) > 0 {
		w.deleted, err = db.ResourcesOf(q.DeleteGone(ctx, db.Planned(tx, len(w.page.Gone)), db.DeleteGoneParams{
			Kind: f.in.Kind, ObjectIds: w.page.Gone, DefaultRetention: f.activities.Retention.DeletedRetention, Logs: f.activities.LogChanges,
		}))
		if err != nil {
			return fmt.Errorf("marking gone resources deleted: %w", err)
		}
	}
	return w.recordRefused(ctx, tx)
}

// informOptions returns the options of informs. Notify is not set, because the client that runs the source dispatches
// its kind, and is woken after the commit. A changed object revives a deleted resource, as an explicit inform does; a
// listed one does not.
func (w *writtenPage) informOptions(isLive bool) db.InformOptions {
	options := db.InformOptions{
		DefaultMaxAttempts: w.feed.activities.DefaultMaxAttempts, DefaultPriority: deltatype.PriorityPeriodic, Coder: w.feed.activities.Coder,
	}
	if isLive {
		options.Revive, options.DefaultPriority = true, deltatype.PriorityLive
	}
	if l := w.feed.listing; l != nil {
		options.Pass = l.listingClaim.claimID()
	}
	return options
}

// informObjects informs objects. An object that Postgres cannot store is refused, and the others are taken.
func (w *writtenPage) informObjects(
	ctx context.Context, tx pgx.Tx, objects []deltatype.ObjectInformParams, options db.InformOptions,
) (results []*deltatype.ObjectInformResult, err error) {
	if len(objects) == 0 {
		return nil, nil
	}
	err = pgx.BeginFunc(ctx, tx, func(part pgx.Tx) error {
		results, err = db.Inform(ctx, part, objects, options)
		return err
	})
	switch half := len(objects) / 2; {
	case err != nil && !isObjectError(err):
		return nil, err
	case err != nil && half == 0:
		w.refused = append(w.refused, describeRefused(&objects[0], err))
		return nil, nil
	case err != nil:
		first, err := w.informObjects(ctx, tx, objects[:half], options)
		if err != nil {
			return nil, err
		}
		second, err := w.informObjects(ctx, tx, objects[half:], options)
		return append(first, second...), err
	}
	taken := results[:0]
	for i, r := range results {
		if r.Refused != nil {
			w.refused = append(w.refused, Listed{Params: objects[i], Err: r.Refused})
			continue
		}
		taken = append(taken, r)
	}
	return taken, nil
}

// recordListed records the listed objects, for the end of the listing.
func (w *writtenPage) recordListed(ctx context.Context, tx pgx.Tx) error {
	l := w.feed.listing
	if l == nil {
		return nil
	}
	there := append(objectIDs(w.page.Live), objectIDs(w.page.Listed)...)
	for i := range w.page.Refused {
		if id := w.page.Refused[i].Params.ResourceID; db.MayBeStored(id) {
			there = append(there, id)
		}
	}
	if len(there) == 0 {
		return nil
	}
	// They are not counted, because the page may be written again. A run of a source notices a restored database by its epoch.
	if _, err := db.New().RecordListed(ctx, tx, db.RecordListedParams{Pass: l.in.Pass, ObjectIds: there}); err != nil {
		return fmt.Errorf("recording a page of %d: %w", len(there), err)
	}
	return nil
}

// recordRefused keeps the refused objects, and removes those that were taken.
func (w *writtenPage) recordRefused(ctx context.Context, tx pgx.Tx) error {
	q, kind := db.New(), w.feed.in.Kind
	if taken := w.takenIDs(); w.feed.known && len(taken) > 0 {
		if err := q.ForgetTaken(ctx, tx, db.ForgetTakenParams{Kind: kind, ObjectIds: taken}); err != nil {
			return fmt.Errorf("removing refused objects that were taken: %w", err)
		}
	}
	if len(w.refused) == 0 {
		return nil
	}
	params := db.RecordRefusedParams{Kind: kind, Most: maxRefused}
	var named []string
	for i := range w.refused {
		addRefused(&params, &w.refused[i])
		if id := w.refused[i].Params.ResourceID; db.MayBeStored(id) {
			named = append(named, id)
		}
	}
	if len(named) > 0 {
		if err := q.NoteRefusedListed(ctx, tx, db.NoteRefusedListedParams{Kind: kind, ObjectIds: named, OwnPass: w.feed.listing.claimID()}); err != nil {
			return fmt.Errorf("noting that %d refused objects are named: %w", len(named), err)
		}
	}
	if err := encodeRefused(ctx, w.feed.activities.Coder, &params); err != nil {
		return err
	}
	recorded, err := q.RecordRefused(ctx, tx, params)
	if err != nil {
		return fmt.Errorf("keeping %d refused objects: %w", len(w.refused), err)
	}
	refused := countDistinct(params.ObjectIds)
	w.unkept, w.unnoted = refused-int(recorded.Kept), refused-int(recorded.Noted)
	return nil
}

// takenIDs returns the ids of objects that were not refused.
func (w *writtenPage) takenIDs() []string {
	taken := w.page.Gone[:len(w.page.Gone):len(w.page.Gone)]
	for _, results := range [][]*deltatype.ObjectInformResult{w.live, w.listed} {
		for _, r := range results {
			taken = append(taken, r.Resource.ObjectID)
		}
	}
	return taken
}

// reportPage reports the written page, and adds it to the listing.
func (w *writtenPage) reportPage(ctx context.Context) error {
	a := w.feed.activities
	for i := range w.deleted {
		a.reportObservation(observedDeletion(&w.deleted[i]))
	}
	if a.Listed != nil {
		a.Listed(w.live)
		a.Listed(w.listed)
	}
	scheduled := 0
	for _, r := range w.live {
		if r.Scheduled {
			scheduled++
		}
	}
	p := w.feed.listing
	for _, r := range w.listed {
		switch {
		case r.Scheduled:
			scheduled++
			if p != nil && !r.AlreadyExists {
				p.added++
			}
		case !r.Stale && p != nil:
			p.unchanged++
		}
	}
	if due := scheduled + len(w.deleted); due > 0 && a.Informed != nil {
		a.Informed(w.feed.in.Kind, due)
	}
	for i := range w.refused {
		if i < maxRefusedShown && !a.HashObjectIDs {
			a.Logger.Warn("a source names an object that cannot be taken; the others are", "kind", w.feed.in.Kind, "source", w.feed.in.Name,
				"error", shorten.Error(w.refused[i].Err, maxShownError))
		}
	}
	if w.unnoted > 0 {
		a.Logger.Warn("a source names more objects that cannot be taken than are noted: they are taken when they change, or are listed again", "kind", w.feed.in.Kind,
			"source", w.feed.in.Name, "not_noted", w.unnoted, "noted_at_most", maxRefused)
	}
	if p == nil {
		return nil
	}
	p.progress.Unkept += w.unkept
	p.progress.Listed += len(w.listed) + len(w.refused)
	p.progress.Scheduled += scheduled
	p.progress.Refused += len(w.refused)
	p.progress.Pass.Pages++
	return p.noteListed(ctx, w.listed)
}

// claimID returns the id of the listing's claim; nil where there is none.
func (p *pass) claimID() *string {
	if p == nil {
		return nil
	}
	return p.listingClaim.claimID()
}

// BeginListing begins a complete listing: resources that no page names until [Feed.EndListing] are gone. Pages may have
// changes between listed objects.
func (f *Feed) BeginListing(ctx context.Context) error {
	a := f.activities
	if f.listing != nil {
		return errors.New("a listing of the source runs already")
	}
	in := InformInput{Installation: f.in.Installation, Kind: f.in.Kind, Trigger: TriggerSource, FullListing: true, Pass: uuid.NewString()}
	p := &pass{activities: a, in: in, startedAt: time.Now(), logger: a.passLogger(ctx, in), remember: true, ofSource: true}
	p.progress.Pass = a.beginReport(in.Options, true)
	began, err := db.New().Now(ctx, a.Pool)
	if err != nil {
		return fmt.Errorf("beginning a complete listing of kind %s: asking the database for the time: %w", in.Kind, err)
	}
	p.began, p.cursor = began.UTC(), began.UTC()
	if err := p.beginHistory(ctx); err != nil {
		return fmt.Errorf("beginning a complete listing of kind %s: %w", in.Kind, err)
	}
	if p.listingClaim, err = p.beginListingClaim(ctx, ""); err != nil {
		err = fmt.Errorf("beginning a complete listing of kind %s: %w", in.Kind, err)
		p.endHistory(ctx, err)
		return err
	}
	f.listing = p
	return nil
}

// EndListing ends a complete listing: it marks left-out resources deleted, unless there are suspiciously many.
func (f *Feed) EndListing(ctx context.Context) (InformProgress, error) {
	p := f.listing
	if p == nil {
		return InformProgress{}, errors.New("no listing of the source runs")
	}
	err := p.endListing(ctx)
	f.listing = nil
	p.listingClaim.release()
	return p.progress, p.endPass(ctx, err)
}

// endListing marks resources deleted that were not listed.
func (p *pass) endListing(ctx context.Context) error {
	for _, step := range []func(context.Context) error{
		func(ctx context.Context) error { return p.endRefused(ctx, true) },
		p.deleteMissing,
		func(ctx context.Context) error { return p.moveCursor(ctx, true) },
	} {
		if err := step(ctx); err != nil {
			return fmt.Errorf("ending a complete listing of kind %s: %w", p.in.Kind, err)
		}
	}
	return nil
}

// AbortListing ends an incomplete listing, if there is one: nothing is deleted.
func (f *Feed) AbortListing(ctx context.Context, why error) {
	p := f.listing
	if p == nil {
		return
	}
	f.listing = nil
	p.listingClaim.release()
	_ = p.endPass(ctx, fmt.Errorf("a complete listing of kind %s was cut off: %w", p.in.Kind, why)) // Temporal is told of the run's error
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
	defer cancel()
	if err := p.activities.removeListing(ctx, p.in.Pass); err != nil {
		p.log().Warn("the notes of a listing that was cut off could not be removed; they are, after a week", "error", err)
	}
}

// IsDeletionApproved reports whether an operator has approved withheld deletions of the kind. Another listing carries
// them out.
func (f *Feed) IsDeletionApproved(ctx context.Context) (bool, error) {
	return db.New().IsDeletionApproved(ctx, f.activities.Pool, f.in.Kind)
}
