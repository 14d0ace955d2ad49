// Command table-to-api keeps a provider true to a table of one's own: table → outside, without a line in the code that writes the table. Each
// row that is new or changed is stored at the provider, each row that is deleted is removed there, and a provider that says "slow down" is left
// alone for as long as it asks.
//
// DELTA_DATABASE_URL, TEMPORAL_ADDRESS and PROVIDER_URL say where Postgres, Temporal and the provider are; `make dev` brings the first two.
// Without a PROVIDER_URL it is a demonstration (`make demo DEMO=table-to-api`): it brings all three, and a shop that writes the table.
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

// schema is the table that other programs write. It is the truth; the provider follows.
const schema = `CREATE TABLE IF NOT EXISTS customer (id text PRIMARY KEY, email text NOT NULL, plan text NOT NULL)`

// customer is a row of the table, as the provider is to have it.
type customer struct {
	CustomerID string `json:"id"`
	Email      string `json:"email"`
	Plan       string `json:"plan"`
}

func (c customer) ID() string { return c.CustomerID }
func (customer) Kind() string { return "customer" }

// Settings bounds the calls of the provider: at once in one process, and a second in all together, so that it has to say "slow down" seldom.
func (customer) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{Parallelism: 4, RateLimit: 100}
}

// worker brings the provider in line.
type worker struct {
	delta.WorkerDefaults[customer]
	provider string
}

// Work has the provider store a customer as its row is now.
func (w worker) Work(ctx context.Context, r *delta.Resource[customer]) error {
	body, err := json.Marshal(r.Object)
	if err != nil {
		return err
	}
	return w.call(ctx, http.MethodPut, r.ObjectID, body, r.IdempotencyKey())
}

// Finalize has the provider remove a customer whose row was deleted.
func (w worker) Finalize(ctx context.Context, r *delta.Resource[customer]) error {
	return w.call(ctx, http.MethodDelete, r.ObjectID, nil, r.IdempotencyKey())
}

// call calls the provider for a customer. The key has it take a repeated call for the same one.
func (w worker) call(ctx context.Context, method, id string, body []byte, key string) error {
	request, err := http.NewRequestWithContext(ctx, method, w.provider+"/customers/"+url.PathEscape(id), bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Idempotency-Key", key)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err // tried again later
	}
	defer response.Body.Close() //nolint:errcheck // nothing is read of it
	switch {
	case response.StatusCode == http.StatusTooManyRequests:
		return delta.SnoozeKind(retryAfter(response)) // the limit is that of all customers, on all clients
	case response.StatusCode == http.StatusUnprocessableEntity:
		return delta.ResourceDegrade(errors.New("the provider refuses this customer")) // until the row changes
	case response.StatusCode == http.StatusNotFound && method == http.MethodDelete:
		return nil // a call whose answer was lost has removed it
	case response.StatusCode >= 300:
		return fmt.Errorf("the provider answers %d", response.StatusCode)
	}
	return nil
}

// retryAfter is how long the provider asks to be left alone.
func retryAfter(response *http.Response) time.Duration {
	seconds, err := strconv.Atoi(response.Header.Get("Retry-After"))
	if err != nil {
		seconds = 30
	}
	return time.Duration(seconds) * time.Second
}

// follow keeps the provider true to the table until ctx ends.
func follow(ctx context.Context, pool *pgxpool.Pool, table bridge.TableConfig[customer], provider string, config delta.Config) error {
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
		return demonstrate(ctx, os.Stdout)
	}
	pool, err := pgxpool.New(ctx, os.Getenv("DELTA_DATABASE_URL"))
	if err != nil {
		return err
	}
	defer pool.Close()
	if _, err := pool.Exec(ctx, schema); err != nil {
		return err
	}
	return follow(ctx, pool, bridge.TableConfig[customer]{Table: "customer"}, provider, delta.Config{})
}
