package db

import (
	"bytes"
	"context"
	"encoding/json"
	"reflect"
	"slices"

	"github.com/chariot-giving/delta/delta/deltatype"
)

// unnoted is the answer for an object with a row that was locked for longer than the LockTimeout. The caller informs it
// by itself.
var unnoted = &deltatype.ObjectInformResult{}

// listedShard is a shard that a complete listing runs for; a listing of a whole kind has no shard.
type listedShard struct{ kind, shard string }

// isListed reports whether a complete listing runs that a row belongs to.
func isListed(listed map[listedShard]bool, row *deltatype.ResourceRow) bool {
	return listed[listedShard{row.ObjectKind, ""}] || listed[listedShard{row.ObjectKind, row.Shard}]
}

// findListed returns the complete listings that run beside the caller, for the kinds of rows that were not written.
func findListed(
	ctx context.Context, conn DBTX, set []*deltatype.ObjectInformParams, found answers, options InformOptions,
) (map[listedShard]bool, error) {
	var kinds []string
	for i, o := range set { // sorted by kind
		isKept := found[i] != nil && !found[i].Scheduled
		if n := len(kinds); isKept && (n == 0 || kinds[n-1] != o.Kind) {
			kinds = append(kinds, o.Kind)
		}
	}
	if len(kinds) == 0 {
		return nil, nil //nolint:nilnil // there is nothing to ask
	}
	listed, err := New().ListedShards(ctx, conn, ListedShardsParams{Kinds: kinds, OwnPass: options.Pass})
	if err != nil || len(listed) == 0 {
		return nil, err
	}
	is := map[listedShard]bool{}
	for _, l := range listed {
		is[listedShard{l.Kind, l.Shard}] = true
	}
	return is, nil
}

// noteUnchanged writes what is new of unchanged objects and no reason to call Work. Most informs have nothing of that
// kind, and write nothing here.
func noteUnchanged(ctx context.Context, conn DBTX, set []*deltatype.ObjectInformParams, options InformOptions, found answers, listed map[listedShard]bool) error {
	var places []int
	for i, o := range set {
		if answer := found[i]; answer != nil && hasNews(o, answer, options, listed) {
			places = append(places, i)
		}
	}
	for page := range slices.Chunk(places, informPage) {
		if err := notePage(ctx, conn, set, options, found, page); err != nil {
			return err
		}
	}
	return nil
}

// hasNews reports whether an unchanged object has something to note.
func hasNews(o *deltatype.ObjectInformParams, answer *deltatype.ObjectInformResult, options InformOptions, listed map[listedShard]bool) bool {
	row := answer.Resource
	switch {
	case answer.Scheduled || answer.Stale || answer.Refused != nil:
		return false
	case row.State == deltatype.ResourceStateDeleted && !options.Revive:
		return false
	case isListed(listed, row):
		return true
	case o.Revision != nil && (row.Revision == nil || *o.Revision != *row.Revision):
		return true
	case int(o.ObjectVersion) > row.ObjectVersion || (o.Force && int(o.ObjectVersion) != row.ObjectVersion):
		return true
	case o.Shard != row.Shard || o.LimitKey != row.LimitKey:
		return true
	case !slices.Equal(o.Parents, row.Parents):
		return true
	case o.Tags != nil && !slices.Equal(o.Tags, row.Tags):
		return true
	}
	return len(o.Metadata) > 0 && !sameJSON(o.Metadata, row.Metadata)
}

// sameJSON reports whether two texts have the same members. Numbers that are written differently count as different,
// which costs a statement.
func sameJSON(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	decoded := func(text []byte) (v any) {
		decoder := json.NewDecoder(bytes.NewReader(text))
		decoder.UseNumber()
		_ = decoder.Decode(&v) // both are JSON
		return v
	}
	return reflect.DeepEqual(decoded(a), decoded(b))
}

// notePage is one statement of noteUnchanged, for some indexes of the set. Objects with rows that went on meanwhile
// lose their answers.
func notePage(ctx context.Context, conn DBTX, set []*deltatype.ObjectInformParams, options InformOptions, found answers, places []int) error {
	var p NoteResourcesParams
	if options.LockTimeout > 0 {
		p.LockTimeout = options.LockTimeout.String()
	}
	answered := make(map[int64]int, len(places))
	hashes := make([][]byte, 0, len(places))
	for _, i := range places {
		o, row := set[i], found[i].Resource
		answered[row.ID] = i
		hashes = append(hashes, found[i].Resource.Hash)
		p.Ids, p.Generations = append(p.Ids, row.ID), append(p.Generations, row.Generation)
		p.Metadatas, p.Revisions = append(p.Metadatas, string(o.Metadata)), append(p.Revisions, revisionText(o.Revision))
		p.ObjectVersions, p.Forced = append(p.ObjectVersions, o.ObjectVersion), append(p.Forced, o.Force)
		p.Shards, p.LimitKeys = append(p.Shards, o.Shard), append(p.LimitKeys, o.LimitKey)
		tags, parents := "", ""
		if o.Tags != nil {
			tags = arrayLiteral(o.Tags)
		}
		if o.Parents != nil {
			parents = arrayLiteral(formatRefs(o.Parents))
		}
		p.Tags, p.Parents = append(p.Tags, tags), append(p.Parents, parents)
	}
	p.Hashes = hashes
	rows, err := New().NoteResources(ctx, Planned(conn, len(places)), p)
	if options.LockTimeout > 0 && isLockTimeout(err) {
		for _, i := range places {
			found[i] = unnoted
		}
		return nil
	}
	if err != nil {
		return err
	}
	for r := range rows {
		i := answered[rows[r].ID]
		delete(answered, rows[r].ID)
		row, err := rows[r].Row()
		if err != nil {
			return err
		}
		before := found[i].Resource
		row.Hash, row.EncodedObject = before.Hash, before.EncodedObject // as it was sent
		found[i].Resource = row
	}
	for _, i := range answered {
		found[i] = nil
	}
	return nil
}
