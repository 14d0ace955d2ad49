package delta

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// identifyObject returns the kind and id of an object, checked. A panic of its methods is an error.
func identifyObject(object Object) (kind, id string, err error) {
	defer recoverObjectPanic(object, &err)
	if object == nil {
		return "", "", inputError("object", "nil", "must not be nil")
	}
	kind, id = object.Kind(), object.ID()
	if err := checkName("kind", kind); err != nil {
		return "", "", err
	}
	if err := checkObjectID(id); err != nil {
		return "", "", fmt.Errorf("kind %s: %w", kind, err)
	}
	return kind, id, nil
}

// recoverObjectPanic, deferred, turns a panic of an object's methods into an error.
func recoverObjectPanic(object Object, err *error) {
	if v := recover(); v != nil {
		*err = fmt.Errorf("object of type %T: its methods panic: %v", object, v)
	}
}

// encodeObject turns an object and its options into the parameters of an inform. Panics of the object's methods become
// errors. stored decodes the stored object for a comparison; nil decodes it without a controller.
func encodeObject(object Object, opts *InformOpts, stored decoder) (params deltatype.ObjectInformParams, err error) {
	defer recoverObjectPanic(object, &err)
	kind, id, err := identifyObject(object)
	if err != nil {
		return params, err
	}

	var merged InformOpts
	if opts != nil {
		merged = *opts
	}
	if with, ok := object.(ObjectWithInformOpts); ok {
		merged = merged.withFallback(with.InformOpts())
	}
	if err := checkInformOpts(merged); err != nil {
		return params, fmt.Errorf("%s/%s: %w", kind, id, err)
	}

	encoded, err := json.Marshal(object)
	if err != nil {
		return params, fmt.Errorf("%s/%s: the object does not marshal to JSON: %w", kind, id, err)
	}
	if err := checkJSON("object", encoded); err != nil {
		return params, fmt.Errorf("%s/%s: %w", kind, id, err)
	}
	if deltatype.IsEncoded(encoded) {
		return params, fmt.Errorf("%s/%s: %w", kind, id, inputError("object", shownJSON(len(encoded)),
			`must not have "delta.encoded" as its only member: so objects are stored that Config.ObjectCodec has encoded`))
	}
	if err := checkRoundTrip(object, id, encoded); err != nil {
		return params, fmt.Errorf("%s/%s: %w", kind, id, err)
	}
	hash, err := hashJSON(encoded)
	if err != nil {
		return params, fmt.Errorf("%s/%s: the object's JSON: %w", kind, id, err)
	}
	params = deltatype.ObjectInformParams{
		ResourceID:    id,
		Kind:          kind,
		Namespace:     merged.Namespace,
		MoveNamespace: merged.MoveNamespace,
		EncodedObject: encoded,
		Hash:          hash,
		Metadata:      merged.Metadata,
		Tags:          merged.Tags,
		MaxAttempts:   merged.MaxAttempts,
		Priority:      merged.Priority,
		Force:         merged.Force,
		SyncMetadata:  merged.SyncMetadata,
	}
	if with, ok := object.(ObjectWithRevision); ok {
		revision := with.Revision()
		params.Revision = &revision
	}
	if params.Shard, params.LimitKey, err = keysOf(object); err != nil {
		return params, fmt.Errorf("%s/%s: %w", kind, id, err)
	}
	if params.Parents, err = parentsOf(object, kind, id); err != nil {
		return params, fmt.Errorf("%s/%s: %w", kind, id, err)
	}
	if with, ok := object.(ComparableObject); ok {
		params.Compare = newComparison(with, id, stored)
	}
	version, err := versionOf(object)
	if err != nil {
		return params, fmt.Errorf("%s/%s: %w", kind, id, err)
	}
	params.ObjectVersion = int32(version) //nolint:gosec // it was checked
	if with, ok := object.(ObjectWithCreatedAt); ok {
		if at := with.CreatedAt(); !at.IsZero() {
			if year := at.UTC().Year(); year < 1 || year > 9999 {
				return params, fmt.Errorf("%s/%s: %w", kind, id, inputError("CreatedAt", at, "must be in one of the years 1 to 9999"))
			}
			params.CreatedAt = &at
		}
	}
	return params, nil
}

// encodeForKind is encodeObject for an object that the controller of a kind gets.
func encodeForKind(kind string, object Object, opts *InformOpts, stored decoder) (deltatype.ObjectInformParams, error) {
	params, err := encodeObject(object, opts, stored)
	if err == nil && params.Kind != kind {
		err = inputError("kind", params.Kind, "must be the controller's kind, %q", kind)
	}
	return params, err
}

// keysOf returns the shard and the limit key of an object, if it has them.
func keysOf(object Object) (shard, limitKey string, err error) {
	if with, ok := object.(ObjectWithShard); ok {
		shard = with.Shard()
	}
	if with, ok := object.(ObjectWithLimitKey); ok {
		limitKey = with.LimitKey()
	}
	if err := checkKey("Shard", shard); err != nil {
		return "", "", err
	}
	return shard, limitKey, checkKey("LimitKey", limitKey)
}

// maxParents bounds the parents of an object, because they are checked one by one.
const maxParents = 16

// parentsOf returns the parents of an object, each once, in its order; nil if it has none.
func parentsOf(object Object, kind, id string) (parents []Ref, err error) {
	with, ok := object.(ObjectWithParents)
	if !ok {
		return nil, nil
	}
	for i, parent := range with.Parents() {
		field := fmt.Sprintf("Parents[%d]", i)
		if err := checkName(field+".Kind", parent.Kind); err != nil {
			return nil, err
		}
		if rule := db.BrokenIDRule(parent.ObjectID); rule != "" {
			return nil, inputError(field+".ObjectID", parent.ObjectID, "%s", rule)
		}
		if own := (Ref{Kind: kind, ObjectID: id}); parent == own {
			return nil, &ParentCycleError{Path: []Ref{own, own}}
		}
		if !slices.Contains(parents, parent) {
			parents = append(parents, parent)
		}
	}
	if len(parents) > maxParents {
		return nil, inputError("Parents", len(parents), "must be %d at most", maxParents)
	}
	return parents, nil
}

// canonical is RFC 8785, except that numbers count as written: two large integers, or long decimals, that are equal as
// double precision differ. Postgres refuses invalid names and UTF-8 itself.
var canonical = []jsontext.Options{
	jsontext.CanonicalizeRawInts(false),
	jsontext.CanonicalizeRawFloats(false),
	jsontext.AllowDuplicateNames(true),
	jsontext.AllowInvalidUTF8(true),
}

// hashJSON identifies the content of a JSON text: the order of members, white space and escapes do not matter. The hashes
// are stored. If hashJSON changes, every resource whose hash changes is synced again.
func hashJSON(encoded []byte) ([]byte, error) {
	form, err := canonicalJSON(encoded)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(form)
	return sum[:], nil
}

// canonicalJSON returns the text that is hashed. It leaves the given text unchanged.
func canonicalJSON(encoded []byte) ([]byte, error) {
	value := jsontext.Value(bytes.Clone(encoded))
	if err := value.Canonicalize(canonical...); err != nil {
		return nil, err
	}
	return value, nil
}
