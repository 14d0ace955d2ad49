// The quickstart: run `make dev` first, and set DELTA_DATABASE_URL and TEMPORAL_ADDRESS as it says.
package main

import (
	"context"
	"fmt"
	"iter"
	"os"
	"os/signal"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chariot-giving/delta/delta"
)

type user struct{ UserID, Name string }

func (u user) ID() string   { return u.UserID }
func (u user) Kind() string { return "user" }

type users struct {
	delta.WorkerDefaults[user]
	delta.ListerDefaults[user]
}

// Work is called for each new or changed user: call the other system here.
func (users) Work(_ context.Context, r *delta.Resource[user]) error {
	fmt.Printf("synced %s (%s), attempt %d\n", r.Object.UserID, r.Object.Name, r.Attempt)
	return nil
}

// List is called every hour: list the other system here. If it yields an error, the whole listing fails.
func (users) List(context.Context, *delta.InformOptions) iter.Seq2[user, error] {
	return func(yield func(user, error) bool) {
		for _, u := range []user{{"usr_3kd81mQa7Lp", "Ann"}, {"usr_8fT2xw0VbRc", "Bob"}} {
			if !yield(u, nil) {
				return
			}
		}
	}
}

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	pool := must(pgxpool.New(ctx, os.Getenv("DELTA_DATABASE_URL")))
	check(delta.Migrate(ctx, pool))

	controllers := delta.NewControllers()
	delta.AddController(controllers, users{})
	client := must(delta.NewClient(pool, &delta.Config{Controllers: controllers}))
	check(client.Start(context.Background()))
	must(client.Inform(ctx, user{"usr_c5Nq7Jd1eYk", "Eve"}, nil))

	<-ctx.Done() // until Ctrl-C
	check(client.Stop(context.Background()))
}

func must[T any](value T, err error) T {
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
