package delta

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"sync"
)

// decoder decodes a stored object, given the version of its type that wrote it, and the id of its row.
type decoder = func(version int, encoded []byte, objectID string) (Object, error)

// versionOf returns the version of an object's type; 0 if it has none.
func versionOf(object Object) (int, error) {
	with, ok := object.(ObjectWithVersion)
	if !ok {
		return 0, nil
	}
	version := with.Version()
	if version < 1 || version > math.MaxInt32 {
		return 0, inputError("Version", version, "must be at least 1, and at most %d: what was stored without a version is 0", math.MaxInt32)
	}
	return version, nil
}

// newComparison returns a function that compares an object with a stored one. It runs the object's own code. After a panic,
// or if the stored object does not decode, the hash decides.
func newComparison(object ComparableObject, id string, stored decoder) func(encoded []byte, version int) (int, bool) {
	if stored == nil {
		stored = newDecoderLike(object)
	}
	return func(encoded []byte, version int) (order int, ok bool) {
		defer func() {
			if v := recover(); v != nil {
				order, ok = 0, false
			}
		}()
		other, err := stored(version, encoded, id)
		if err != nil {
			return 0, false
		}
		return object.Compare(other)
	}
}

// newDecoderLike returns a decoder into the type of an object whose controller is unknown.
func newDecoderLike(object Object) decoder {
	return func(version int, encoded []byte, _ string) (Object, error) {
		if own, err := versionOf(object); err != nil || own != version {
			return nil, fmt.Errorf("the stored object is of version %d of its type", version)
		}
		return decodeAs(reflect.TypeOf(object), encoded)
	}
}

// keepsID has the types of which an object kept its id in its JSON.
var keepsID sync.Map // of reflect.Type

// checkRoundTrip refuses an object whose JSON has another id, or none, for example because the field is not exported: Work
// would get that object. JSON that does not decode into its own type is accepted, because the worker may use another type.
//
// The type decides whether an id survives. Once an object of a type has kept its id, others are decoded only if their JSON
// does not even contain the text of the id, because decoding each object costs as much as the rest of an inform here. If a
// type with its own JSON methods still loses an id, Work's decoding finds it, and the resource waits, visibly.
func checkRoundTrip(object Object, id string, encoded []byte) error {
	t := reflect.TypeOf(object)
	if _, keeps := keepsID.Load(t); keeps && hasString(encoded, id) {
		return nil
	}
	other, err := decodeAs(t, encoded)
	if err != nil {
		return nil //nolint:nilerr // see above
	}
	if got := other.ID(); got != id {
		return inputError("ID", id, "must be the same after a round trip through JSON, but comes out as %q: encoding/json keeps exported fields only", got)
	}
	keepsID.Store(t, nil)
	return nil
}

// hasString reports whether a JSON text contains a string literally, without escapes.
func hasString(encoded []byte, s string) bool {
	for rest := encoded; ; {
		at := bytes.Index(rest, []byte(s))
		if at < 0 {
			return false
		}
		if end := at + len(s); at > 0 && rest[at-1] == '"' && end < len(rest) && rest[end] == '"' {
			return true
		}
		rest = rest[at+1:]
	}
}

// decodeAs decodes JSON into a new value of a type of object, which may be a pointer.
func decodeAs(t reflect.Type, encoded []byte) (Object, error) {
	to := reflect.New(t)
	if t.Kind() == reflect.Pointer {
		to.Elem().Set(reflect.New(t.Elem()))
	}
	if err := decodeJSON(encoded, to.Interface()); err != nil {
		return nil, err
	}
	return to.Elem().Interface().(Object), nil
}

// decodeObject is decodeAs for a static type.
func decodeObject[T Object](encoded []byte) (object T, err error) {
	if object, err = zeroObject[T](); err != nil {
		return object, err
	}
	return object, decodeJSON(encoded, &object)
}

// decodeJSON is json.Unmarshal, except that numbers in a field of type any are json.Number: as float64, an id of 20 digits
// would change.
func decodeJSON(encoded []byte, to any) error {
	if !mayHoldAny(reflect.TypeOf(to)) {
		return json.Unmarshal(encoded, to)
	}
	decoder := json.NewDecoder(bytes.NewReader(encoded))
	decoder.UseNumber()
	if err := decoder.Decode(to); err != nil {
		return err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is more than one JSON value")
	}
	return nil
}

// holdsAny caches mayHoldAny.
var holdsAny sync.Map // of reflect.Type, bool

// mayHoldAny reports whether decoding into a type may fill a value of an interface type. It does not look into types that
// decode themselves, because they get the text.
func mayHoldAny(t reflect.Type) bool {
	if known, ok := holdsAny.Load(t); ok {
		return known.(bool) //nolint:forcetypeassert // nothing else is stored
	}
	holds := findAny(t, map[reflect.Type]struct{}{})
	holdsAny.Store(t, holds)
	return holds
}

func findAny(t reflect.Type, seen map[reflect.Type]struct{}) bool {
	if _, again := seen[t]; again {
		return false
	}
	seen[t] = struct{}{}
	if reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]()) {
		return false
	}
	switch t.Kind() {
	case reflect.Interface:
		return true
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
		return findAny(t.Elem(), seen)
	case reflect.Struct:
		for field := range t.NumField() {
			if findAny(t.Field(field).Type, seen) {
				return true
			}
		}
	default:
	}
	return false
}
