package shorten_test

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/internal/shorten"
)

func TestATextThatFitsIsKeptAsItIs(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"", "plain", "grüße, 世界 🙂", strings.Repeat("x", 64)} {
		require.Equal(t, s, shorten.Text(s, 64))
	}
}

func TestALongTextIsCutAtACharacterAndSaysSo(t *testing.T) {
	t.Parallel()
	for _, char := range []string{"x", "ü", "世", "🙂"} {
		for before := range 5 {
			s := strings.Repeat("y", before) + strings.Repeat(char, 100)
			cut := shorten.Text(s, 64)
			require.True(t, utf8.ValidString(cut))
			require.LessOrEqual(t, len(cut), 64)
			require.Greater(t, len(cut), 64-utf8.UTFMax, "as much as fits is kept")
			kept, marked := strings.CutSuffix(cut, " … (cut)")
			require.True(t, marked)
			require.True(t, strings.HasPrefix(s, kept), "what is kept is the beginning")
		}
	}
}

func TestWhatPostgresCannotStoreIsReplaced(t *testing.T) {
	t.Parallel()
	require.Equal(t, "a\uFFFDb", shorten.Text("a\x00b", 64))
	require.Equal(t, "a\uFFFDb", shorten.Text("a\xff\xfeb", 64))
	// Replacing makes it longer: the limit holds afterwards.
	for _, char := range []string{"\x00", "\xff!"} {
		cut := shorten.Text(strings.Repeat(char, 60), 64)
		require.True(t, utf8.ValidString(cut))
		require.LessOrEqual(t, len(cut), 64)
		require.NotContains(t, cut, "\x00")
	}
}

type broken struct{ text string }

func (b *broken) Error() string { return b.text }

func TestAnErrorWhoseMethodPanicsIsNamedByItsType(t *testing.T) {
	t.Parallel()
	require.Equal(t, "503", shorten.Error(errors.New("503"), 64))
	require.Equal(t, strings.Repeat("x", 64-len(" … (cut)"))+" … (cut)", shorten.Error(errors.New(strings.Repeat("x", 65)), 64))
	var none *broken
	require.Contains(t, shorten.Error(none, 200), "an error of type *shorten_test.broken, whose methods panic: runtime error")
	require.LessOrEqual(t, len(shorten.Error(none, 64)), 64)
}
