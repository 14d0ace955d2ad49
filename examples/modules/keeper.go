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
	// listEvery is the interval at which the go.mod is read again.
	listEvery = 30 * time.Second
	// requestsPerWork is the maximum number of requests in one call of Work.
	requestsPerWork = 4
)

// keeper is the application: it keeps the table of modules up to date. This is all that a program needs to use Delta; the rest of this program shows it.
type keeper struct {
	project    project
	store      *store
	controller *controller
	client     *delta.Client
}

// keeperConfig configures a keeper.
type keeperConfig struct {
	pool     *pgxpool.Pool
	temporal client.Client
	logger   *slog.Logger
	prefix   string
	project  project
	proxy    *proxy.Client
	every    time.Duration
	rate     float64
	// listEvery is shorter in tests.
	listEvery time.Duration
}

// newKeeper creates the tables, and a client that is ready to start.
func newKeeper(ctx context.Context, c keeperConfig) (*keeper, error) {
	if err := delta.Migrate(ctx, c.pool); err != nil {
		return nil, err
	}
	k := &keeper{project: c.project, store: &store{c.pool}}
	if err := k.store.createTable(ctx); err != nil {
		return nil, err
	}
	k.controller = &controller{
		project: c.project,
		proxy:   c.proxy,
		store:   k.store,
		// All concurrent calls wait for each other's requests.
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
			// Deleted and degraded modules are removed after the same time. The next listing then informs them as new, so that they are checked again like all
			// others, unless the go.mod no longer has them.
			DeletedResourceRetentionPeriod:  c.every,
			DegradedResourceRetentionPeriod: c.every,
		}},
	})
	return k, err
}

// readSnapshot reads the present state of all modules.
func (k *keeper) readSnapshot(ctx context.Context) (snapshot, error) {
	required, err := k.project.readModules()
	if err != nil {
		return snapshot{}, err
	}
	rows, err := k.store.readRows(ctx)
	if err != nil {
		return snapshot{}, err
	}
	return newSnapshot(time.Now(), required, rows), nil
}
