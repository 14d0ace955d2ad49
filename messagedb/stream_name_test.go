package messagedb_test

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/internal/soak"
	"github.com/chariot-giving/delta/messagedb"
)

func TestStreamNames(t *testing.T) {
	t.Parallel()
	name, err := messagedb.ParseStreamName("account:command+position-b1-c2+d3")
	require.NoError(t, err)
	require.Equal(t, "account:command+position", name.Category())
	require.Equal(t, "account", name.Entity())
	require.Equal(t, []string{"command", "position"}, name.Types())
	require.Equal(t, []string{"b1-c2", "d3"}, name.IDs())
	for _, test := range []struct {
		name         string
		id, cardinal string
		hasID        bool
		category     string
		ids, types   []string
	}{
		{name: "acct", category: "acct"},
		{name: "acct-", category: "acct", hasID: true, ids: []string{""}},
		{name: "-x", id: "x", cardinal: "x", hasID: true, ids: []string{"x"}},
		{name: "a:-+x", id: "+x", hasID: true, category: "a:", ids: []string{"", "x"}},
		{name: ""},
	} {
		n := messagedb.StreamName(test.name)
		id, ok := n.ID()
		require.Equal(t, test.hasID, ok)
		require.Equal(t, test.id, id)
		cardinal, ok := n.CardinalID()
		require.Equal(t, test.hasID, ok)
		require.Equal(t, test.cardinal, cardinal)
		require.Equal(t, test.category, n.Category())
		require.Equal(t, test.ids, n.IDs())
		require.Equal(t, test.types, n.Types())
		require.Equal(t, !test.hasID, n.IsCategory())
		if _, ok := n.Member(1); ok != test.hasID {
			t.Errorf("%q: member %v", test.name, ok)
		}
	}
	require.EqualValues(t, 2053039834977696644, messagedb.Hash64("someStream"))
}

func TestNamesAreBuiltAndRefused(t *testing.T) {
	t.Parallel()
	category, err := messagedb.NewCategory("account", "command", "position")
	require.NoError(t, err)
	name, err := messagedb.NewStreamName(category, "b1-c2", "d3")
	require.NoError(t, err)
	require.Equal(t, "account:command+position-b1-c2+d3", name.String())
	whole, err := messagedb.NewStreamName(category, "b1-c2+d3")
	require.NoError(t, err)
	require.Equal(t, name, whole)
	require.Equal(t, []string{"b1-c2", "d3"}, whole.IDs())
	parsed, err := messagedb.ParseStreamName(name.String())
	require.NoError(t, err)
	require.Equal(t, name, parsed)
	long := strings.Repeat("x", messagedb.MaxNameBytes)
	for what, try := range map[string]func() error{
		"empty":             func() error { _, err := messagedb.ParseStreamName(""); return err },
		"no id":             func() error { _, err := messagedb.ParseStreamName("acct"); return err },
		"empty id":          func() error { _, err := messagedb.ParseStreamName("acct-"); return err },
		"no category":       func() error { _, err := messagedb.ParseStreamName("-x"); return err },
		"NUL":               func() error { _, err := messagedb.ParseStreamName("a-\x00"); return err },
		"not UTF-8":         func() error { _, err := messagedb.ParseStreamName("a-\xff"); return err },
		"too long":          func() error { _, err := messagedb.ParseStreamName("a-" + long); return err },
		"no parts":          func() error { _, err := messagedb.NewStreamName("a"); return err },
		"an empty part":     func() error { _, err := messagedb.NewStreamName("a", "x", ""); return err },
		"a plus":            func() error { _, err := messagedb.NewStreamName("a", "x+y", "z"); return err },
		"a category's dash": func() error { _, err := messagedb.NewStreamName("a-b", "x"); return err },
		"entity":            func() error { _, err := messagedb.NewCategory(""); return err },
		"entity's colon":    func() error { _, err := messagedb.NewCategory("a:b"); return err },
		"type's dash":       func() error { _, err := messagedb.NewCategory("a", "b-c"); return err },
		"empty type":        func() error { _, err := messagedb.NewCategory("a", ""); return err },
		"type's plus":       func() error { _, err := messagedb.NewCategory("a", "b+c"); return err },
	} {
		bad := new(messagedb.InvalidError)
		require.ErrorAs(t, try(), &bad, what)
		require.NotEmpty(t, bad.Field, what)
		require.NotEmpty(t, bad.Rule, what)
	}
}

// randomName is made of few characters, so that separators stand everywhere.
func randomName(r *rand.Rand) string {
	alphabet := []rune("ab-+:ö—𝛿 \n'\"\\%")
	name := make([]rune, r.IntN(12))
	for i := range name {
		name[i] = alphabet[r.IntN(len(alphabet))]
	}
	return string(name)
}

func TestNamesAgreeWithTheServer(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	onBoth(t, func(t *testing.T, s *store) {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		r := rand.New(rand.NewPCG(seed, 0))
		for range 300 {
			requireAgreement(t, s.client, randomName(r))
		}
	})
}

// requireAgreement compares what the client and the server make of a name.
func requireAgreement(t *testing.T, c *messagedb.Client, s string) {
	t.Helper()
	ctx, server, name := t.Context(), c.ServerNames(), messagedb.StreamName(s)
	id, hasID, err := server.ID(ctx, s)
	require.NoError(t, err)
	ourID, ourHasID := name.ID()
	require.Equal(t, []any{id, hasID}, []any{ourID, ourHasID}, "%q", s)
	cardinal, hasCardinal, err := server.CardinalID(ctx, s)
	require.NoError(t, err)
	ourCardinal, ourHasCardinal := name.CardinalID()
	require.Equal(t, []any{cardinal, hasCardinal}, []any{ourCardinal, ourHasCardinal}, "%q", s)
	category, err := server.Category(ctx, s)
	require.NoError(t, err)
	require.Equal(t, category, name.Category(), "%q", s)
	is, err := server.IsCategory(ctx, s)
	require.NoError(t, err)
	require.Equal(t, is, name.IsCategory(), "%q", s)
	hash, err := server.Hash64(ctx, s)
	require.NoError(t, err)
	require.Equal(t, hash, messagedb.Hash64(s), "%q", s)
}

func FuzzStreamName(f *testing.F) {
	for _, s := range []string{"", "-", "acct", "acct-1", "a:b+c-d+e", "-+:", "ö-\xff", "a\x00-b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		name, err := messagedb.ParseStreamName(s)
		id, ok := name.ID()
		if joined := name.Category() + messagedb.StreamNameSeparator + id; ok && joined != s {
			t.Fatalf("%q is not %q", joined, s)
		}
		if err != nil {
			return
		}
		built, err := messagedb.NewStreamName(name.Category(), name.IDs()...)
		if err != nil {
			// Only what a compound id cannot be built of: an empty part.
			for _, part := range name.IDs() {
				if part == "" {
					return
				}
			}
			t.Fatal(err)
		}
		if built != name {
			t.Fatalf("%q was built of the parts of %q", built, name)
		}
		if member, ok := name.Member(7); !ok || member < 0 || member > 6 {
			t.Fatalf("member %d %v", member, ok)
		}
	})
}
