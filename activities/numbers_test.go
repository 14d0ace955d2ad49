package activities

import (
	"encoding/json"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNumbersArePacked(t *testing.T) {
	t.Parallel()
	for _, all := range [][]int64{{}, {0}, {1, 1, 1}, {7, 3, -5, 1 << 40}, {math.MaxInt64, math.MinInt64, 0, math.MaxInt64}} {
		packed := PackNumbers(all)
		require.Equal(t, all, packed.All())
		require.Equal(t, len(all), packed.Len())

		for _, written := range []any{all, packed} {
			encoded, err := json.Marshal(written)
			require.NoError(t, err)
			var decoded Numbers
			require.NoError(t, json.Unmarshal(encoded, &decoded))
			require.Equal(t, all, decoded.All())
		}
	}
	var decoded Numbers
	require.NoError(t, json.Unmarshal([]byte("null"), &decoded))
	require.Zero(t, decoded.Len())
	for _, wrong := range []string{`["1"]`, `{}`, `"%"`} {
		require.Error(t, json.Unmarshal([]byte(wrong), &decoded), wrong)
	}
	// What a batch of neighbours takes.
	ids, ones := make([]int64, 1000), make([]int64, 1000)
	for i := range ids {
		ids[i], ones[i] = 5_000_000+int64(i*7%4000), 1
	}
	require.Less(t, len(PackNumbers(ids))+len(PackNumbers(ones)), 3500)
}
