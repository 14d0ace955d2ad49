// Package body says what is wrong with a body of JSON in words of JSON: those of encoding/json name types of Go.
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

// Explain is what a caller is told of an error of a [json.Decoder].
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

// typeName is a type in JSON's words.
func typeName(t reflect.Type) string {
	words := map[reflect.Kind]string{
		reflect.String: "a string", reflect.Bool: "true or false", reflect.Slice: "an array", reflect.Struct: "an object",
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return cmp.Or(words[t.Kind()], "a whole number")
}

// describeValue is a value as encoding/json describes it: "number", "number 1.5", "array", "bool".
func describeValue(value string) string {
	switch {
	case value == "bool":
		return "true or false"
	case strings.HasPrefix(value, "array"), strings.HasPrefix(value, "object"):
		return "an " + value
	}
	return "a " + value
}
