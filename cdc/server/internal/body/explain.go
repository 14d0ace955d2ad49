// Package body explains errors of a JSON body in terms of JSON, because those of encoding/json name Go types.
package body

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
)

// Explain returns the text for an error of a [json.Decoder].
func Explain(err error) string {
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.As(err, &wrong):
		name := "it"
		if wrong.Field != "" {
			name = fmt.Sprintf("%q", wrong.Field)
		}
		return fmt.Sprintf("%s must be %s, and not %s", name, typeName(wrong.Type), describeValue(wrong.Value))
	case errors.Is(err, io.EOF):
		return "it is empty"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "it ends too early"
	}
	return strings.TrimPrefix(err.Error(), "json: ")
}

// typeName returns the JSON name of a Go type.
func typeName(t reflect.Type) string {
	words := map[reflect.Kind]string{
		reflect.String: "a string", reflect.Bool: "true or false", reflect.Slice: "an array", reflect.Struct: "an object",
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return cmp.Or(words[t.Kind()], "a whole number")
}

// describeValue adds an article to a value as encoding/json describes it: "number", "number 1.5", "array", "bool".
func describeValue(value string) string {
	switch {
	case value == "bool":
		return "true or false"
	case strings.HasPrefix(value, "array"), strings.HasPrefix(value, "object"):
		return "an " + value
	}
	return "a " + value
}
