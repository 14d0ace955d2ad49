package cdc

import (
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
)

// AppendJSON appends the value as JSON, given the type of its column. Only types that every JSON parser reads exactly
// become a number or a boolean: int2, int4, oid, finite floats and bool. All others become a string with Postgres'
// text. Bytes that are not UTF-8, which only a database without an encoding can hold, are replaced.
func (v Value) AppendJSON(out []byte, columnType string) []byte {
	if v.State != ValuePresent {
		return append(out, "null"...)
	}
	switch columnType {
	case "bool":
		return strconv.AppendBool(out, v.Text == "t")
	case "int4", "int2", "oid":
		return append(out, v.Text...)
	case "float8", "float4":
		if isFinite(v.Text) {
			return append(out, v.Text...)
		}
	}
	out, _ = jsontext.AppendQuote(out, v.Text)
	return out
}

// isFinite reports whether a float can be a JSON number, which NaN, Infinity and -Infinity cannot.
func isFinite(text string) bool {
	last := text[len(text)-1]
	return last >= '0' && last <= '9'
}
