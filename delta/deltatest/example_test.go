package deltatest_test

import (
	"testing"

	"go.temporal.io/sdk/worker"

	"github.com/chariot-giving/delta/delta/deltatest"
)

// In a test file this is TestOrders, which `go test` calls.
func Example() {
	_ = func(t *testing.T) {
		t.Parallel() // tests do not see each other
		env := deltatest.New(t)

		// A schema of its own, with Delta's tables.
		var resources int
		err := env.Pool.QueryRow(t.Context(), `select count(*) from delta_resource`).Scan(&resources)
		if err != nil || resources != 0 {
			t.Fatal(resources, err)
		}

		// A Temporal server that others use, too: names start with the prefix.
		w := worker.New(env.Temporal, env.Prefix+"-queue", worker.Options{})
		if err := w.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(w.Stop)
	}
}

func ExampleWithMaxConns() {
	_ = func(t *testing.T) {
		env := deltatest.New(t, deltatest.WithMaxConns(2))
		_ = env.Pool // at most two connections
	}
}
