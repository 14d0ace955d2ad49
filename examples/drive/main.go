// Command drive keeps a provider true to a table of one's own: table → outside. Whoever writes a subscription informs it in the same
// transaction, and Work brings the provider in line, however often it has to try.
//
// DELTA_DATABASE_URL, TEMPORAL_ADDRESS and PROVIDER_URL say where Postgres, Temporal and the provider are; `make dev` brings the first two.
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

// schema is the table that the program is about. It is the truth; the provider follows.
const schema = `CREATE TABLE IF NOT EXISTS subscription (
	id uuid PRIMARY KEY DEFAULT gen_random_uuid(), plan text NOT NULL, seats integer NOT NULL)`

// subscription is a row of the table, as the provider is to have it.
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

// save writes a subscription, and has the provider brought in line when the transaction commits.
func save(ctx context.Context, client *delta.Client, pool *pgxpool.Pool, s subscription) (saved subscription, err error) {
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

// cancel removes a subscription, here first and then at the provider: see Finalize.
func cancel(ctx context.Context, client *delta.Client, pool *pgxpool.Pool, id string) error {
	if _, err := pool.Exec(ctx, "DELETE FROM subscription WHERE id = $1::uuid", id); err != nil {
		return err
	}
	// If the program dies here, the next listing finds the subscription gone.
	_, err := client.Delete(ctx, "subscription", id)
	return err
}

// driver is the controller.
type driver struct {
	delta.WorkerDefaults[subscription]
	delta.ListerDefaults[subscription]
	pool     *pgxpool.Pool
	provider string
}

// Work has the provider store the subscription as it is now. The key has it take a repeated call for the same one.
func (d *driver) Work(ctx context.Context, r *delta.Resource[subscription]) error {
	body, err := json.Marshal(r.Object)
	if err != nil {
		return err
	}
	status, err := d.call(ctx, http.MethodPut, r.ObjectID, body, r.IdempotencyKey())
	switch {
	case err != nil:
		return err // tried again later
	case status == http.StatusTooManyRequests:
		return delta.SnoozeKind(30 * time.Second) // the limit is that of all subscriptions
	case status == http.StatusUnprocessableEntity:
		return delta.ResourceDegrade(errors.New("the provider refuses this subscription")) // until somebody changes it
	case status >= 300:
		return fmt.Errorf("the provider answers %d", status)
	}
	return nil
}

// Finalize ends the subscription at the provider, before its resource is forgotten.
func (d *driver) Finalize(ctx context.Context, r *delta.Resource[subscription]) error {
	status, err := d.call(ctx, http.MethodDelete, r.ObjectID, nil, r.IdempotencyKey())
	if err == nil && status >= 300 && status != http.StatusNotFound {
		err = fmt.Errorf("the provider answers %d", status)
	}
	return err
}

// List yields the table: what was written past save is found within the hour, and so is what was removed.
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

// call calls the provider for a subscription, and returns the status of its answer.
func (d *driver) call(ctx context.Context, method, id string, body []byte, key string) (status int, err error) {
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
	saved, err := save(ctx, client, pool, subscription{Plan: "team", Seats: 5})
	if err != nil {
		return errors.Join(err, client.Stop(context.Background()))
	}
	fmt.Println("saved", saved.Ref)
	<-ctx.Done() // Ctrl-C
	return client.Stop(context.Background())
}
