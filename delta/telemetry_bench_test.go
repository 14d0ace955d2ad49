package delta_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// free is a Telemetry that does nothing but set a value.
type free struct{}

func (free) StartSpan(ctx context.Context, _ delta.Span) (context.Context, func(delta.SpanEnd)) {
	return ctx, func(delta.SpanEnd) {}
}

func (free) Inject(_ context.Context, set func(name, value string)) {
	set("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")
}
func (free) Record(context.Context, delta.Measurement) {}

func newBenchClient(b *testing.B) *delta.Client {
	b.Helper()
	pool, err := pgxpool.New(context.Background(), "postgres://localhost/nothing-connects")
	require.NoError(b, err)
	b.Cleanup(pool.Close)
	c, err := delta.NewClient(pool, &delta.Config{Telemetry: free{}})
	require.NoError(b, err)
	b.ReportAllocs()
	return c
}

// The cost of an Inform without the calls of Telemetry and the statement.
func BenchmarkTelemetryOfAnInform(b *testing.B) {
	c := newBenchClient(b)
	params := []deltatype.ObjectInformParams{{Kind: "account", ResourceID: "ann"}}
	results := []*deltatype.ObjectInformResult{{Scheduled: true, Resource: &deltatype.ResourceRow{ObjectKind: "account", Namespace: "default"}}}
	do := func(context.Context) ([]*deltatype.ObjectInformResult, error) { return results, nil }
	for b.Loop() {
		if err := c.InformAround(context.Background(), params, do); err != nil {
			b.Fatal(err)
		}
	}
}

// The cost of a call of Work without the calls of Telemetry and the statements.
func BenchmarkTelemetryOfACallOfWork(b *testing.B) {
	c := newBenchClient(b)
	row := &deltatype.ResourceRow{ObjectKind: "account", Namespace: "default", ObjectID: "ann", Attempt: 1, Generation: 1}
	do := func(context.Context) error { return nil }
	for b.Loop() {
		if err := c.WorkAround(context.Background(), row, "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", do); err != nil {
			b.Fatal(err)
		}
	}
}
