package deltaotel_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/chariot-giving/delta/delta"
)

func TestAPassIsASpanWithItsCounts(t *testing.T) {
	t.Parallel()
	listed := &accounts{list: []account{{Name: "ann"}, {Name: "bob"}}}
	o := startObserved(t, func(cs *delta.Controllers) { delta.AddController(cs, listed) }, func(c *delta.Config) { c.ResourceInformInterval = -1 })
	ctx, kind := context.Background(), delta.ScheduleInformParams{ResourceKind: "account"}
	_, err := o.RunInform(ctx, kind, nil)
	require.NoError(t, err)
	pass, list := o.waitForSpan("pass account", 1), o.waitForSpan("list account", 1)
	require.Equal(t, trace.SpanKindInternal, pass.SpanKind())
	require.Equal(t, codes.Unset, pass.Status().Code)
	require.Equal(t, "ok", attributeOf(pass, "delta.outcome"))
	require.Equal(t, "account", attributeOf(pass, "delta.kind"))
	require.EqualValues(t, 2, attributeOf(pass, "delta.pass.listed"))
	require.EqualValues(t, 2, attributeOf(pass, "delta.pass.new"))
	require.Nil(t, attributeOf(pass, "delta.pass.unchanged"))
	require.Nil(t, attributeOf(pass, "delta.objects"))
	require.Nil(t, attributeOf(pass, "delta.shard"))
	require.Equal(t, pass.SpanContext().SpanID(), list.Parent().SpanID(), "the listing is a part of it")

	listed.list = append(listed.list, account{Name: "cid"}, account{Name: "bob", Plan: "pro"})
	_, err = o.RunInform(ctx, kind, nil)
	require.NoError(t, err)
	pass = o.waitForSpan("pass account", 2)
	require.EqualValues(t, 1, attributeOf(pass, "delta.pass.new"))
	require.Positive(t, attributeOf(pass, "delta.pass.unchanged"))

	listed.broken.Store(true)
	require.NoError(t, o.ScheduleInform(ctx, kind, nil)) // the pass fails and is retried
	pass = o.waitForSpan("pass account", 3)
	require.Equal(t, "failed", attributeOf(pass, "delta.outcome"))
	require.Equal(t, codes.Error, pass.Status().Code)
	require.Contains(t, pass.Status().Description, "the provider is down")
	require.Equal(t, codes.Error, o.waitForSpan("list account", 3).Status().Code)
}

type local struct{ account }

func (local) Kind() string    { return "local" }
func (l local) Shard() string { return l.Plan }

// locals are listed by shards.
type locals struct {
	delta.WorkerDefaults[local]
	delta.InformerDefaults[local]
	isNameless atomic.Bool
}

func (*locals) Work(context.Context, *delta.Resource[local]) error { return nil }
func (l *locals) Shards(context.Context) ([]string, error) {
	if l.isNameless.Load() {
		return nil, errors.New("no such account")
	}
	return []string{"east"}, nil
}

func (*locals) Inform(_ context.Context, options *delta.InformOptions) (<-chan local, error) {
	objects := make(chan local, 1)
	objects <- local{account{Name: "ann", Plan: options.Shard}}
	close(objects)
	return objects, nil
}

func TestThePassOfAShardHasItsName(t *testing.T) {
	t.Parallel()
	listed := &locals{}
	o := startObserved(t, func(cs *delta.Controllers) { delta.AddController(cs, listed) }, func(c *delta.Config) { c.ResourceInformInterval = -1 })
	ctx, kind := context.Background(), delta.ScheduleInformParams{ResourceKind: "local"}
	_, err := o.RunInform(ctx, kind, nil)
	require.NoError(t, err)
	require.Equal(t, "east", attributeOf(o.waitForSpan("pass local", 1), "delta.shard"))
	require.Equal(t, "east", attributeOf(o.waitForSpan("list local", 1), "delta.shard"))
	naming := o.waitForSpan("shards local", 1)
	require.Equal(t, codes.Unset, naming.Status().Code)
	require.Nil(t, attributeOf(naming, "delta.pass.listed"))

	listed.isNameless.Store(true)
	require.NoError(t, o.ScheduleInform(ctx, kind, nil))
	naming = o.waitForSpan("shards local", 2)
	require.Equal(t, codes.Error, naming.Status().Code)
	require.Contains(t, naming.Status().Description, "no such account")
	require.Len(t, o.spansNamed("pass local"), 1, "nothing is listed")
}
