package bridge

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc"
)

// All keys of up to three columns, with values of up to two of the characters that matter: no two have the same id.
func TestNoTwoKeysHaveTheSameID(t *testing.T) {
	t.Parallel()
	values := []string{""}
	for from := 0; len(values[len(values)-1]) < 2; {
		to := len(values)
		for _, value := range values[from:to] {
			for _, c := range []string{"a", ",", `\`} {
				values = append(values, value+c)
			}
		}
		from = to
	}
	require.Len(t, values, 1+3+9)
	keys := [][]string{nil}
	for columns := range 3 {
		var longer [][]string
		for _, key := range keys {
			for _, value := range values {
				longer = append(longer, append(key[:len(key):len(key)], value))
			}
		}
		keys = longer
		relation := &cdc.Relation{Columns: []cdc.Column{{Name: "other"}}}
		for range columns + 1 {
			relation.Columns = append(relation.Columns, cdc.Column{Key: true})
		}
		of := map[string][]string{}
		for _, key := range keys {
			row := []cdc.Value{{State: cdc.ValuePresent, Text: "x"}}
			for _, value := range key {
				row = append(row, cdc.Value{State: cdc.ValuePresent, Text: value})
			}
			id := keyText(relation, row)
			require.Equal(t, KeyID(key...), id)
			former, twice := of[id]
			require.False(t, twice, "%q and %q both have the id %q", former, key, id)
			of[id] = key
			if !strings.ContainsAny(strings.Join(key, ""), `,\`) || len(key) == 1 {
				require.Equal(t, strings.Join(key, ","), id, "what people read stays as it is")
			}
		}
	}
}
