package v1

import (
	"encoding/json"
	"testing"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/chariot-giving/delta/cdc"
)

// A value of any type and text, also of an unknown type, is JSON.
func FuzzValue(f *testing.F) {
	for _, text := range []string{"", "1", "NaN", "t", `{"a": [1, 2]}`, "2026-11-29", "9999-12-31 23:59:59.999999-15", "infinity", `\xdeadbeef`, "{1,2}", "12:00:00", "\x01"} {
		for _, oid := range []uint32{
			pgtype.BoolOID, pgtype.Int8OID, pgtype.Float8OID, pgtype.NumericOID, pgtype.TextOID, pgtype.JSONOID, pgtype.JSONBOID, pgtype.DateOID, pgtype.TimestampOID,
			pgtype.TimestamptzOID, pgtype.ByteaOID, pgtype.Int4ArrayOID, 99999,
		} {
			f.Add(oid, text)
		}
	}
	f.Fuzz(func(t *testing.T, oid uint32, text string) {
		if !utf8.ValidString(text) {
			return // Postgres sends what its encoding allows.
		}
		before := []byte(`[`)
		out := append(appendValue(before, oid, cdc.Value{State: cdc.Present, Text: text}), ']')
		switch oid {
		case pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID, pgtype.Float4OID, pgtype.Float8OID, pgtype.NumericOID, pgtype.OIDOID, pgtype.BoolOID:
			return // These are written as Postgres writes them, and it writes numbers and t or f.
		}
		if !json.Valid(out) {
			t.Fatalf("%d %q: %s", oid, text, out)
		}
	})
}
