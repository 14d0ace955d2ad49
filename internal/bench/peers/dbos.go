package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dbos-inc/dbos-transact-golang/dbos"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chariot-giving/delta/internal/bench/protocol"
)

// dbosPeer runs durable workflows of one step.
type dbosPeer struct {
	options
	pool   *pgxpool.Pool
	logger *slog.Logger
}

func startDBOS(ctx context.Context, o options, pool *pgxpool.Pool, logger *slog.Logger) (peer, error) {
	p := &dbosPeer{options: o, pool: pool, logger: logger}
	// The first launch creates the tables.
	launched, err := p.launchContext(ctx)
	if err != nil {
		return nil, err
	}
	return p, dbos.Shutdown(launched, shutdownTimeout)
}

// shutdownTimeout is how long a shutdown may wait for workflows, of which none are left by then.
const shutdownTimeout = 10 * time.Second

func (p *dbosPeer) launchContext(ctx context.Context) (dbos.Context, error) {
	database, err := url.Parse(p.databaseURL)
	if err != nil {
		return nil, err
	}
	settings := database.Query()
	settings.Set("pool_max_conns", strconv.Itoa(p.connections))
	database.RawQuery = settings.Encode()
	made, err := dbos.NewContext(ctx, dbos.Config{AppName: "bench", DatabaseURL: database.String(), Logger: p.logger})
	if err != nil {
		return nil, err
	}
	dbos.RegisterWorkflow(made, durableWorkflow)
	return made, dbos.Launch(made)
}

// durableWorkflow is a workflow with one step that does nothing.
func durableWorkflow(ctx dbos.Context, item protocol.Item) (string, error) {
	return dbos.RunAsStep(ctx, func(context.Context) (string, error) { return item.Key, nil })
}

func (p *dbosPeer) describeSettings() string {
	return fmt.Sprintf("a durable workflow of one step, from RunWorkflow to its result, from %d goroutines, with default settings but for its %d connections",
		protocol.Callers, p.connections)
}

// runTurn ends when the last workflow has returned its result, which is in the table by then.
func (p *dbosPeer) runTurn(ctx context.Context, order protocol.Order) (took time.Duration, err error) {
	launched, err := p.launchContext(ctx)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	runErr := runWorkflows(launched, order)
	took = time.Since(began)
	if err := errors.Join(runErr, dbos.Shutdown(launched, shutdownTimeout)); err != nil {
		return 0, err
	}
	var succeeded int
	if err := p.pool.QueryRow(ctx, "SELECT count(*) FROM dbos.workflow_status WHERE status = 'SUCCESS'").Scan(&succeeded); err != nil {
		return 0, err
	}
	if succeeded != order.Count {
		return 0, fmt.Errorf("%d of %d workflows succeeded", succeeded, order.Count)
	}
	_, err = p.pool.Exec(ctx, "TRUNCATE dbos.workflow_status, dbos.operation_outputs CASCADE")
	return took, err
}

// runWorkflows runs the workflows of a turn from all goroutines, and returns the first error.
func runWorkflows(ctx dbos.Context, order protocol.Order) error {
	var next atomic.Int64
	var all sync.WaitGroup
	failed := make(chan error, protocol.Callers)
	for range protocol.Callers {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < order.Count; i = int(next.Add(1)) - 1 {
				if err := runWorkflow(ctx, protocol.NewItem(fmt.Sprintf("single-%d-%d", order.Turn, i), 1)); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	all.Wait()
	close(failed)
	return <-failed
}

func runWorkflow(ctx dbos.Context, item protocol.Item) error {
	handle, err := dbos.RunWorkflow(ctx, durableWorkflow, item)
	if err != nil {
		return err
	}
	result, err := handle.GetResult()
	if err == nil && result != item.Key {
		err = fmt.Errorf("the result of %s is %q", item.Key, result)
	}
	return err
}
