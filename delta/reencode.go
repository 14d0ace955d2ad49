package delta

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/backoff"
)

const (
	// reencodePage is how many objects are encoded again in one statement.
	reencodePage = 200
	// maxUndecodedNamed is how many objects that do not decode an error names.
	maxUndecodedNamed = 5
)

// ReencodeObjects encodes the stored objects of a kind, or of all kinds if kind is empty, again with Config.ObjectCodec, and
// returns how many resources it has rewritten. Call it after the codec was introduced, so that objects which do not change
// are encoded too, and after its key has changed, before the old key is destroyed. It begins no generation and calls no
// Work, may run beside everything else, and can be repeated.
//
// It rewrites resources and refused objects. Entries of the log of changes stay as they are: keep an old key for
// MaxChangeRetentionPeriod. An object that does not decode is left as it is, and the error names it, after all others were
// rewritten. Locked rows are waited for, until ctx ends.
func (c *Client) ReencodeObjects(ctx context.Context, kind string) (rewritten int, err error) {
	if kind != "" {
		if err := checkName("kind", kind); err != nil {
			return 0, fmt.Errorf("delta: reencode: %w", err)
		}
	}
	if !c.coder.Encodes() {
		return 0, fmt.Errorf("delta: reencode: %w", inputError("Config.ObjectCodec", "nil", "must be set: it encodes the objects"))
	}
	if err := c.coder.Agree(ctx, c.pool); err != nil {
		return 0, fmt.Errorf("delta: reencode: %w", schemaError(err))
	}
	r := reencoding{client: c, kind: kind}
	err = r.rewriteResources(ctx)
	if err == nil {
		err = r.rewriteRefused(ctx)
	}
	if err = errors.Join(schemaError(err), r.undecodedError()); err != nil {
		err = fmt.Errorf("delta: reencode: %w", err)
	}
	return r.rewritten, err
}

// reencoding is one call of ReencodeObjects.
type reencoding struct {
	client *Client
	kind   string
	// rewritten counts resources. undecoded are the first errors of objects that do not decode, and left counts the others.
	rewritten int
	undecoded []error
	left      int
}

// storedObject is a resource's object in its stored form.
type storedObject = db.StoredObjectsRow

func (r *reencoding) rewriteResources(ctx context.Context) error {
	for after := (Ref{Kind: r.kind}); ; {
		rows, err := db.New().StoredObjects(ctx, db.Planned(r.client.pool, reencodePage), db.StoredObjectsParams{
			AfterKind: after.Kind, AfterObjectID: after.ObjectID, Most: reencodePage,
		})
		if r.kind != "" { // the next kind follows
			rows = slices.DeleteFunc(rows, func(row storedObject) bool { return row.Kind != r.kind })
		}
		if err != nil || len(rows) == 0 {
			return err
		}
		last := &rows[len(rows)-1]
		after = Ref{Kind: last.Kind, ObjectID: last.ObjectID}
		if err := r.rewriteAll(ctx, rows); err != nil {
			return err
		}
	}
}

// rewriteAll rewrites a page, and reads rows again that were locked or have changed, until none is left.
func (r *reencoding) rewriteAll(ctx context.Context, rows []storedObject) error {
	for pauses := backoff.New(10*time.Millisecond, time.Second); len(rows) > 0; {
		left, err := r.rewritePage(ctx, rows)
		if err != nil || len(left) == 0 {
			return err
		}
		if err := backoff.Pause(ctx, pauses.Delay()); err != nil {
			return err
		}
		again, err := db.New().StoredObjectsOf(ctx, r.client.pool, left)
		if err != nil {
			return err
		}
		rows = rows[:0]
		for _, row := range again {
			rows = append(rows, storedObject(row))
		}
	}
	return nil
}

// rewritePage rewrites a page, and returns the ids of rows that were not written.
func (r *reencoding) rewritePage(ctx context.Context, rows []storedObject) (left []int64, err error) {
	var p db.ReencodeObjectsParams
	for i := range rows {
		row := &rows[i]
		one, err := r.encodeAgain(ctx, row)
		if err != nil {
			if !errors.Is(err, db.ErrUndecoded) || ctx.Err() != nil {
				return nil, err
			}
			r.noteUndecoded(Ref{Kind: row.Kind, ObjectID: row.ObjectID}, err)
			continue
		}
		p.Ids, p.OldObjects, p.Objects = append(p.Ids, row.ID), append(p.OldObjects, row.Object), append(p.Objects, one.Object)
		p.OldSyncedObjects, p.SyncedObjects = append(p.OldSyncedObjects, string(row.SyncedObject)), append(p.SyncedObjects, string(one.SyncedObject))
		p.Hashes = append(p.Hashes, one.Hash)
	}
	if len(p.Ids) == 0 {
		return nil, nil
	}
	written, err := db.New().ReencodeObjects(ctx, db.Planned(r.client.pool, len(p.Ids)), p)
	if err != nil {
		return nil, err
	}
	r.rewritten += len(written)
	isWritten := make(map[int64]bool, len(written))
	for _, id := range written {
		isWritten[id] = true
	}
	for _, id := range p.Ids {
		if !isWritten[id] {
			left = append(left, id)
		}
	}
	return left, nil
}

// encodeAgain returns a row with its objects and its hash as the client's codec and key make them.
func (r *reencoding) encodeAgain(ctx context.Context, row *storedObject) (one storedObject, err error) {
	coder, ref := r.client.coder, Ref{Kind: row.Kind, ObjectID: row.ObjectID}
	object, err := coder.Decode(ctx, ref, row.Object)
	if err != nil {
		return one, err
	}
	// The hash of an object that is stored as it is is kept: it was made of the object's own JSON, and Postgres may have
	// written the numbers in it in another way.
	plain := row.Hash
	if deltatype.IsEncoded(row.Object) || db.IsImportedHash(row.Hash) {
		if plain, err = hashJSON(object); err != nil {
			return one, err
		}
	}
	one.Hash = coder.Hash(ref, plain)
	if one.Object, err = coder.Encode(ctx, ref, object); err != nil || row.SyncedObject == nil {
		return one, err
	}
	if object, err = coder.Decode(ctx, ref, row.SyncedObject); err != nil {
		return one, err
	}
	one.SyncedObject, err = coder.Encode(ctx, ref, object)
	return one, err
}

func (r *reencoding) rewriteRefused(ctx context.Context) error {
	page := db.RefusedObjectsParams{FromKind: r.kind, Most: reencodePage}
	for {
		rows, err := db.New().RefusedObjects(ctx, db.Planned(r.client.pool, reencodePage), page)
		if r.kind != "" { // the next kind follows
			rows = slices.DeleteFunc(rows, func(row db.RefusedObjectsRow) bool { return row.Kind != r.kind })
		}
		if err != nil || len(rows) == 0 {
			return err
		}
		last := &rows[len(rows)-1]
		page.FromKind, page.FromShard, page.FromObjectID = last.Kind, last.Shard, last.ObjectID+"\x01" // no text is between: Postgres has no NUL
		if err := r.rewriteRefusedPage(ctx, rows); err != nil {
			return err
		}
	}
}

func (r *reencoding) rewriteRefusedPage(ctx context.Context, rows []db.RefusedObjectsRow) error {
	for _, row := range rows {
		ref := Ref{Kind: row.Kind, ObjectID: row.ObjectID}
		object, err := r.client.coder.Decode(ctx, ref, row.Object)
		if errors.Is(err, db.ErrUndecoded) && ctx.Err() == nil {
			r.noteUndecoded(ref, err)
			continue
		}
		if err != nil {
			return err
		}
		stored, err := r.client.coder.Encode(ctx, ref, object)
		if err != nil {
			return err
		}
		_, err = db.New().ReencodeRefused(ctx, r.client.pool, db.ReencodeRefusedParams{
			Object: stored, Kind: row.Kind, Shard: row.Shard, ObjectID: row.ObjectID, OldObject: row.Object,
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *reencoding) noteUndecoded(ref Ref, err error) {
	if len(r.undecoded) == maxUndecodedNamed {
		r.left++
		return
	}
	r.undecoded = append(r.undecoded, fmt.Errorf("%s is left as it is: %w", ref, err))
}

// undecodedError returns an error that names objects that do not decode; nil if there are none.
func (r *reencoding) undecodedError() error {
	all := r.undecoded
	if r.left > 0 {
		all = append(all, fmt.Errorf("and %d more do not decode", r.left))
	}
	return errors.Join(all...)
}
