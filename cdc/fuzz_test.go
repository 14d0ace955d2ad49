package cdc

import (
	"errors"
	"strings"
	"testing"
)

func FuzzLSN(f *testing.F) {
	for _, s := range []string{"", "/", "0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF", "100000000/0", "+1/0", "0/1_0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		lsn, err := ParseLSN(s)
		if err != nil {
			if lsn != 0 || !errors.As(err, new(*InvalidError)) {
				t.Fatalf("%q: %d, %v", s, lsn, err)
			}
			return
		}
		if again, err := ParseLSN(lsn.String()); err != nil || again != lsn {
			t.Fatalf("%q: %s, %s, %v", s, lsn, again, err)
		}
	})
}

// The decoder reads a whole stream: what it remembers of earlier messages must not make it panic over later ones.
func FuzzStreamOfMessages(f *testing.F) {
	relation := "R\x00\x00\x00\x01public\x00t\x00d\x00\x02\x01id\x00\x00\x00\x00\x17\xff\xff\xff\xff\x00v\x00\x00\x00\x00\x19\xff\xff\xff\xff"
	f.Add(relation, "I\x00\x00\x00\x01N\x00\x02t\x00\x00\x00\x011t\x00\x00\x00\x01x", "U\x00\x00\x00\x01K\x00\x02t\x00\x00\x00\x011nN\x00\x02t\x00\x00\x00\x011u", false)
	f.Add(relation, "D\x00\x00\x00\x01O\x00\x02t\x00\x00\x00\x011n", "T\x00\x00\x00\x01\x03\x00\x00\x00\x01", false)
	f.Add("S\x00\x00\x00\x07\x01", "R\x00\x00\x00\x07"+relation[1:], "I\x00\x00\x00\x07\x00\x00\x00\x01N\x00\x02nn", true)
	f.Add("Y\x00\x00\x00\x20public\x00mood\x00", "R\x00\x00\x00\x01\x00t\x00f\x00\x01\x01m\x00\x00\x00\x00\x20\xff\xff\xff\xff", "M\x01\x00\x00\x00\x00\x00\x00\x00\x01p\x00\x00\x00\x00\x01x", false)
	f.Fuzz(func(_ *testing.T, first, second, third string, _ bool) {
		decoder := NewDecoder()
		for _, message := range []string{first, second, third} {
			_, _ = decoder.Decode([]byte(message))
		}
	})
}

// Anybody who may write messages into the log can write ones with the prefixes of this package.
func FuzzOwnMessage(f *testing.F) {
	f.Add("M\x01\x00\x00\x00\x00\x00\x00\x00\x01"+prefixWatermark+"\x00\x00\x00\x00\x0cbackfill 1 low", "a 18446744073709551615 high", false)
	f.Add("M\x00\x00\x00\x07\x01\x00\x00\x00\x00\x00\x00\x00\x01"+prefixHeartbeat+"\x00\x00\x00\x00\x07slot 12", "slot -9223372036854775808", true)
	f.Add("M", " ", false)
	f.Fuzz(func(t *testing.T, data, content string, streamed bool) {
		if strings.HasPrefix(data, "M") {
			if prefix, _ := ownMessage([]byte(data), streamed); prefix != "" && prefix != prefixHeartbeat && prefix != prefixWatermark {
				t.Fatalf("%q", prefix)
			}
		}
		if m, ok := parseWatermark(content); ok {
			if again, ok := parseWatermark(m.String()); !ok || again != m {
				t.Fatalf("%q: %+v is not %+v", content, again, m)
			}
		}
		if h, ok := parseHeartbeat(content); ok {
			if again, ok := parseHeartbeat(h.String()); !ok || again.slot != h.slot || !again.written.Equal(h.written) {
				t.Fatalf("%q: %+v is not %+v", content, again, h)
			}
		}
	})
}

func FuzzTablePattern(f *testing.F) {
	f.Add("public.*", "public.order")
	f.Add(`[a-z].\*`, "a.*")
	f.Add("a/b.[", "a/b.c")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		match, err := MatchTable(pattern, name)
		if err != nil && (match || !errors.As(err, new(*InvalidError))) {
			t.Fatalf("%q: %t, %v", pattern, match, err)
		}
		if !strings.ContainsAny(name, `*?[\`) {
			if match, err := MatchTable(name, name); err != nil || !match {
				t.Fatalf("%q does not match itself: %v", name, err)
			}
		}
	})
}

// Tokens of backfills, which callers keep.
func FuzzBackfillToken(f *testing.F) {
	f.Add((&progress{Schema: "public", Table: "a", Columns: []string{"id"}, Key: []string{"\xff"}, Reread: map[string][]string{"1": {"1"}}}).String())
	f.Add(`{"version":1,"schema":"public","table":"a","columns":["id"],"key":["1","2"]}`)
	f.Add(`{"version":1,"schema":"public","table":"a","columns":["a","b"],"again":[["1",null],[]]}`)
	f.Add(`{"version":1,"schema":"public","table":"a","columns":["id"],"again":[null]}`)
	f.Fuzz(func(t *testing.T, token string) {
		var read, again progress
		if read.parse(token, "public", "a") != nil {
			return
		}
		for _, key := range read.Reread {
			if len(key) != len(read.Columns) {
				t.Fatalf("%q: %q", token, key)
			}
		}
		if err := again.parse(read.String(), "public", "a"); err != nil || again.String() != read.String() {
			t.Fatalf("%q: %s is not %s: %v", token, again.String(), read.String(), err)
		}
	})
}
