// Command mirror keeps the program's own table in step with a provider: provider → table. Work reads a customer from the provider, and writes the table in the
// transaction that marks the resource synced, so that both happen or neither.
//
// DELTA_DATABASE_URL, TEMPORAL_ADDRESS and PROVIDER_URL are the addresses of Postgres, Temporal and the provider; `make dev` starts the first two.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chariot-giving/delta/delta"
)

// schema creates the table that the rest of the program reads. The program chooses its types, constraints and indexes.
const schema = `CREATE TABLE IF NOT EXISTS customer (
	id text PRIMARY KEY, email text NOT NULL, plan text NOT NULL, revision bigint NOT NULL)`

// customer is a customer in the provider's listing: its id and its latest revision. The id is the provider's, and is not personal data, because ids are in
// logs and in Temporal.
type customer struct {
	Ref     string `json:"id"`
	Version int64  `json:"revision"`
}

func (c customer) ID() string      { return c.Ref }
func (customer) Kind() string      { return "customer" }
func (c customer) Revision() int64 { return c.Version } // an older version never overwrites a newer one

// Settings runs a complete listing every five minutes: a customer that it leaves out is gone at the provider.
func (customer) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{InformInterval: 5 * time.Minute, CompleteListing: true}
}

// mirror is the controller of customers.
type mirror struct {
	delta.WorkerDefaults[customer]
	delta.ListerDefaults[customer]
	pool     *pgxpool.Pool
	provider string
}

// details is the provider's response about one customer.
type details struct {
	ID       string `json:"id"`
	Email    string `json:"email"`
	Plan     string `json:"plan"`
	Revision int64  `json:"revision"`
}

// Work reads one customer, and writes its row.
func (m *mirror) Work(ctx context.Context, r *delta.Resource[customer]) error {
	var found details
	switch status, err := m.getJSON(ctx, "/customers/"+url.PathEscape(r.ObjectID), &found); {
	case err != nil:
		return err // Delta tries again later
	case status == http.StatusNotFound:
		return delta.ResourceDelete(errors.New("the provider has no such customer")) // Finalize follows
	case status == http.StatusTooManyRequests:
		return delta.SnoozeKind(time.Minute) // the limit applies to all customers
	case status != http.StatusOK:
		return fmt.Errorf("the provider answered %d", status)
	}
	return pgx.BeginFunc(ctx, m.pool, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO customer (id, email, plan, revision) VALUES ($1, $2, $3, $4)
			ON CONFLICT (id) DO UPDATE SET email = excluded.email, plan = excluded.plan, revision = excluded.revision`,
			found.ID, found.Email, found.Plan, found.Revision)
		if err != nil {
			return err
		}
		return r.CompleteTx(ctx, tx)
	})
}

// Finalize removes the row of a customer that is gone.
func (m *mirror) Finalize(ctx context.Context, r *delta.Resource[customer]) error {
	_, err := m.pool.Exec(ctx, "DELETE FROM customer WHERE id = $1", r.ObjectID)
	return err
}

// List yields all customers, page by page. An error fails the listing, so that no customer counts as gone because a page is missing.
func (m *mirror) List(ctx context.Context, _ *delta.InformOptions) iter.Seq2[customer, error] {
	return func(yield func(customer, error) bool) {
		for next := "/customers"; next != ""; {
			var page struct {
				Customers []customer `json:"customers"`
				Next      string     `json:"next"`
			}
			status, err := m.getJSON(ctx, next, &page)
			if err == nil && status != http.StatusOK {
				err = fmt.Errorf("the provider answered %d", status)
			}
			if err != nil {
				yield(customer{}, err)
				return
			}
			for _, c := range page.Customers {
				if !yield(c, nil) {
					return
				}
			}
			next = page.Next
		}
	}
}

// getJSON reads a path of the provider, and decodes a successful response.
func (m *mirror) getJSON(ctx context.Context, path string, into any) (status int, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, m.provider+path, nil)
	if err != nil {
		return 0, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close() //nolint:errcheck // the body was only read
	if response.StatusCode == http.StatusOK {
		err = json.NewDecoder(response.Body).Decode(into)
	}
	return response.StatusCode, err
}

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "mirror:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	pool, err := pgxpool.New(ctx, os.Getenv("DELTA_DATABASE_URL"))
	if err != nil {
		return err
	}
	defer pool.Close()
	if err := delta.Migrate(ctx, pool); err != nil {
		return err
	}
	if _, err := pool.Exec(ctx, schema); err != nil {
		return err
	}
	controllers := delta.NewControllers()
	delta.AddController(controllers, &mirror{pool: pool, provider: os.Getenv("PROVIDER_URL")})
	client, err := delta.NewClient(pool, &delta.Config{Controllers: controllers})
	if err != nil {
		return err
	}
	if err := client.Start(context.Background()); err != nil {
		return err
	}
	<-ctx.Done() // Ctrl-C
	return client.Stop(context.Background())
}
