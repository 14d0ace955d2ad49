package body_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc/server/internal/body"
)

func TestErrorsAreExplainedInTermsOfJSON(t *testing.T) {
	t.Parallel()
	for text, says := range map[string]string{
		``:                      `it is empty`,
		`{"name":`:              `it ends too early`,
		`[]`:                    `it must be an object, and not an array`,
		`{"name":7}`:            `"name" must be a string, and not a number`,
		`{"tables":"public.t"}`: `"tables" must be an array, and not a string`,
		`{"tables":[true]}`:     `"tables" must be a string, and not true or false`,
		`{"snapshot":"yes"}`:    `"snapshot" must be true or false, and not a string`,
		`{"limit":1.5}`:         `"limit" must be a whole number, and not a number 1.5`,
		`{"order_by":{"column":null,"order":{}}}`: `"order_by.order" must be a string, and not an object`,
		`{"foo":1}`: `unknown field "foo"`,
		`x`:         `invalid character 'x' looking for beginning of value`,
	} {
		var into struct {
			Name     string   `json:"name"`
			Tables   []string `json:"tables"`
			Snapshot *bool    `json:"snapshot"`
			Limit    *int64   `json:"limit"`
			OrderBy  struct {
				Column string `json:"column"`
				Order  string `json:"order"`
			} `json:"order_by"`
		}
		decoder := json.NewDecoder(strings.NewReader(text))
		decoder.DisallowUnknownFields()
		err := decoder.Decode(&into)
		require.Error(t, err, text)
		require.Equal(t, says, body.Explain(err), text)
	}
}
