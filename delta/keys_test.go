package delta_test

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
)

// keyed has a shard and a limit key that are not in its JSON.
type keyed struct {
	Key, Value      string
	shard, limitKey string
}

func (k keyed) ID() string       { return k.Key }
func (k keyed) Kind() string     { return "keyed" }
func (k keyed) Shard() string    { return k.shard }
func (k keyed) LimitKey() string { return k.limitKey }

func TestShardsAndLimitKeysAreColumnsThatAnInformWrites(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.client(h.config())
	one := func(ctx context.Context, k keyed) {
		_, err := c.Inform(ctx, k, nil)
		require.NoError(t, err)
	}
	many := func(ctx context.Context, k keyed) {
		_, err := c.InformMany(ctx, []delta.Object{account{Name: "beside it"}, k}, nil)
		require.NoError(t, err)
	}
	for name, inform := range map[string]func(context.Context, keyed){"one": one, "many": many} {
		steps := []struct {
			object     keyed
			generation int64
		}{
			{keyed{name, "a", "north", "acct_1"}, 1},
			{keyed{name, "a", "south", "acct_1"}, 1}, // nothing else changed: stored without a sync
			{keyed{name, "a", "south", "acct_2"}, 1},
			{keyed{name, "b", "east", "acct_3"}, 2},
			{keyed{name, "b", "", ""}, 2},
		}
		for _, step := range steps {
			inform(t.Context(), step.object)
			row := h.row("keyed", name)
			require.Equal(t, step.object.shard, row.Shard)
			require.Equal(t, step.object.limitKey, row.LimitKey)
			require.Equal(t, step.generation, row.Generation, "a key alone calls no Work")
		}
	}
	var none int
	require.NoError(t, h.Pool.QueryRow(t.Context(), `SELECT count(*) FROM delta_resource WHERE shard IS NULL AND limit_key IS NULL`).Scan(&none))
	require.Equal(t, 3, none, "an empty key means no key")

	for rule, bad := range map[string]keyed{
		`Shard "a\x00": must have no control characters`: {"bad", "", "a\x00", ""},
		`LimitKey "\xff": must be valid UTF-8`:           {"bad", "", "", "\xff"},
		"must be at most 255 bytes":                      {"bad", "", strings.Repeat("x", 256), ""},
	} {
		_, err := c.Inform(t.Context(), bad, nil)
		require.ErrorContains(t, err, rule)
	}
	require.Nil(t, h.row("keyed", "bad"))
}
