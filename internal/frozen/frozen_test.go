package frozen

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestALineThatIsGoneIsIncompatible(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, recorded, now string
		want                []string
	}{
		{"nothing has changed", "a\nb\n", "a\nb\n", nil},
		{"a new line", "a\n", "a\nb\n", []string{"Not recorded", "+ b", "make api"}},
		{"a line is gone", "a\nb\n", "b\n", []string{"Incompatible", "- a", "make api"}},
		{"a line is another one", "a int\n", "a string\n", []string{"Incompatible", "- a int", "Not recorded", "+ a string"}},
		{"no file yet", "", "a\n", []string{"+ a"}},
	} {
		problem := describe(Compare(c.recorded, c.now))
		if len(c.want) == 0 {
			require.Empty(t, problem, c.name)
		}
		for _, part := range c.want {
			require.Contains(t, problem, part, c.name)
		}
		if c.name == "a new line" {
			require.NotContains(t, problem, "Incompatible")
		}
	}
}
