package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.temporal.io/sdk/client"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/examples/modules/proxy"
)

const (
	// listEvery is how often the go.mod is read again.
	listEvery = 30 * time.Second
	// requestsPerWork is how many requests one Work makes, at most.
	requestsPerWork = 4
)

// keeper is the application: it keeps the table of modules true. Nothing but this is needed to use Delta; the rest of
// the program shows it.
type keeper struct {
	project    project
	store      *store
	controller *controller
	client     *delta.Client
}

// keeperConfig is what a keeper needs.
type keeperConfig struct {
	pool     *pgxpool.Pool
	temporal client.Client
	logger   *slog.Logger
	prefix   string
	project  project
	proxy    *proxy.Client
	every    time.Duration
	rate     float64
	// listEvery is shortened by tests.
	listEvery time.Duration
}

// newKeeper makes the tables and a client that is ready to start.
func newKeeper(ctx context.Context, c keeperConfig) (*keeper, error) {
	if err := delta.Migrate(ctx, c.pool); err != nil {
		return nil, err
	}
	k := &keeper{project: c.project, store: &store{c.pool}}
	if err := k.store.create(ctx); err != nil {
		return nil, err
	}
	k.controller = &controller{
		project: c.project,
		proxy:   c.proxy,
		store:   k.store,
		// All that run at once wait for each other's requests.
		timeout: time.Minute + time.Duration(float64(parallelism*requestsPerWork)/c.rate*float64(time.Second)),
	}
	controllers := delta.NewControllers()
	delta.AddController(controllers, k.controller)
	var err error
	k.client, err = delta.NewClient(c.pool, &delta.Config{
		Controllers:            controllers,
		Temporal:               c.temporal,
		Logger:                 c.logger,
		WorkflowIDPrefix:       c.prefix,
		ResourceInformInterval: c.listEvery,
		Namespaces: map[string]delta.NamespaceConfig{namespace: {
			MaxWorkers:     parallelism,
			ResourceExpiry: c.every,
			// What is gone, or was given up, is removed after the same time. The next Inform then finds it new, so that it
			// is checked again like everything else; unless the go.mod has lost it.
			DeletedResourceRetentionPeriod:  c.every,
			DegradedResourceRetentionPeriod: c.every,
		}},
	})
	return k, err
}

// snapshot reads how all modules stand now.
func (k *keeper) snapshot(ctx context.Context) (snapshot, error) {
	required, err := k.project.modules()
	if err != nil {
		return snapshot{}, err
	}
	rows, err := k.store.rows(ctx)
	if err != nil {
		return snapshot{}, err
	}
	return snap(time.Now(), required, rows), nil
}
