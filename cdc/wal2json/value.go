package wal2json

import (
	"strings"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/chariot-giving/delta/cdc"
)

// AppendValue appends a value of a type as JSON: numbers and booleans as such, bytea in hexadecimal digits, all others
// as strings. NaN and the infinities, which JSON does not have, are null, and so are values that an update has left
// unchanged.
func AppendValue(out []byte, typeOID uint32, v cdc.Value) []byte {
	if v.State != cdc.ValuePresent {
		return append(out, `null`...)
	}
	switch typeOID {
	case pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID, pgtype.OIDOID, pgtype.Float4OID, pgtype.Float8OID, pgtype.NumericOID:
		if strings.ContainsAny(v.Text, "aIy") { // NaN, Infinity, -Infinity
			return append(out, `null`...)
		}
		return append(out, v.Text...)
	case pgtype.BoolOID:
		if v.Text == "t" {
			return append(out, `true`...)
		}
		return append(out, `false`...)
	case pgtype.ByteaOID:
		return AppendString(out, strings.TrimPrefix(v.Text, `\x`))
	default:
		return AppendString(out, v.Text)
	}
}

const hexDigits = "0123456789abcdef"

// AppendString appends a string as JSON like Postgres: only quotes, backslashes and control characters are escaped.
func AppendString(out []byte, s string) []byte {
	out = append(out, '"')
	start := 0
	for i := range len(s) {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		out = append(out, s[start:i]...)
		start = i + 1
		switch c {
		case '"', '\\':
			out = append(out, '\\', c)
		case '\b':
			out = append(out, `\b`...)
		case '\f':
			out = append(out, `\f`...)
		case '\n':
			out = append(out, `\n`...)
		case '\r':
			out = append(out, `\r`...)
		case '\t':
			out = append(out, `\t`...)
		default:
			out = append(out, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return append(append(out, s[start:]...), '"')
}
