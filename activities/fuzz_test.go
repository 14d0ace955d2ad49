package activities_test

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"slices"
	"testing"

	"go.temporal.io/sdk/temporal"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatest"
)

// The payload of a command that a signal carries, on a real Postgres. A command that cannot be carried out is refused: any other error would be retried.
func FuzzCommand(f *testing.F) {
	f.Add("inform", []byte(`{"object":{"id":"a","content":"1"}}`), "a")
	f.Add("inform", []byte(`{"object":{"id":"a","content":"\u0000"},"options":{"namespace":"n"}}`), "a")
	f.Add("inform", []byte(`{"object":null}`), "a")
	f.Add("inform", []byte("[]"), "")
	f.Add("delete", []byte("null"), "a")
	f.Add("touch", []byte{0xff}, "\xff")
	f.Add("retry", []byte{}, "\x00")
	env := deltatest.New(f)
	installation, err := db.New().GetInstallation(f.Context(), env.Pool)
	if err != nil {
		f.Fatal(err)
	}
	a := &activities.Activities{
		Pool: env.Pool, Installation: installation.ID, Handler: &handler{}, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), DefaultMaxAttempts: 10,
	}
	f.Fuzz(func(t *testing.T, command string, payload []byte, objectID string) {
		in := activities.CommandInput{
			Ref: activities.Ref{Installation: installation.ID, Kind: kind, ObjectID: objectID}, Command: activities.Command(command), Payload: payload,
		}
		if !slices.Contains(append(activities.Commands(), activities.CommandTouch), in.Command) {
			return // the workflow passes no others on
		}
		_, err := a.Command(t.Context(), in)
		refused := new(temporal.ApplicationError)
		if err != nil && (!errors.As(err, &refused) || !refused.NonRetryable()) {
			t.Fatalf("%s %q of %q would be retried for ever: %v", command, payload, objectID, err)
		}
	})
}

// The members of a batch, as the input of a workflow has them.
func FuzzNumbers(f *testing.F) {
	f.Add([]byte(`[1,2,9223372036854775807,-9223372036854775808]`))
	f.Add([]byte(`"AgQG"`))
	f.Add([]byte(`"gICAgICAgICAgAE="`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var n activities.Numbers
		if json.Unmarshal(text, &n) != nil {
			return
		}
		all := n.All()
		if len(all) != n.Len() {
			t.Fatalf("%q: %d numbers, and not %d", text, len(all), n.Len())
		}
		if again := activities.PackNumbers(all); !slices.Equal(again.All(), all) {
			t.Fatalf("%q: %v is not %v", text, again.All(), all)
		}
	})
}
