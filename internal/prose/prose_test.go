package prose

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPhrasesAreFoundInCommentsStringsAndParagraphs(t *testing.T) {
	t.Parallel()
	rules := func(file, source string) []string {
		var names []string
		for _, f := range Find(file, []byte(source)) {
			names = append(names, f.Rule)
		}
		return names
	}
	for source, want := range map[string][]string{
		"package a\n// It is what\n// was asked.\n":                     {"is what"},
		"package a\n// It\n\n// is\nvar whoever = 1\n":                  nil,
		"package a\nvar a = \"is made anew\"\n":                         {"anew"},
		"package a\n/* tells whether\nit runs */\n":                     {"tells that"},
		"package a\n// The worker, who has it, sleeps.\n":               {"who"},
		"package a\n// Operators who look, and users of it who do not.": {"who"},
		"package a\n// Postgres decides who owns a row.\n":              nil,
		"package a\n// It has the row read again.\n":                    {"has it done"},
		"package a\n// It has the row in one of its pages.\n":           nil,
		"package a\n// a worker of the user's own\n":                    {"of one's own"},
	} {
		require.Equal(t, want, rules("a.go", source), source)
	}
	require.Equal(t, []string{"he", "for nobody"}, rules("a.md", "It waits for\nnobody, he says.\n"))
	require.Empty(t, rules("a.md", "Run `is what it is`, [see](a.md#who-owns-it):\n\n```\nsays what\n```\n"))
	require.Equal(t, []string{"says what"}, rules("a.sql", "select 'anew'; -- says\n-- what\n"))
	require.Equal(t, []string{"anew"}, rules("Makefile", "a: # made anew\n\tanew\n"))
}

func TestAFindingNamesItsLine(t *testing.T) {
	t.Parallel()
	found := Find("a.go", []byte("package a\n\n// One line,\n// a second, which is\n// what is meant.\nvar a int\n"))
	require.Len(t, found, 1)
	require.Equal(t, 4, found[0].Line, "the phrase begins there, and ends in the next")
	require.Contains(t, found[0].String(), `a.go:4: is what: `)
}
