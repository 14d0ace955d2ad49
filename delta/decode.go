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

// decoder decodes a stored object, which a version of its type wrote, of the id that its row has.
type decoder = func(version int, encoded []byte, objectID string) (Object, error)

// versionOf is the version of an object's type; 0 where it has none.
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

// newComparison compares an object with one that is stored. It runs the object's own code: a panic, as a stored object that does not decode, leaves
// the decision to the hash.
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

// newDecoderLike decodes stored objects into the type of one, of whose controller nothing is known.
func newDecoderLike(object Object) decoder {
	return func(version int, encoded []byte, _ string) (Object, error) {
		if own, err := versionOf(object); err != nil || own != version {
			return nil, fmt.Errorf("the stored object is of version %d of its type", version)
		}
		return decodeAs(reflect.TypeOf(object), encoded)
	}
}

// keepsID are the types of which an object came out of its JSON with its id.
var keepsID sync.Map // of reflect.Type

// checkRoundTrip refuses an object whose JSON has another id, or none, as of a field that is not exported: Work would be given that one. JSON that
// does not decode into its own type is taken: the type of the worker may be another one.
//
// Whether an id survives is a matter of the type. Once one object of a type has kept its id, the others are decoded only where their JSON does
// not even have the text of the id: decoding each costs as much as all else that an inform does here. What a type with JSON
// methods of its own may still slip by is found when it is worked, and waits, visibly.
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

// hasString reports whether a JSON text has a string in it, as it is, without escapes.
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

// decodeObject is decodeAs for a type that is known.
func decodeObject[T Object](encoded []byte) (object T, err error) {
	if object, err = zeroObject[T](); err != nil {
		return object, err
	}
	return object, decodeJSON(encoded, &object)
}

// decodeJSON is json.Unmarshal, except that numbers in a field of type any are json.Number: as float64, an id of 20 digits would become another one.
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

// holdsAny says of types whether decoding may fill a value of an interface type in them.
var holdsAny sync.Map // of reflect.Type, bool

// mayHoldAny reports whether decoding into a type may fill a value of an interface type. What decodes itself is not looked into: it is given
// the text.
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
