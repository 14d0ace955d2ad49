package v1

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/cdc/wal2json"
)

// appendValue appends a value of a snapshot. PGDeltaStream reads snapshots in binary and encodes them with Go's JSON, so its snapshots have
// another format for times, bytea and JSON than its stream, which has the plugin's. Its clients expect that; all other types have the
// format of the stream.
func appendValue(out []byte, typeOID uint32, v cdc.Value) []byte {
	if v.State != cdc.ValuePresent {
		return wal2json.AppendValue(out, typeOID, v)
	}
	ok := false
	switch typeOID {
	case pgtype.JSONOID, pgtype.JSONBOID:
		out, ok = appendJSON(out, v.Text)
	case pgtype.DateOID:
		out, ok = appendTime(out, time.DateOnly, v.Text)
	case pgtype.TimestampOID:
		out, ok = appendTime(out, "2006-01-02 15:04:05", v.Text)
	case pgtype.TimestamptzOID:
		out, ok = appendTime(out, "2006-01-02 15:04:05-07", v.Text)
	case pgtype.ByteaOID:
		out, ok = appendBase64(out, v.Text)
	}
	if ok {
		return out
	}
	return wal2json.AppendValue(out, typeOID, v)
}

// appendJSON appends JSON without the spaces between its parts.
func appendJSON(out []byte, text string) (_ []byte, ok bool) {
	buffer := bytes.NewBuffer(out)
	if err := json.Compact(buffer, []byte(text)); err != nil {
		return out, false
	}
	return buffer.Bytes(), true
}

// appendTime appends a time of Postgres in the format of RFC 3339, which has no infinity, and no years before 1 or after 9999.
func appendTime(out []byte, layout, text string) (_ []byte, ok bool) {
	at, err := time.Parse(layout, text)
	if err != nil {
		return out, false
	}
	return wal2json.AppendString(out, at.UTC().Format(time.RFC3339Nano)), true
}

func appendBase64(out []byte, text string) (_ []byte, ok bool) {
	data, err := hex.DecodeString(strings.TrimPrefix(text, `\x`))
	if err != nil {
		return out, false
	}
	return wal2json.AppendString(out, base64.StdEncoding.EncodeToString(data)), true
}
