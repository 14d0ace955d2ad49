package difference_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/internal/difference"
)

func TestFieldsAreComparedOneByOne(t *testing.T) {
	t.Parallel()
	type field = difference.Field
	text := func(s string) json.RawMessage { return json.RawMessage(s) }
	for name, test := range map[string]struct {
		before, after string
		want          []field
	}{
		"nothing":        {`{"a":1,"b":[1,{"c":2}]}`, `{"b":[1,{"c":2}],"a":1}`, nil},
		"a field":        {`{"a":1,"b":2}`, `{"a":1,"b":3}`, []field{{"b", text("2"), text("3")}}},
		"within":         {`{"a":{"b":{"c":1,"d":2}}}`, `{"a":{"b":{"c":2,"d":2}}}`, []field{{"a.b.c", text("1"), text("2")}}},
		"new and gone":   {`{"a":1}`, `{"b":null}`, []field{{"a", text("1"), nil}, {"b", nil, text("null")}}},
		"of an array":    {`{"a":[1,2,3]}`, `{"a":[1,4]}`, []field{{"a[1]", text("2"), text("4")}, {"a[2]", text("3"), nil}}},
		"in their order": {`[0,0,0,0,0,0,0,0,0,0,0]`, `[0,0,1,0,0,0,0,0,0,0,1]`, []field{{"[2]", text("0"), text("1")}, {"[10]", text("0"), text("1")}}},
		"another type":   {`{"a":{"b":1}}`, `{"a":[1]}`, []field{{"a", text(`{"b":1}`), text("[1]")}}},
		"null and empty": {`{"a":null}`, `{"a":{}}`, []field{{"a", text("null"), text("{}")}}},
		"from nothing":   {``, `{"a":{"b":1},"c":{},"d":[{"e":1}]}`, []field{{"a.b", nil, text("1")}, {"c", nil, text("{}")}, {"d", nil, text(`[{"e":1}]`)}}},
		"to nothing":     {`{"a":1}`, ``, []field{{"a", text("1"), nil}}},
		"large numbers":  {`{"a":9007199254740993}`, `{"a":9007199254740992}`, []field{{"a", text("9007199254740993"), text("9007199254740992")}}},
		"no object":      {`1`, `"<2>"`, []field{{"", text("1"), text(`"<2>"`)}}},
		"escapes":        {`{"a":"\u0041"}`, `{"a":"A"}`, nil},
		"twice the same": {`{"a":1,"a":2}`, `{"a":2}`, nil},
		"no JSON":        {`hidden`, ``, nil},
		"beyond depth":   {strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000), ``, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, test.want, difference.Fields(text(test.before), text(test.after)))
		})
	}
}

// The tree has the parts of both versions: those of the later one in order, then those that it no longer has.
func TestATreeHasBothVersions(t *testing.T) {
	t.Parallel()
	node := difference.Tree(json.RawMessage(`{"z":1,"gone":{"x":1},"a":[1,2],"same":{"b":1}}`), json.RawMessage(`{"z":2,"a":[1],"same":{"b":1},"new":{"y":[3]}}`))
	require.Equal(t, difference.Within, node.Change)
	var shown func(n *difference.Node) string
	shown = func(n *difference.Node) string {
		text := n.Name + ":" + string(n.Change)
		for _, c := range n.Children {
			text += "(" + shown(c) + ")"
		}
		return text
	}
	require.Equal(t, ":within(z:changed)(a:within([0]:)([1]:removed))(same:(b:))(new:added(y:added([0]:added)))(gone:removed(x:removed))", shown(node))
	require.Nil(t, difference.Tree(nil, json.RawMessage("hidden")))
}
