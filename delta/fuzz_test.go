package delta

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/chariot-giving/delta/delta/deltatype"
)

// The carrier of a row, which other versions and programs have written. What is read from it can be written, and read again.
func FuzzCarrier(f *testing.F) {
	for _, stored := range []string{
		"CvdlGRbNQ92ESOshHIAxnLeta3FpIDMxAQ\ntracestate: vendor=1", "b3: 1\nheader YQ: Yg", "header YQ: *", "header : ", ": ", "\n", "x", "traceparent: 00-1",
	} {
		f.Add(stored)
	}
	f.Fuzz(func(t *testing.T, stored string) {
		read, err := readCarrier(stored)
		if err != nil {
			return
		}
		var lines []string
		for _, name := range slices.Sorted(maps.Keys(read.span)) {
			lines = append(lines, encodeLine(name, read.span[name]))
		}
		again, err := readCarrier(appendHeaders(strings.Join(lines, "\n"), read.headers))
		if err != nil || !reflect.DeepEqual(again, read) {
			t.Fatalf("%q: %+v is not %+v: %v", stored, again, read, err)
		}
	})
}

// Values that Telemetry.Inject sets: those that are stored are read unchanged.
func FuzzCarried(f *testing.F) {
	f.Add("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	f.Add("header YQ", "x")
	f.Add("a: b", "c")
	f.Add("tracestate", "")
	f.Fuzz(func(t *testing.T, name, value string) {
		var set injection
		set.addValue(name, value)
		if set.lines == "" {
			return
		}
		read, err := readCarrier(set.lines)
		if err != nil || len(read.span) != 1 || read.span[name] != value || len(read.headers) > 0 {
			t.Fatalf("%q %q: %+v: %v", name, value, read, err)
		}
	})
}

// Positions and cursors that callers, and browsers, have kept.
func FuzzPositions(f *testing.F) {
	for _, text := range []string{
		"1.731.9", "0.1.1", "1.-1.1", "1.9223372036854775807.9223372036854775807", "+1.+1.+1",
		encodeCursor(SortChanged, sortPosition{text: "a", at: time.Unix(1, 0).UTC(), id: 7}, true), "e30", "eyJzIjoiIn0",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if p, err := parseChangePosition("position", ChangePosition(text)); err == nil {
			again, err := parseChangePosition("position", p.encode())
			if err != nil || again != p || p.id < 0 || p.epoch < 0 {
				t.Fatalf("%q: %+v is not %+v: %v", text, again, p, err)
			}
		}
		for _, sort := range []Sort{"", SortChanged} {
			c, err := decodeCursor(text, sort)
			if err != nil || c == nil {
				continue
			}
			again, err := decodeCursor(encodeCursor(sort, sortPosition{text: c.Text, at: c.At, id: c.ID}, c.IsBackwards), sort)
			if err != nil || again.Text != c.Text || !again.At.Equal(c.At) || again.ID != c.ID || again.IsBackwards != c.IsBackwards {
				t.Fatalf("%q: %+v is not %+v: %v", text, again, c, err)
			}
		}
	})
}

// fuzzed is an object of the shapes that decoding has to see to.
type fuzzed struct {
	Name  string          `json:"name"`
	Any   any             `json:"any"`
	Raw   json.RawMessage `json:"raw,omitempty"`
	Inner *fuzzed         `json:"inner,omitempty"`
}

func (o fuzzed) ID() string   { return o.Name }
func (o fuzzed) Kind() string { return "fuzzed" }

// The payload of a signal inform: anybody who may signal a workflow sends it.
func FuzzInformPayload(f *testing.F) {
	f.Add([]byte(`{"name":"a","any":12345678901234567890,"raw":{"x":[1]}}`), []byte(`{"namespace":"n","tags":["t"],"metadata":{"a":1},"priority":2}`))
	f.Add([]byte(`{"name":"a"}{}`), []byte(`{"unknown":1}`))
	f.Add([]byte(`{"name":"\u0000"}`), []byte(`{"metadata":{"a":"\u0000"}}`))
	f.Add([]byte("null"), []byte("null"))
	f.Add([]byte(`{"name":"a","any":"\ud800"}`), []byte(`{"max_attempts":-1}`))
	adapter := &controllerAdapter[fuzzed]{kind: "fuzzed"}
	f.Fuzz(func(t *testing.T, object, options []byte) {
		params, err := adapter.Encode(object, options)
		if err != nil {
			return
		}
		requireStorable(t, params)
		again, err := adapter.Encode(params.EncodedObject, options)
		if err != nil || string(again.Hash) != string(params.Hash) || again.ResourceID != params.ResourceID {
			t.Fatalf("%q: as it is stored, it is another: %v", object, err)
		}
	})
}

// requireStorable checks what Postgres checks, where an error would come too late.
func requireStorable(t *testing.T, params deltatype.ObjectInformParams) {
	t.Helper()
	for what, text := range map[string]string{
		"id": params.ResourceID, "object": string(params.EncodedObject), "metadata": string(params.Metadata), "namespace": params.Namespace, "tags": strings.Join(params.Tags, ","),
	} {
		if !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
			t.Fatalf("%s: %q", what, text)
		}
	}
	if params.ResourceID == "" || !json.Valid(params.EncodedObject) {
		t.Fatalf("%+v", params)
	}
}

// Calendars that users write.
func FuzzCron(f *testing.F) {
	for _, text := range []string{"0 12 * * MON-FRI", "TZ=Europe/Berlin @daily # x", "@every 1m/10s", "*/0 * * * *", "0 0 31 2 * 2100", "1-5/2,7 * * * *", "99999999999999999999 * * * *"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		spec, err := canonicalSpec("Schedule", ScheduleSpec{CronExpressions: []string{text}})
		if err != nil {
			return
		}
		for _, interval := range spec.Intervals {
			if interval.Every < time.Second {
				t.Fatalf("%q: %+v", text, interval)
			}
		}
		now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
		if previous := previousRun(spec, now); previous.After(now) {
			t.Fatalf("%q: %s", text, previous)
		}
	})
}
