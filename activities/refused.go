package activities

import (
	"context"
	"fmt"
	"strings"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/shorten"
)

const (
	// maxRefused is about how many refused objects of a kind are kept.
	maxRefused = 1000
	// refusedPage is how many refused objects are written at once.
	refusedPage = 100
	// maxRefusedBytes bounds the JSON that is kept of a refused object.
	maxRefusedBytes = 64 << 10
	// maxRefusedShown is how many refused objects the log names.
	maxRefusedShown = 5
)

// refusals are the objects of a pass that cannot be taken.
type refusals struct {
	// shown are the reasons of the first objects.
	shown []string
	// waiting are the objects that are to be written.
	waiting db.RecordRefusedParams
	// listed are the ids among them that a resource may have. Such a resource is not gone.
	listed []string
	// known reports whether earlier passes of the kind, or its shard, have refused objects.
	known bool
	// left counts objects that were not noted, because there are too many.
	left int
	// large are the first ids of objects that are too large to be kept, and larger counts them.
	large  []string
	larger int
}

// refuseObject notes an object that cannot be taken. The others are still taken, and the pass is complete.
func (p *pass) refuseObject(ctx context.Context, item Listed) error {
	p.progress.Refused++
	r, id := &p.refusals, item.Params.ResourceID
	if db.MayBeStored(id) {
		r.listed = append(r.listed, id)
	}
	shown, rule, isLarge := addRefused(&r.waiting, &item)
	if len(r.shown) < maxRefusedShown {
		r.shown = append(r.shown, rule)
	}
	if isLarge {
		if r.larger++; len(r.large) < maxRefusedShown {
			r.large = append(r.large, fmt.Sprintf("%s (%d bytes)", shown, len(item.Params.EncodedObject)))
		}
	}
	if len(r.waiting.Rules) < refusedPage {
		return nil
	}
	return p.writeRefused(ctx)
}

// addRefused adds an object to those that are to be kept, without its JSON if that is too large. It returns the id and
// the rule that it adds.
func addRefused(to *db.RecordRefusedParams, item *Listed) (id, rule string, isLarge bool) {
	id, rule = shorten.Text(item.Params.ResourceID, db.MaxObjectIDBytes), shorten.Error(item.Err, maxShownError)
	object := item.Params.EncodedObject
	if isLarge = len(object) > maxRefusedBytes; isLarge {
		object = nil
	}
	to.ObjectIds = append(to.ObjectIds, id)
	to.Rules = append(to.Rules, rule)
	to.Objects = append(to.Objects, object)
	return id, rule, isLarge
}

// encodeRefused replaces the objects that are to be kept by their stored forms.
func encodeRefused(ctx context.Context, coder *db.Coder, refused *db.RecordRefusedParams) (err error) {
	for i, object := range refused.Objects {
		ref := deltatype.Ref{Kind: refused.Kind, ObjectID: refused.ObjectIds[i]}
		if refused.Objects[i], err = coder.Encode(ctx, ref, object); err != nil {
			return err
		}
	}
	return nil
}

func (p *pass) writeRefused(ctx context.Context) error {
	r, q := &p.refusals, db.New()
	if len(r.waiting.Rules) == 0 {
		return nil
	}
	if p.remember && len(r.listed) > 0 {
		recorded, err := q.RecordListed(ctx, p.activities.Pool, db.RecordListedParams{Pass: p.in.Pass, ObjectIds: r.listed})
		if err != nil {
			return fmt.Errorf("recording refused objects as listed: %w", err)
		}
		p.recorded += recorded
	}
	if len(r.listed) > 0 {
		err := q.NoteRefusedListed(ctx, p.activities.Pool, db.NoteRefusedListedParams{Kind: p.in.Kind, ObjectIds: r.listed, OwnPass: p.listingClaim.claimID()})
		if err != nil {
			return fmt.Errorf("noting that %d refused objects are named: %w", len(r.listed), err)
		}
		if err := p.noteRefusedListed(ctx, r.listed); err != nil {
			return err
		}
	}
	r.waiting.Kind, r.waiting.Shard, r.waiting.Most = p.in.Kind, p.in.Options.Shard, maxRefused
	if err := encodeRefused(ctx, p.activities.Coder, &r.waiting); err != nil {
		return err
	}
	recorded, err := q.RecordRefused(ctx, p.activities.Pool, r.waiting)
	if err != nil {
		return fmt.Errorf("keeping %d refused objects: %w", len(r.waiting.Rules), err)
	}
	refused := countDistinct(r.waiting.ObjectIds)
	r.left += refused - int(recorded.Noted)
	p.progress.Unkept += refused - int(recorded.Kept)
	r.waiting, r.listed = db.RecordRefusedParams{}, nil
	return nil
}

func countDistinct(ids []string) int {
	seen := make(map[string]bool, len(ids))
	for _, id := range ids {
		seen[id] = true
	}
	return len(seen)
}

// lookForRefused reads whether the kind has refused objects, because only then taken objects have to be removed from
// them. An object that was informed in another way since is not refused any more.
func (p *pass) lookForRefused(ctx context.Context) (err error) {
	if err := db.New().ForgetInformed(ctx, p.activities.Pool, db.ForgetInformedParams{Kind: p.in.Kind, Shard: p.in.Options.Shard}); err != nil {
		return fmt.Errorf("removing refused objects that were informed: %w", err)
	}
	if p.refusals.known, err = db.New().HasRefused(ctx, p.activities.Pool, db.HasRefusedParams{Kind: p.in.Kind, Shard: p.in.Options.Shard}); err != nil {
		return fmt.Errorf("looking for refused objects: %w", err)
	}
	return nil
}

// forgetTaken removes the objects that a page has taken from the refused ones.
func (p *pass) forgetTaken(ctx context.Context, taken []string) error {
	if !p.refusals.known || len(taken) == 0 {
		return nil
	}
	if err := db.New().ForgetTaken(ctx, p.activities.Pool, db.ForgetTakenParams{Kind: p.in.Kind, Shard: p.in.Options.Shard, ObjectIds: taken}); err != nil {
		return fmt.Errorf("removing refused objects that were taken: %w", err)
	}
	return nil
}

// warnLarge logs refused objects that are too large to be kept: nothing tries them again once they are valid, and an
// incremental listing does not name them again. The cursor does not wait for them, because one object would make each
// pass list everything while it is refused.
func (p *pass) warnLarge() {
	r := &p.refusals
	if r.larger == 0 {
		return
	}
	fields := []any{"too_large", r.larger, "limit", maxRefusedBytes}
	if !p.activities.HashObjectIDs {
		fields = append(fields, "first", strings.Join(r.large, "; "))
	}
	p.log().Warn("refused objects are too large to be kept: once they are valid, only a full listing or an inform takes them", fields...)
}

// endRefused removes objects that are refused no longer. An incremental listing tries those again that it did not name,
// because a new version of the controller may take them.
func (p *pass) endRefused(ctx context.Context, complete bool) error {
	if n := p.progress.Refused; n > 0 {
		fields := []any{"refused", n, "of", p.progress.Listed}
		if !p.activities.HashObjectIDs { // the rules name the objects
			fields = append(fields, "first", strings.Join(p.refusals.shown, "; "))
		}
		p.log().Warn("a listing names objects that cannot be taken; the others are", fields...)
	}
	if !complete {
		p.warnLarge()
	}
	if p.in.Gone {
		return nil // it has listed nothing; the shard may be named again
	}
	if complete {
		if err := db.New().ForgetUnlisted(ctx, p.activities.Pool, db.ForgetUnlistedParams{Kind: p.in.Kind, Shard: p.in.Options.Shard, Began: p.began}); err != nil {
			return fmt.Errorf("removing refused objects that are no longer listed: %w", err)
		}
		return nil
	}
	if !p.refusals.known {
		return nil
	}
	kept, err := db.New().RefusedToRetry(ctx, p.activities.Pool, db.RefusedToRetryParams{Kind: p.in.Kind, Shard: p.in.Options.Shard, Began: p.began})
	if err != nil {
		return fmt.Errorf("reading refused objects: %w", err)
	}
	for _, one := range kept {
		object, err := p.activities.Coder.Decode(ctx, deltatype.Ref{Kind: p.in.Kind, ObjectID: one.ObjectID}, one.Object)
		if err != nil {
			p.log().Warn("a refused object is kept and does not decode, so it is not tried again", "error", err)
			continue
		}
		params, err := p.activities.Handler.Encode(object, nil)
		if err != nil || params.ResourceID != one.ObjectID || (p.in.Named && params.Shard != p.in.Options.Shard) {
			continue // still refused
		}
		if err := p.addToPage(ctx, params); err != nil {
			return err
		}
	}
	return p.writePage(ctx)
}
