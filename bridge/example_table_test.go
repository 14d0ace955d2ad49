package bridge_test

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chariot-giving/delta/bridge"
	"github.com/chariot-giving/delta/delta"
)

// customer is a row of the table customer: each field is read from the column of its name.
type customer struct {
	CustomerID string
	Email      *string
	Plan       string
}

func (c customer) ID() string   { return c.CustomerID }
func (c customer) Kind() string { return "customer" }

type customers struct{ delta.WorkerDefaults[customer] }

// Work is called for each row that is new or changed.
func (customers) Work(_ context.Context, r *delta.Resource[customer]) error {
	fmt.Printf("the provider is told that %s has the plan %s\n", r.Object.CustomerID, r.Object.Plan)
	return nil
}

// Finalize is called for each row that was deleted.
func (customers) Finalize(_ context.Context, r *delta.Resource[customer]) error {
	fmt.Printf("the provider is told that %s is gone\n", r.ObjectID)
	return nil
}

func ExampleTable() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	pool, err := pgxpool.New(ctx, os.Getenv("DELTA_DATABASE_URL"))
	if err != nil {
		panic(err)
	}
	controllers := delta.NewControllers()
	bridge.Table(controllers, customers{}, bridge.TableConfig[customer]{Table: "customer"})
	client, err := delta.NewClient(pool, &delta.Config{Controllers: controllers})
	if err != nil {
		panic(err)
	}
	if err := client.Start(ctx); err != nil {
		panic(err)
	}
	<-client.Done()
}
