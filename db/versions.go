package db

import (
	"context"
	"fmt"
	"slices"

	"github.com/chariot-giving/delta/delta/deltatype"
)

// isStale reports whether the row's revision of an object is newer.
func isStale(o *deltatype.ObjectInformParams, r *Resource) bool {
	return !o.Force && o.Revision != nil && r.Revision != nil && *o.Revision < *r.Revision
}

// isOlder reports whether one of two objects with the same id in one set is older than the other. Objects of two
// tenants cannot be.
func isOlder(o, than *deltatype.ObjectInformParams) bool {
	areOfTwo := o.Namespace != "" && than.Namespace != "" && o.Namespace != than.Namespace && !o.MoveNamespace && !than.MoveNamespace
	if o.Force || areOfTwo {
		return false
	}
	if o.Revision != nil && than.Revision != nil && *o.Revision < *than.Revision {
		return true
	}
	if o.Compare == nil {
		return false
	}
	order, ok := o.Compare(than.EncodedObject, int(than.ObjectVersion))
	return ok && order < 0
}

// compareWithRows compares objects that compare themselves with their rows. An older object gets an answer. An equal
// one is replaced by the stored one, so that it counts as unchanged. Each gets the row's hash as a condition of the
// write. No lock is held or waited for, because user code runs between two statements.
func compareWithRows(ctx context.Context, conn DBTX, asked []*deltatype.ObjectInformParams, coder *Coder) (answers, error) {
	var places []int
	for i, o := range asked {
		if o.Compare != nil && !o.Force {
			places = append(places, i)
		}
	}
	if len(places) == 0 {
		return nil, nil
	}
	seen := make(answers, len(asked))
	for page := range slices.Chunk(places, informPage) {
		var p ResourcesToCompareParams
		for _, i := range page {
			p.Kinds, p.ObjectIds = append(p.Kinds, asked[i].Kind), append(p.ObjectIds, asked[i].ResourceID)
		}
		rows, err := New().ResourcesToCompare(ctx, Planned(conn, len(page)), p)
		if err != nil {
			return nil, err
		}
		type key struct{ kind, id string }
		there := make(map[key]*Resource, len(rows))
		for i := range rows {
			there[key{rows[i].Kind, rows[i].ObjectID}] = &rows[i]
		}
		for _, i := range page {
			if asked[i], seen[i], err = compareWithRow(ctx, asked[i], there[key{asked[i].Kind, asked[i].ResourceID}], coder); err != nil {
				return nil, err
			}
		}
	}
	return seen, nil
}

// compareWithRow compares one object with its row, if it has one. It returns the object to write, or an answer. It does
// not compare a refused object, because the row may be another tenant's. A stored object that the codec does not decode is
// an error, because it may be the newer one.
func compareWithRow(
	ctx context.Context, o *deltatype.ObjectInformParams, r *Resource, coder *Coder,
) (asked *deltatype.ObjectInformParams, answer *deltatype.ObjectInformResult, err error) {
	decided := *o
	if r == nil {
		decided.ExpectedHash = []byte{}
		return &decided, nil, nil
	}
	if refused := checkNamespace(r, o); refused != nil {
		row, err := r.Row()
		return nil, &deltatype.ObjectInformResult{Resource: row, AlreadyExists: true, Refused: refused}, err
	}
	decided.ExpectedHash = r.Hash
	stored, err := coder.Decode(ctx, deltatype.Ref{Kind: r.Kind, ObjectID: r.ObjectID}, r.Object)
	if err != nil {
		return nil, nil, fmt.Errorf("comparing with the resource %s/%s, which an inform with Force replaces: %w", r.Kind, r.ObjectID, err)
	}
	order, ok := o.Compare(stored, int(r.ObjectVersion))
	switch {
	case ok && order < 0:
		row, err := r.Row()
		return nil, &deltatype.ObjectInformResult{Resource: row, AlreadyExists: true, Stale: true}, err
	case ok && order == 0:
		decided.Hash, decided.EncodedObject, decided.ObjectVersion = r.Hash, r.Object, r.ObjectVersion
	}
	return &decided, nil, nil
}
