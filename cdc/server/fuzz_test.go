package server

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"testing"

	"github.com/chariot-giving/delta/cdc"
)

// What clients send as the place to go on at, and what the comments of publications hold, which their owners can change.
func FuzzTokens(f *testing.F) {
	f.Add("0/194B018@f22glo3h4k72")
	f.Add("0/0@")
	f.Add("@")
	f.Add(pageToken{"f22glo3h4k72", "public.account", []string{"1", ""}}.String())
	f.Add("eyJrIjpbXX0")
	f.Add(`{"madeBy":"` + ledgerMaker + `","slots":{"books":"f22glo3h4k72"}}`)
	f.Add(`{"madeBy":"` + ledgerMaker + `","slots":null}`)
	f.Fuzz(func(t *testing.T, text string) {
		if lsn, incarnation, err := parseToken(text); err == nil {
			again, same, err := parseToken(ownedPublication{Incarnation: incarnation}.resumeToken(lsn))
			if err != nil || again != lsn || same != incarnation || lsn == 0 {
				t.Fatalf("%q: %s %q %v", text, again, same, err)
			}
		}
		if p, err := parsePageToken(text); err == nil {
			again, err := parsePageToken(p.String())
			if err != nil || again.Incarnation != p.Incarnation || again.Table != p.Table || !slices.Equal(again.Key, p.Key) || len(p.Key) == 0 {
				t.Fatalf("%q: %+v is not %+v: %v", text, again, p, err)
			}
		}
		if l := parseLedger(text); l != nil && l.MadeBy != ledgerMaker {
			t.Fatalf("%q", text)
		}
	})
}

func FuzzFilter(f *testing.F) {
	for _, query := range []string{
		"", "tables=public.*,audit.%5C,x&kinds=insert,update", "tables=%5B", "kinds=none", "max_message=65536&large=chunks", "large=chunks", "max_message=-1",
		"tables=%00&tables=,", `tables=\,`,
	} {
		f.Add(query, "public.account")
	}
	f.Fuzz(func(t *testing.T, text, table string) {
		query, err := url.ParseQuery(text)
		if err != nil {
			return
		}
		filter, err := (&Server{config: Config{Tables: []string{"public.*"}}}).newFilter(query)
		if err != nil {
			return
		}
		if !filter.kinds[cdc.KindRead] || filter.canChunk && filter.maxMessage < minMaxMessage {
			t.Fatalf("%q: %+v", text, filter)
		}
		_ = matchesTable(filter.tables, table)
		_ = filter.checkTables([]string{table})
	})
}

// The bodies of /v2: what is taken is one JSON object, and no body makes the server fail.
func FuzzBody(f *testing.F) {
	for _, body := range []string{
		`{"name":"books","tables":["public.*"],"consumers":["a"],"snapshot":false}`, `{"lsn":"0/16B3748"}`, `{"lsn":"0/0"}`, `{"lsn":1}`, `{}{}`, `{}]`, `{} x`, "null", `{"name":"\u0000"}`, "[", "",
	} {
		f.Add([]byte(body))
	}
	s := &Server{config: Config{MaxBody: 1 << 10, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}}
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, into := range []any{&newSlot{}, &struct {
			LSN string `json:"lsn"`
		}{}} {
			answer, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/v2/slots", bytes.NewReader(text))
			err := s.decodeBody(answer, r, into)
			if err == nil {
				if !json.Valid(text) {
					t.Fatalf("%q is taken, and is not JSON", text)
				}
				continue
			}
			s.replyError(answer, r, err)
			if answer.Code < 400 || answer.Code >= 500 || !json.Valid(answer.Body.Bytes()) {
				t.Fatalf("%q: %d %s", text, answer.Code, answer.Body)
			}
		}
		if lsn, err := parseAck(string(text)); err == nil && lsn == 0 {
			t.Fatalf("%q", text)
		}
	})
}
