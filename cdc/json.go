package cdc

import (
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
)

// AppendJSON appends the value as JSON, given the type of its column. Only what every reader of JSON reads exactly is a number or a boolean:
// int2, int4, oid, finite floats and bool. Everything else is a string with the text of Postgres. In a string, bytes that are not UTF-8, which
// only a database without an encoding holds, are replaced.
func (v Value) AppendJSON(out []byte, columnType string) []byte {
	if v.State != Present {
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

// isFinite reports whether a float has a number in JSON: others are NaN, Infinity and -Infinity.
func isFinite(text string) bool {
	last := text[len(text)-1]
	return last >= '0' && last <= '9'
}
