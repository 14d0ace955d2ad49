package workflows_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/converter"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/workflows"
)

// Anybody who may signal a workflow sends payloads of any encoding. The workflow goes on, and the command gets JSON or nothing.
func FuzzSignal(f *testing.F) {
	f.Add("inform", "json/plain", []byte(`{"object":{"name":"ann"}}`))
	f.Add("inform", "binary/plain", []byte{0, 0xff})
	f.Add("delete", "json/protobuf", []byte("{"))
	f.Add("wake", "", []byte("null"))
	f.Add("retry", "binary/encrypted", []byte(nil))
	f.Add("none", "json/plain", []byte("1"))
	f.Fuzz(func(t *testing.T, signal, encoding string, data []byte) {
		isCommand := slices.Contains(activities.Commands(), activities.Command(signal))
		p := newPlay(t, scene{step: retryAfter(hour)}, scene{at: time.Second, step: none})
		p.RegisterDelayedCallback(func() {
			payload := &commonpb.Payload{Metadata: map[string][]byte{converter.MetadataEncoding: []byte(encoding)}, Data: data}
			p.SignalWorkflow(signal, converter.NewRawValue(payload))
			if !isCommand && signal != workflows.WakeSignal {
				p.SignalWorkflow(workflows.WakeSignal, nil)
			}
		}, time.Second)
		if err := p.run(); err != nil {
			t.Fatalf("%q %q %q: %v", signal, encoding, data, err)
		}
		if want := map[bool]int{true: 1}[isCommand]; len(p.commands) != want {
			t.Fatalf("%q: %d commands", signal, len(p.commands))
		}
	})
}

// Ids of any object make names that Temporal and a gRPC header take, and different ones.
func FuzzWorkflowID(f *testing.F) {
	f.Add("a", "b", uint8(60))
	f.Add("ä%41", "ä%2541", uint8(20))
	f.Add(strings.Repeat("é", 200), strings.Repeat("é", 199), uint8(0))
	f.Add("~", "%7E", uint8(1))
	f.Fuzz(func(t *testing.T, a, b string, prefix uint8) {
		name := func(id string) string {
			return workflows.ShortenID(strings.Repeat("p", int(prefix))+"/kind/"+workflows.EscapeID(id), workflows.MaxID)
		}
		for _, id := range []string{a, b} {
			made := name(id)
			if len(made) > workflows.MaxID || strings.ContainsFunc(made, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
				t.Fatalf("%q: %q", id, made)
			}
		}
		if a != b && name(a) == name(b) {
			t.Fatalf("%q and %q are both %q", a, b, name(a))
		}
	})
}
