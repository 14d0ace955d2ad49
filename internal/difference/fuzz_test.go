package difference

import (
	"encoding/json"
	"testing"
)

// Any JSON of an object, of a version that another program has written, can be shown.
func FuzzValue(f *testing.F) {
	for _, text := range []string{``, `null`, `{"a":1,"a":2}`, `[1e400,"\ud800"]`, `{"":{"":[]}}`, `1 2`, `"<a>"`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		value := parseValue(text)
		if (value != nil) != json.Valid(text) {
			if value == nil && nestedTooDeep(text) {
				return
			}
			t.Fatalf("%q: %v", text, value)
		}
		if value == nil {
			return
		}
		again := parseValue(value.JSON())
		if again == nil || string(again.JSON()) != string(value.JSON()) {
			t.Fatalf("%q: %s", text, value.JSON())
		}
	})
}

// nestedTooDeep reports whether encoding/json refuses to decode what it calls valid.
func nestedTooDeep(text []byte) bool {
	var value any
	return json.Unmarshal(text, &value) != nil
}
