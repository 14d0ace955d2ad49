// Command simple is a port of a program for Delta on River: two kinds with informers, a namespace with an expiry, and a subscription that distinguishes created
// from updated resources.
//
// It uses only names of Delta on River, with one exception: SyncCount replaces Attempt, which counts over the life of a row in Delta on River.
// DELTA_DATABASE_URL and TEMPORAL_ADDRESS are the addresses of Postgres and Temporal; `make dev` starts both.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chariot-giving/delta/delta"
)

// Email is a message in an inbox.
type Email struct{ InboxID, To, From, Body string }

// ID identifies the message.
func (e Email) ID() string { return e.InboxID }

// Kind is the kind of all messages.
func (Email) Kind() string { return "email" }

// InformOpts puts each message into the namespace with an expiry.
func (Email) InformOpts() delta.InformOpts {
	return delta.InformOpts{Namespace: "events", Tags: []string{"inbox"}}
}

type emailController struct {
	delta.WorkerDefaults[Email]
	delta.InformerDefaults[Email]
}

func (*emailController) Work(context.Context, *delta.Resource[Email]) error { return nil }

func (*emailController) Inform(ctx context.Context, _ *delta.InformOptions) (<-chan Email, error) {
	return sendAll(ctx, Email{InboxID: "in-1", To: "ann", From: "shop", Body: "shipped"}, Email{InboxID: "in-2", To: "bob", From: "shop", Body: "paid"}), nil
}

// Mail is a letter.
type Mail struct{ ItemID, To, From, Body string }

// ID identifies the letter.
func (m Mail) ID() string { return m.ItemID }

// Kind is the kind of all letters.
func (Mail) Kind() string { return "mail" }

// InformOpts puts each letter into the namespace with an expiry.
func (Mail) InformOpts() delta.InformOpts { return delta.InformOpts{Namespace: "events"} }

type mailController struct {
	delta.WorkerDefaults[Mail]
	delta.InformerDefaults[Mail]
}

// Work syncs a letter twice, and then deletes it. In Delta on River the condition is resource.Attempt > 2.
func (*mailController) Work(_ context.Context, resource *delta.Resource[Mail]) error {
	if resource.SyncCount >= 2 {
		return delta.ResourceDelete(errors.New("it was delivered"))
	}
	return nil
}

func (*mailController) Inform(ctx context.Context, _ *delta.InformOptions) (<-chan Mail, error) {
	return sendAll(ctx, Mail{ItemID: "letter-1", To: "ann", From: "bank", Body: "dear Ann"}), nil
}

// sendAll sends objects on a channel, and then closes it.
func sendAll[T any](ctx context.Context, objects ...T) <-chan T {
	c := make(chan T)
	go func() {
		defer close(c)
		for _, object := range objects {
			select {
			case <-ctx.Done():
				return
			case c <- object:
			}
		}
	}()
	return c
}

// newConfig returns the configuration of the original program: resources expire after 10 seconds.
func newConfig() *delta.Config {
	controllers := delta.NewControllers()
	delta.AddController(controllers, &emailController{})
	delta.AddController(controllers, &mailController{})
	return &delta.Config{
		Logger:                         slog.New(slog.NewJSONHandler(os.Stdout, &slog.HandlerOptions{Level: slog.LevelWarn})),
		Namespaces:                     map[string]delta.NamespaceConfig{"events": {ResourceExpiry: 10 * time.Second}},
		Controllers:                    controllers,
		ResourceInformInterval:         30 * time.Second,
		MaintenanceJobInterval:         5 * time.Second,
		DeletedResourceRetentionPeriod: 30 * time.Second,
	}
}

// describeEvent describes an event. In Delta on River the condition is event.Resource.Attempt == 1.
func describeEvent(event delta.Event) string {
	what := "updated"
	switch {
	case event.EventCategory == delta.EventCategoryObjectDeleted:
		what = "deleted"
	case event.Resource.SyncCount == 1:
		what = "created"
	}
	return fmt.Sprintf("%s %s:%s", what, event.Resource.ObjectKind, event.Resource.ObjectID)
}

// run runs a client until the context ends, and reports each event.
func run(ctx context.Context, pool *pgxpool.Pool, config *delta.Config, report func(string)) error {
	client, err := delta.NewClient(pool, config)
	if err != nil {
		return err
	}
	events, cancel := client.Subscribe(delta.EventCategoryObjectSynced, delta.EventCategoryObjectDeleted)
	defer cancel()
	if err := client.Start(ctx); err != nil {
		return err
	}
	for {
		select {
		case event, open := <-events:
			if !open {
				return errors.New("the subscription has ended")
			}
			report(describeEvent(event))
		case <-ctx.Done():
			return client.Stop(context.WithoutCancel(ctx))
		}
	}
}

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	pool, err := pgxpool.New(ctx, os.Getenv("DELTA_DATABASE_URL"))
	if err == nil {
		defer pool.Close()
		err = delta.Migrate(ctx, pool)
	}
	if err == nil {
		err = run(ctx, pool, newConfig(), func(line string) { fmt.Println(line) })
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1) //nolint:gocritic // the end of the process releases everything
	}
}
