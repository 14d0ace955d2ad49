package deltaotel_test

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/chariot-giving/delta/delta"
)

// retryQuickly returns settings that retry failures at once, with single workflows unless batch is set.
func retryQuickly(batch int) delta.ObjectSettings {
	return delta.ObjectSettings{InformInterval: -1, BatchSize: batch, RetryPolicy: delta.RetryPolicy{InitialInterval: 10 * time.Millisecond}}
}

type quick struct{ account }

func (quick) Settings() delta.ObjectSettings { return retryQuickly(1) }

// quicks is a controller with a function for Work.
type quicks struct {
	delta.WorkerDefaults[quick]
	delta.InformerDefaults[quick]
	work func(ctx context.Context, r *delta.Resource[quick]) error
}

func (c *quicks) Work(ctx context.Context, r *delta.Resource[quick]) error { return c.work(ctx, r) }
func (c *quicks) Inform(context.Context, *delta.InformOptions) (<-chan quick, error) {
	objects := make(chan quick)
	close(objects)
	return objects, nil
}

// startCaller begins a span of the informing program.
func (o *observed) startCaller() (context.Context, trace.Span) {
	return o.tracer.Tracer("test").Start(context.Background(), "caller")
}

func TestTheFirstCallOfWorkIsAChildOfTheInformAndOthersHaveALink(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	o := startObserved(t, func(cs *delta.Controllers) {
		delta.AddController(cs, &quicks{work: func(ctx context.Context, _ *delta.Resource[quick]) error {
			require.True(t, trace.SpanContextFromContext(ctx).IsValid())
			if calls.Add(1) == 1 {
				return errors.New("503 from the provider")
			}
			return nil
		}})
	}, nil)
	ctx, caller := o.startCaller()
	result, err := o.Inform(ctx, quick{account{Name: "ann"}}, nil)
	require.NoError(t, err)
	caller.End()

	inform := o.waitForSpan("inform account", 1)
	require.Equal(t, caller.SpanContext().SpanID(), inform.Parent().SpanID())
	require.Equal(t, trace.SpanKindProducer, inform.SpanKind())

	first := o.waitForSpan("work account", 1)
	require.Equal(t, caller.SpanContext().TraceID(), first.SpanContext().TraceID(), "the first call is in the trace of the inform")
	require.Equal(t, inform.SpanContext().SpanID(), first.Parent().SpanID())
	require.Equal(t, trace.SpanKindConsumer, first.SpanKind())
	require.Equal(t, sdktrace.Status{Code: codes.Error, Description: "503 from the provider"}, first.Status())
	require.Equal(t, "failed", attributeOf(first, "delta.outcome"))
	require.Equal(t, int64(1), attributeOf(first, "delta.attempt"))
	require.Equal(t, result.Resource.Generation, attributeOf(first, "delta.generation"))
	require.Equal(t, "account", attributeOf(first, "delta.kind"))
	require.Equal(t, "default", attributeOf(first, "delta.namespace"))
	require.Equal(t, "ann", attributeOf(first, "delta.object_id"))

	second := o.waitForSpan("work account", 2)
	require.NotEqual(t, caller.SpanContext().TraceID(), second.SpanContext().TraceID())
	require.Len(t, second.Links(), 1)
	require.Equal(t, inform.SpanContext().SpanID(), second.Links()[0].SpanContext.SpanID())
	require.Equal(t, codes.Unset, second.Status().Code)
	require.Equal(t, "synced", attributeOf(second, "delta.outcome"))
	require.Equal(t, int64(2), attributeOf(second, "delta.attempt"))
}

func TestTheNewestInformOfAnObjectThatChangedIsTheParent(t *testing.T) {
	t.Parallel()
	began, goOn := make(chan struct{}, 10), make(chan struct{})
	o := startObserved(t, func(cs *delta.Controllers) {
		delta.AddController(cs, &quicks{work: func(context.Context, *delta.Resource[quick]) error {
			began <- struct{}{}
			<-goOn
			return nil
		}})
	}, nil)
	spanOf := func(plan string) trace.TraceID {
		ctx, caller := o.startCaller()
		defer caller.End()
		_, err := o.Inform(ctx, quick{account{Name: "ann", Plan: plan}}, nil)
		require.NoError(t, err)
		return caller.SpanContext().TraceID()
	}
	carrier := func() (digits string) {
		var packed string
		require.NoError(t, o.Env.Pool.QueryRow(t.Context(), "SELECT coalesce(carrier, '') FROM delta_resource").Scan(&packed))
		raw, err := base64.RawStdEncoding.DecodeString(packed) // a traceparent has its bytes in the row
		require.NoError(t, err)
		return hex.EncodeToString(raw)
	}
	first := spanOf("free")
	<-began
	require.Contains(t, carrier(), first.String())
	unchanged := spanOf("free")
	require.NotContains(t, carrier(), unchanged.String(), "an object that did not change keeps what its generation carries")
	newest := spanOf("pro")
	require.Contains(t, carrier(), newest.String())
	close(goOn)
	o.waitForSpan("work account", 1)
	last := o.waitForSpan("work account", 2)
	require.Equal(t, newest, last.SpanContext().TraceID())
	require.Equal(t, int64(2), attributeOf(last, "delta.generation"))
	var syncs, generation int64
	require.NoError(t, o.Env.Pool.QueryRow(t.Context(), "SELECT sync_count, generation FROM delta_resource").Scan(&syncs, &generation))
	require.Equal(t, int64(2), generation, "another span is no reason to call Work")

	// A sync after a command has no inform.
	waitUntil(t, func() bool {
		_, err := o.Invalidate(context.Background(), quick{account{Name: "ann"}})
		return err == nil
	})
	require.Empty(t, carrier())
	invalidated := o.waitForSpan("work account", 3)
	require.False(t, invalidated.Parent().IsValid())
	require.Empty(t, invalidated.Links())
}

func TestInformTxAndInformManyCarryTheirSpans(t *testing.T) {
	t.Parallel()
	o := startObserved(t, func(cs *delta.Controllers) {
		delta.AddController(cs, &quicks{work: func(context.Context, *delta.Resource[quick]) error { return nil }})
	}, nil)
	ctx, caller := o.startCaller()
	require.NoError(t, pgx.BeginFunc(ctx, o.Env.Pool, func(tx pgx.Tx) error {
		_, err := o.InformTx(ctx, tx, quick{account{Name: "in a transaction"}}, nil)
		return err
	}))
	_, err := o.InformMany(ctx, []delta.Object{quick{account{Name: "one"}}, quick{account{Name: "two"}}}, nil)
	require.NoError(t, err)
	caller.End()
	o.waitForSpan("work account", 3)
	informs := o.spansNamed("inform account")
	require.Len(t, informs, 2)
	parents := map[trace.SpanID]int{}
	for _, span := range o.spansNamed("work account") {
		require.Equal(t, caller.SpanContext().TraceID(), span.SpanContext().TraceID())
		parents[span.Parent().SpanID()]++
	}
	require.Equal(t, map[trace.SpanID]int{informs[0].SpanContext().SpanID(): 1, informs[1].SpanContext().SpanID(): 2}, parents)
}

type member struct{ account }

func (member) Kind() string { return "member" }
func (member) Settings() delta.ObjectSettings {
	s := retryQuickly(10)
	s.BatchWait = 100 * time.Millisecond
	return s
}

// members is a controller of batches.
type members struct {
	delta.WorkerDefaults[member]
	delta.InformerDefaults[member]
}

func (*members) Work(context.Context, *delta.Resource[member]) error { return nil }
func (*members) Inform(context.Context, *delta.InformOptions) (<-chan member, error) {
	objects := make(chan member)
	close(objects)
	return objects, nil
}

func (c *members) WorkBatch(_ context.Context, resources []*delta.Resource[member]) []error {
	results := make([]error, len(resources))
	for i, r := range resources {
		if r.Object.Name == "bad" && r.Attempt == 1 {
			results[i] = errors.New("refused")
		}
	}
	return results
}

func TestABatchHasLinksToTheInformsOfItsResources(t *testing.T) {
	t.Parallel()
	o := startObserved(t, func(cs *delta.Controllers) { delta.AddController(cs, &members{}) }, nil)
	ctx, caller := o.startCaller()
	_, err := o.InformMany(ctx, []delta.Object{member{account{Name: "bad"}}, member{account{Name: "good"}}, member{account{Name: "other"}}}, nil)
	require.NoError(t, err)
	caller.End()
	inform := o.waitForSpan("inform member", 1)
	batch := o.waitForSpan("work_batch member", 1)
	require.NotEqual(t, caller.SpanContext().TraceID(), batch.SpanContext().TraceID())
	require.Len(t, batch.Links(), 1, "the three were informed together")
	require.Equal(t, inform.SpanContext().SpanID(), batch.Links()[0].SpanContext.SpanID())
	require.Equal(t, int64(3), attributeOf(batch, "delta.objects"))
	require.Equal(t, "mixed", attributeOf(batch, "delta.outcome"))
	require.Equal(t, int64(1), attributeOf(batch, "delta.failed"))
	require.Equal(t, sdktrace.Status{Code: codes.Error, Description: "refused"}, batch.Status())
}
