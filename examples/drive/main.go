// Command drive keeps a provider in step with the program's own table: table → provider. The function that writes a subscription informs it in the same
// transaction, and Work updates the provider, with as many attempts as it takes.
//
// DELTA_DATABASE_URL, TEMPORAL_ADDRESS and PROVIDER_URL are the addresses of Postgres, Temporal and the provider; `make dev` starts the first two.
package main

import (
	"bytes"
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

// schema creates the program's table. It is the source of truth; the provider follows.
const schema = `CREATE TABLE IF NOT EXISTS subscription (
	id uuid PRIMARY KEY DEFAULT gen_random_uuid(), plan text NOT NULL, seats integer NOT NULL)`

// subscription is a row of the table, and the desired state of the provider.
type subscription struct {
	Ref   string `json:"id"`
	Plan  string `json:"plan"`
	Seats int    `json:"seats"`
}

func (s subscription) ID() string { return s.Ref }
func (subscription) Kind() string { return "subscription" }
func (subscription) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{InformInterval: time.Hour, CompleteListing: true}
}

// saveSubscription writes a subscription and informs it in one transaction, so that Work updates the provider after the commit.
func saveSubscription(ctx context.Context, client *delta.Client, pool *pgxpool.Pool, s subscription) (saved subscription, err error) {
	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		const upsert = `INSERT INTO subscription (id, plan, seats) VALUES (coalesce(nullif($1, '')::uuid, gen_random_uuid()), $2, $3)
			ON CONFLICT (id) DO UPDATE SET plan = excluded.plan, seats = excluded.seats RETURNING id::text, plan, seats`
		if err := tx.QueryRow(ctx, upsert, s.Ref, s.Plan, s.Seats).Scan(&saved.Ref, &saved.Plan, &saved.Seats); err != nil {
			return err
		}
		_, err := client.InformTx(ctx, tx, saved, nil)
		return err
	})
	return saved, err
}

// cancelSubscription removes a subscription from the table. Finalize then removes it at the provider.
func cancelSubscription(ctx context.Context, client *delta.Client, pool *pgxpool.Pool, id string) error {
	if _, err := pool.Exec(ctx, "DELETE FROM subscription WHERE id = $1::uuid", id); err != nil {
		return err
	}
	// If the program dies here, the next listing finds that the subscription is gone.
	_, err := client.Delete(ctx, "subscription", id)
	return err
}

// driver is the controller of subscriptions.
type driver struct {
	delta.WorkerDefaults[subscription]
	delta.ListerDefaults[subscription]
	pool     *pgxpool.Pool
	provider string
}

// Work stores the present subscription at the provider. The idempotency key makes a repeated call harmless.
func (d *driver) Work(ctx context.Context, r *delta.Resource[subscription]) error {
	body, err := json.Marshal(r.Object)
	if err != nil {
		return err
	}
	status, err := d.callProvider(ctx, http.MethodPut, r.ObjectID, body, r.IdempotencyKey())
	switch {
	case err != nil:
		return err // Delta tries again later
	case status == http.StatusTooManyRequests:
		return delta.SnoozeKind(30 * time.Second) // the limit applies to all subscriptions
	case status == http.StatusUnprocessableEntity:
		return delta.ResourceDegrade(errors.New("the provider refuses this subscription")) // until it is changed
	case status >= 300:
		return fmt.Errorf("the provider answered %d", status)
	}
	return nil
}

// Finalize ends the subscription at the provider before Delta removes the resource.
func (d *driver) Finalize(ctx context.Context, r *delta.Resource[subscription]) error {
	status, err := d.callProvider(ctx, http.MethodDelete, r.ObjectID, nil, r.IdempotencyKey())
	if err == nil && status >= 300 && status != http.StatusNotFound {
		err = fmt.Errorf("the provider answered %d", status)
	}
	return err
}

// List yields all rows of the table, so that changes that bypassed saveSubscription and cancelSubscription are found within an hour.
func (d *driver) List(ctx context.Context, _ *delta.InformOptions) iter.Seq2[subscription, error] {
	return func(yield func(subscription, error) bool) {
		rows, err := d.pool.Query(ctx, "SELECT id::text, plan, seats FROM subscription")
		if err != nil {
			yield(subscription{}, err)
			return
		}
		defer rows.Close()
		for rows.Next() {
			var s subscription
			if err := rows.Scan(&s.Ref, &s.Plan, &s.Seats); err != nil {
				yield(s, err)
				return
			}
			if !yield(s, nil) {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(subscription{}, err)
		}
	}
}

// callProvider sends a request about a subscription, and returns the status of the response.
func (d *driver) callProvider(ctx context.Context, method, id string, body []byte, key string) (status int, err error) {
	request, err := http.NewRequestWithContext(ctx, method, d.provider+"/subscriptions/"+url.PathEscape(id), bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	request.Header.Set("Idempotency-Key", key)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	return response.StatusCode, response.Body.Close()
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "drive:", err)
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
	delta.AddController(controllers, &driver{pool: pool, provider: os.Getenv("PROVIDER_URL")})
	client, err := delta.NewClient(pool, &delta.Config{Controllers: controllers})
	if err != nil {
		return err
	}
	if err := client.Start(context.Background()); err != nil {
		return err
	}
	saved, err := saveSubscription(ctx, client, pool, subscription{Plan: "team", Seats: 5})
	if err != nil {
		return errors.Join(err, client.Stop(context.Background()))
	}
	fmt.Println("saved", saved.Ref)
	<-ctx.Done() // Ctrl-C
	return client.Stop(context.Background())
}
