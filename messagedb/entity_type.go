package messagedb

import (
	"encoding"
	"encoding/json"
	"reflect"
	"time"
)

// sharedPart names what two copies of a T would share, empty if nothing.
func sharedPart[T any]() string {
	return findPart(reflect.TypeFor[T](), reflect.TypeFor[T]().String(), reflect.StructField{}, isShared, map[reflect.Type]bool{})
}

func isShared(t reflect.Type, _ reflect.StructField) (found, done bool) {
	if t == reflect.TypeFor[time.Time]() {
		return false, true // its pointer to a location is never written to
	}
	switch t.Kind() { //nolint:exhaustive // the others are values
	case reflect.Pointer, reflect.Slice, reflect.Map, reflect.Interface, reflect.Chan, reflect.Func, reflect.UnsafePointer:
		return true, true
	}
	return false, false
}

// unmarshalledPart names what encoding/json would leave out of a T, empty if nothing.
func unmarshalledPart[T any]() string {
	return findPart(reflect.TypeFor[T](), reflect.TypeFor[T]().String(), reflect.StructField{}, isUnmarshalled, map[reflect.Type]bool{})
}

func isUnmarshalled(t reflect.Type, field reflect.StructField) (found, done bool) {
	if field.Name != "" && (field.Tag.Get("json") == "-" || !field.IsExported() && !field.Anonymous) {
		return true, true
	}
	marshals := t.Implements(reflect.TypeFor[json.Marshaler]()) || t.Implements(reflect.TypeFor[encoding.TextMarshaler]())
	if p := reflect.PointerTo(t); marshals && (p.Implements(reflect.TypeFor[json.Unmarshaler]()) || p.Implements(reflect.TypeFor[encoding.TextUnmarshaler]())) {
		return false, true // it knows what it does
	}
	switch t.Kind() { //nolint:exhaustive // the others are written
	case reflect.Chan, reflect.Func, reflect.UnsafePointer, reflect.Complex64, reflect.Complex128, reflect.Interface:
		return true, true // an interface is read as another type than it was written as
	}
	return false, false
}

// partQuestion asks of one type, and the field that has it, if one does, whether it is the part, and whether to look no further into it.
type partQuestion func(t reflect.Type, field reflect.StructField) (found, done bool)

// findPart looks at a type and those that it is made of, and names the first that a question is answered with yes for.
func findPart(t reflect.Type, path string, field reflect.StructField, ask partQuestion, seen map[reflect.Type]bool) string {
	found, done := ask(t, field)
	if found {
		return path + " (" + t.String() + ")"
	}
	if done || seen[t] {
		return ""
	}
	seen[t] = true
	switch t.Kind() { //nolint:exhaustive // the others have no parts
	case reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			if part := findPart(f.Type, path+"."+f.Name, f, ask, seen); part != "" {
				return part
			}
		}
	case reflect.Map:
		if part := findPart(t.Key(), path+"[key]", reflect.StructField{}, ask, seen); part != "" {
			return part
		}
		return findPart(t.Elem(), path+"[]", reflect.StructField{}, ask, seen)
	case reflect.Pointer, reflect.Slice, reflect.Array:
		return findPart(t.Elem(), path+"[]", reflect.StructField{}, ask, seen)
	}
	return ""
}
