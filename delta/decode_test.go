package delta_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
)

// nested are types that contain a value of any type somewhere, and some that do not.
type (
	inField  struct{ Value any }
	embedded struct{ inField }
	inSlice  struct{ Values []map[string][2]*inField }
	// recursive refers to itself before its value of any type.
	recursive struct {
		Next  *recursive
		Value any
	}
	without struct {
		Next  *without
		Name  string
		Parts map[string][]int
	}
	// own has its own UnmarshalJSON.
	requireOwn struct{ Value any }
)

func (o *requireOwn) UnmarshalJSON(text []byte) error { return json.Unmarshal(text, &o.Value) }

func TestNumbersKeepTheirDigitsWhereverATypeHoldsAny(t *testing.T) {
	t.Parallel()
	const number = "12345678901234567890"
	text := fmt.Sprintf(`{"Value": %[1]s, "Values": [{"a": [{"Value": %[1]s}, null]}], "Next": {"Value": %[1]s}}`, number)
	want := json.Number(number)

	var field inField
	require.NoError(t, delta.DecodeJSON([]byte(text), &field))
	require.Equal(t, want, field.Value)
	var pointer *embedded
	require.NoError(t, delta.DecodeJSON([]byte(text), &pointer))
	require.Equal(t, want, pointer.Value)
	var slice inSlice
	require.NoError(t, delta.DecodeJSON([]byte(text), &slice))
	require.Equal(t, want, slice.Values[0]["a"][0].Value)
	var again recursive
	require.NoError(t, delta.DecodeJSON([]byte(text), &again))
	require.Equal(t, want, again.Next.Value)
	var anything any
	require.NoError(t, delta.DecodeJSON([]byte(text), &anything))
	require.Equal(t, want, anything.(map[string]any)["Value"])

	var none without
	require.NoError(t, delta.DecodeJSON([]byte(`{"Next": {"Name": "n"}, "Parts": {"a": [1]}}`), &none))
	require.Equal(t, without{Next: &without{Name: "n"}, Parts: map[string][]int{"a": {1}}}, none)
	require.Error(t, delta.DecodeJSON([]byte(`{} {}`), &none), "more than one value")
	var itself requireOwn
	require.NoError(t, delta.DecodeJSON([]byte(number), &itself))
	require.InDelta(t, 1.2345678901234567e19, itself.Value, 1, "a type with its own decoder uses it")
}

// forgetful omits its id from its JSON for some values.
type forgetful struct {
	Key    string
	Forget bool
}

func (f forgetful) ID() string { return f.Key }
func (forgetful) Kind() string { return "forgetful" }
func (f forgetful) MarshalJSON() ([]byte, error) {
	if f.Forget {
		return []byte(`{"Key": "of another one", "Forget": true}`), nil
	}
	type plain forgetful
	return json.Marshal(plain(f))
}

func TestAnIDThatIsLostForSomeValuesOnlyIsRefusedToo(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.client(h.config())
	for _, id := range []string{"a", "a", `with "quotes" <&>`, "of another", "one"} {
		_, err := c.Inform(t.Context(), forgetful{Key: id}, nil)
		require.NoError(t, err)
		_, err = c.Inform(t.Context(), forgetful{Key: id, Forget: true}, nil)
		require.ErrorContains(t, err, `comes out as "of another one"`, id)
	}
}
