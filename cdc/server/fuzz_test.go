package server

import (
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
