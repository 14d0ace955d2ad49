package delta_test

import (
	"os"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	temporal "go.temporal.io/sdk/client"

	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/internal/exampletest"
)

// examples is the stack of the examples that run. Each has a schema and a prefix of its own.
var examples *exampletest.TB

func TestMain(m *testing.M) {
	examples = exampletest.Open()
	code := m.Run()
	examples.Close()
	os.Exit(code)
}

// openStack brings what an example needs: a database, a Temporal, and a prefix of workflow ids that no other program has.
func openStack() (*pgxpool.Pool, temporal.Client, string) {
	env := deltatest.New(examples)
	return env.Pool, env.Temporal, env.Prefix
}
