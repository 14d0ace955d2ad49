package delta_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
)

// sharder names fixed shards.
type sharder struct {
	delta.Controller[regional]
	shards []string
}

func (s sharder) Shards(context.Context) ([]string, error) { return s.shards, nil }

func TestShardsThatBreakARuleFailTheRun(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	many := make([]string, 1001)
	for i := range many {
		many[i] = fmt.Sprint(i)
	}
	for rule, shards := range map[string][]string{
		`Shards[1] "": must not be empty`:                 {"a", ""},
		`Shards[0] "\n": must have no control characters`: {"\n"},
		`must be at most 255 bytes`:                       {strings.Repeat("x", 256)},
		`Shards 1001: must be at most 1000`:               many,
	} {
		handler := handlerOf(h, &sharder{shards: shards})
		require.True(t, handler.NamesShards())
		_, err := handler.Shards(t.Context())
		require.ErrorContains(t, err, rule)
	}
	got, err := handlerOf(h, &decorated[regional]{inner: &sharder{shards: []string{"b", "a", "b"}}}).Shards(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b"}, got)
	_, err = handlerOf(h, &sharder{}).Shards(t.Context())
	require.NoError(t, err)
}

// shardlessSharder names shards, but its objects have no Shard method.
type shardlessSharder struct{ yields[mirror] }

func (*shardlessSharder) Shards(context.Context) ([]string, error) { return nil, nil }

type nothingSharder struct {
	delta.WorkerDefaults[regional]
	delta.NoInformer[regional]
}

func (nothingSharder) Work(context.Context, *delta.Resource[regional]) error { return nil }
func (nothingSharder) Shards(context.Context) ([]string, error)              { return nil, nil }

// pointerShard has a Shard method with a pointer receiver.
type pointerShard struct{ mirror }

func (*pointerShard) Shard() string { return "" }

type pointedSharder struct{ yields[pointerShard] }

func (*pointedSharder) Shards(context.Context) ([]string, error) { return nil, nil }

func TestASharderWhoseObjectsSayNoShardIsRefused(t *testing.T) {
	t.Parallel()
	err := delta.AddControllerSafely(delta.NewControllers(), delta.Controller[mirror](&shardlessSharder{}))
	require.ErrorContains(t, err, `controller for kind "mirror": Shard delta_test.mirror: must have a method Shard() string`)
	err = delta.AddControllerSafely(delta.NewControllers(), delta.Controller[pointerShard](&pointedSharder{}))
	require.ErrorContains(t, err, "give it a value receiver")
	err = delta.AddControllerSafely(delta.NewControllers(), delta.Controller[regional](nothingSharder{}))
	require.ErrorContains(t, err, "a kind that lists nothing has no shards")

	h := newHarness(t)
	c := h.client(h.config(addTo[mirror](&yields[mirror]{})))
	_, err = c.RunInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "mirror"}, &delta.InformOptions{Shard: "a"})
	require.ErrorContains(t, err, `Shard "a": must be empty: the controller of kind mirror names no shards`)
}
