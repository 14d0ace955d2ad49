package v1

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
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
		out := append(appendValue(before, oid, cdc.Value{State: cdc.ValuePresent, Text: text}), ']')
		switch oid {
		case pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID, pgtype.Float4OID, pgtype.Float8OID, pgtype.NumericOID, pgtype.OIDOID, pgtype.BoolOID:
			return // These are written as Postgres writes them, and it writes numbers and t or f.
		}
		if !json.Valid(out) {
			t.Fatalf("%d %q: %s", oid, text, out)
		}
	})
}

// The body of /v1/snapshot/data, and the acknowledgements of a stream.
func FuzzBody(f *testing.F) {
	for _, body := range []string{
		`{"slotName":"s","table":"public.a","offset":0,"limit":10,"order_by":{"column":"id","order":"ASC"}}`, `{"table":"a","limit":1e3}`, `{"table":"a","limit":-1}`,
		`{"table":"a","limit":1}]`, `{"lsn":"0/16B3748"}`, `{"lsn":null}`, "null", "[", "",
	} {
		f.Add([]byte(body))
	}
	h := &Handler{config: Config{MaxBody: 1 << 10, MaxRows: 100}}
	f.Fuzz(func(t *testing.T, text []byte) {
		answer, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/v1/snapshot/data", bytes.NewReader(text))
		q, wrong, status := h.parseRequest(answer, r)
		switch {
		case wrong != nil && (status < 400 || status >= 500 || wrong.Error == ""):
			t.Fatalf("%q: %d %+v", text, status, wrong)
		case wrong == nil && (!json.Valid(text) || q.Table == "" || q.Offset < 0 || *q.Limit < 0 || *q.Limit > 100):
			t.Fatalf("%q: %+v", text, q)
		}
	})
}
