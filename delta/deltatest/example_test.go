package deltatest_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatest"
)

type order struct{ Number string }

func (o order) ID() string   { return o.Number }
func (o order) Kind() string { return "order" }

// orders is the controller under test.
type orders struct {
	delta.WorkerDefaults[order]
	delta.NoInformer[order]          // has no listing
	shipped                 sync.Map // a fake of the system outside, for the test to read
}

func (o *orders) Work(_ context.Context, r *delta.Resource[order]) error {
	o.shipped.Store(r.Object.Number, true)
	return nil
}

// In a test file this is TestOrders, which `go test` calls.
func Example() {
	_ = func(t *testing.T) {
		t.Parallel() // tests are isolated
		env := deltatest.New(t)

		work := &orders{}
		controllers := delta.NewControllers()
		delta.AddController(controllers, work)
		client, err := delta.NewClient(env.Pool, &delta.Config{
			Controllers: controllers, Temporal: env.Temporal, WorkflowIDPrefix: env.Prefix,
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := client.Start(context.Background()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = client.Stop(context.Background()) })

		// Sync informs, and awaits the outcome.
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		row, err := client.Sync(ctx, order{Number: "17"}, nil)
		if _, shipped := work.shipped.Load("17"); err != nil || !shipped {
			t.Fatal(row, err)
		}
	}
}

func ExampleWithMaxConns() {
	_ = func(t *testing.T) {
		env := deltatest.New(t, deltatest.WithMaxConns(2))
		_ = env.Pool // at most two connections
	}
}
