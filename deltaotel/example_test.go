package deltaotel_test

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/deltaotel"
)

func newClient(pool *pgxpool.Pool, controllers *delta.Controllers) (*delta.Client, error) {
	telemetry, err := deltaotel.New(nil) // uses OpenTelemetry's global providers
	if err != nil {
		return nil, err
	}
	return delta.NewClient(pool, &delta.Config{Controllers: controllers, Telemetry: telemetry})
}

// A client whose metrics and spans go to OpenTelemetry.
func Example() {
	pool, err := pgxpool.New(context.Background(), "postgres://localhost/example")
	if err != nil {
		panic(err)
	}
	defer pool.Close()
	controllers := delta.NewControllers()
	delta.AddController(controllers, &accounts{})
	client, err := newClient(pool, controllers)
	fmt.Println(client != nil, err)
	// Output: true <nil>
}
