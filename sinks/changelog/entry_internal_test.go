package changelog

import (
	"bytes"
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
)

// The hand-written encoding equals that of the struct Entry.
func TestTheBodyOfAMessageIsAnEntry(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 29, 2, 3, 4, 123456000, time.UTC)
	for name, c := range map[string]*delta.Change{
		"nothing":  {At: at},
		"deletion": {Position: "1.2.3", ID: 3, Type: delta.ChangeDeleted, Kind: "bill", ObjectID: "7", Namespace: "default", ResourceID: 4, Generation: 5, SyncCount: 6, At: at, Before: json.RawMessage(`{"a": 1}`)},
		"failure":  {ID: math.MaxInt64, Type: delta.ChangeFailed, At: at.Truncate(time.Second), Error: "503\nwhy", TraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", After: json.RawMessage(`null`)},
		"hostile": {
			ObjectID: "\"}\\\u2028\x00 <script> \U0001f600", Kind: "a/b", Error: "\x7f", At: at.In(time.FixedZone("", 3600)),
			After: json.RawMessage(`{"html": "<&>", "deep": [{"a": [1e300, -0, "\u0000"]}]}`),
		},
		"bytes that are no text": {ObjectID: "a\xffb", At: at},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var want bytes.Buffer
			encoder := json.NewEncoder(&want)
			encoder.SetEscapeHTML(false)
			require.NoError(t, encoder.Encode(EntryOf(c)))
			got, wanted := jsontext.Value(entryJSON(c)), jsontext.Value(want.Bytes())
			require.NoError(t, got.Canonicalize(jsontext.PreserveRawStrings(false)))
			require.NoError(t, wanted.Canonicalize(jsontext.PreserveRawStrings(false)))
			require.Equal(t, string(wanted), string(got))
		})
	}
}
