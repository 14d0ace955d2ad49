package delta

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheHashIsOfTheContent(t *testing.T) {
	t.Parallel()
	hash := func(text string) string {
		sum, err := hashJSON([]byte(text))
		require.NoError(t, err, text)
		require.Len(t, sum, 32)
		return string(sum)
	}
	for _, same := range [][2]string{
		{`{"a": 1, "b": {"d": [1, 2], "c": null}}`, `{"b":{"c":null,"d":[1,2]},"a":1}`},
		{`"\u00fc\/"`, `"ü/"`},
		{`[]`, " [ ] \n"},
	} {
		require.Equal(t, hash(same[0]), hash(same[1]), "%s and %s", same[0], same[1])
	}
	for _, other := range [][2]string{
		{`{"a": 1}`, `{"a": 2}`},
		{`{"a": 1}`, `{"a": "1"}`},
		{`[1, 2]`, `[2, 1]`},
		{`1152921504606846976`, `1152921504606846977`},
		{`0.12345678901234567890`, `0.12345678901234567891`},
		{`{"a": null}`, `{}`},
	} {
		require.NotEqual(t, hash(other[0]), hash(other[1]), "%s and %s", other[0], other[1])
	}
	given := []byte(`{"b": 1, "a": 2}`)
	_, err := hashJSON(given)
	require.NoError(t, err)
	require.JSONEq(t, `{"b": 1, "a": 2}`, string(given))
	require.Equal(t, byte('b'), given[2], "the text itself stays as it is")
	_, err = hashJSON([]byte(`{"a": 1} {}`))
	require.Error(t, err)
}
