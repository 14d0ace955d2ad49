// Command table-to-api keeps a provider in step with the program's own table: table → provider, without a line in the code that writes the table. Each new or
// changed row is stored at the provider, each deleted row is removed there, and if the provider says "slow down", no calls are made for as long as it asks.
//
// DELTA_DATABASE_URL, TEMPORAL_ADDRESS and PROVIDER_URL are the addresses of Postgres, Temporal and the provider; `make dev` starts the first two. Without
// PROVIDER_URL it is a demo (`make demo DEMO=table-to-api`), which starts all three, and a shop that writes the table.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chariot-giving/delta/bridge"
	"github.com/chariot-giving/delta/delta"
)

// schema creates the table that other programs write. It is the source of truth; the provider follows.
const schema = `CREATE TABLE IF NOT EXISTS customer (id text PRIMARY KEY, email text NOT NULL, plan text NOT NULL)`

// customer is a row of the table, and the desired state of the provider.
type customer struct {
	CustomerID string `json:"id"`
	Email      string `json:"email"`
	Plan       string `json:"plan"`
}

func (c customer) ID() string { return c.CustomerID }
func (customer) Kind() string { return "customer" }

// Settings limits the calls of the provider, at once in one process and per second over all processes, so that it seldom has to say "slow down".
func (customer) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{Parallelism: 4, RateLimit: 100}
}

// worker updates the provider.
type worker struct {
	delta.WorkerDefaults[customer]
	provider string
}

// Work stores the present row of a customer at the provider.
func (w worker) Work(ctx context.Context, r *delta.Resource[customer]) error {
	body, err := json.Marshal(r.Object)
	if err != nil {
		return err
	}
	return w.callProvider(ctx, http.MethodPut, r.ObjectID, body, r.IdempotencyKey())
}

// Finalize removes a customer at the provider after its row was deleted.
func (w worker) Finalize(ctx context.Context, r *delta.Resource[customer]) error {
	return w.callProvider(ctx, http.MethodDelete, r.ObjectID, nil, r.IdempotencyKey())
}

// callProvider sends a request about a customer. The idempotency key makes a repeated call harmless.
func (w worker) callProvider(ctx context.Context, method, id string, body []byte, key string) error {
	request, err := http.NewRequestWithContext(ctx, method, w.provider+"/customers/"+url.PathEscape(id), bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Idempotency-Key", key)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err // Delta tries again later
	}
	defer response.Body.Close() //nolint:errcheck // the body is not read
	switch {
	case response.StatusCode == http.StatusTooManyRequests:
		return delta.SnoozeKind(retryAfter(response)) // the limit applies to all customers, on all clients
	case response.StatusCode == http.StatusUnprocessableEntity:
		return delta.ResourceDegrade(errors.New("the provider refuses this customer")) // until the row changes
	case response.StatusCode == http.StatusNotFound && method == http.MethodDelete:
		return nil // an earlier call has removed it, but its response was lost
	case response.StatusCode >= 300:
		return fmt.Errorf("the provider answered %d", response.StatusCode)
	}
	return nil
}

// retryAfter returns the pause that the provider requests.
func retryAfter(response *http.Response) time.Duration {
	seconds, err := strconv.Atoi(response.Header.Get("Retry-After"))
	if err != nil {
		seconds = 30
	}
	return time.Duration(seconds) * time.Second
}

// followTable keeps the provider in step with the table until ctx ends.
func followTable(ctx context.Context, pool *pgxpool.Pool, table bridge.TableConfig[customer], provider string, config delta.Config) error {
	if err := delta.Migrate(ctx, pool); err != nil {
		return err
	}
	config.Controllers = delta.NewControllers()
	bridge.Table(config.Controllers, worker{provider: provider}, table)
	client, err := delta.NewClient(pool, &config)
	if err != nil {
		return err
	}
	if err := client.Start(context.Background()); err != nil {
		return err
	}
	<-ctx.Done()
	return client.Stop(context.Background())
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "table-to-api:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	provider := os.Getenv("PROVIDER_URL")
	if provider == "" {
		return runDemo(ctx, os.Stdout)
	}
	pool, err := pgxpool.New(ctx, os.Getenv("DELTA_DATABASE_URL"))
	if err != nil {
		return err
	}
	defer pool.Close()
	if _, err := pool.Exec(ctx, schema); err != nil {
		return err
	}
	return followTable(ctx, pool, bridge.TableConfig[customer]{Table: "customer"}, provider, delta.Config{})
}
