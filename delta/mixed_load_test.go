package delta_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.temporal.io/sdk/client"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta"
)

// The kinds of the mixed load, one in each mode: bases are informed and expire, leaves have a base as parent and are touched by it, and the listed ones
// are rows of the table mixed_world.
type mixedBase struct{ account }

func (mixedBase) Kind() string                   { return "mixed-base" }
func (mixedBase) Settings() delta.ObjectSettings { return mixedSettings(1) }

type mixedLeaf struct{ account }

func (mixedLeaf) Kind() string { return "mixed-leaf" }
func (o mixedLeaf) Parents() []delta.Ref {
	return []delta.Ref{{Kind: mixedBase{}.Kind(), ObjectID: o.Name}}
}

func (mixedLeaf) Settings() delta.ObjectSettings {
	s := mixedSettings(5)
	s.TouchedBy = []string{mixedBase{}.Kind()}
	return s
}

type mixedListed struct{ account }

func (mixedListed) Kind() string { return "mixed-listed" }
func (mixedListed) Settings() delta.ObjectSettings {
	s := mixedSettings(0)
	s.InformInterval, s.CompleteListing, s.MaxDeletedShare = 2*time.Second, true, 1
	return s
}

func mixedSettings(size int) delta.ObjectSettings {
	return delta.ObjectSettings{
		Parallelism: 8, InformInterval: -1, BatchSize: size, BatchWait: -1, HeartbeatTimeout: 5 * time.Second,
		RetryPolicy: delta.RetryPolicy{InitialInterval: 50 * time.Millisecond, MaximumInterval: 500 * time.Millisecond},
	}
}

// mixedExpiry is the expiry of the bases in the namespace "expires".
const mixedExpiry = 2 * time.Second

// mixedTables are the outside world of the mixed load: what is listed, what Work has done, and the calls of Work that ran beside another one for the
// same object.
const mixedTables = `CREATE TABLE mixed_world (name text PRIMARY KEY, plan text NOT NULL);
	CREATE TABLE mixed_deed (n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, kind text, name text, row_id bigint, generation bigint, plan text);
	CREATE INDEX ON mixed_deed (kind, name, n);
	CREATE TABLE mixed_overlap (kind text, name text, generation bigint, pid integer)`

// runMixed is a child process of the soak with mixed load. SIGTERM has it stop in good order.
func runMixed(pool *pgxpool.Pool) error {
	ctx := context.Background()
	temporal, err := dialTemporal(client.Options{HostPort: os.Getenv("DELTA_TEST_TEMPORAL"), Namespace: os.Getenv("DELTA_TEST_NAMESPACE")})
	if err != nil {
		return err
	}
	config := &delta.Config{
		Temporal: temporal, WorkflowIDPrefix: os.Getenv("DELTA_TEST_PREFIX"), Controllers: delta.NewControllers(),
		Namespaces: map[string]delta.NamespaceConfig{"default": {MaxWorkers: 24, SyncedResourceRetentionPeriod: -1}, "expires": {MaxWorkers: 24, ResourceExpiry: mixedExpiry}},
	}
	delta.AddController(config.Controllers, &controller[mixedBase]{work: func(ctx context.Context, r *delta.Resource[mixedBase]) error {
		return workMixed(ctx, pool, r, r.Object.Plan)
	}})
	delta.AddController(config.Controllers, &controller[mixedLeaf]{work: func(ctx context.Context, r *delta.Resource[mixedLeaf]) error {
		return workMixed(ctx, pool, r, r.Object.Plan)
	}})
	delta.AddController(config.Controllers, &controller[mixedListed]{work: func(ctx context.Context, r *delta.Resource[mixedListed]) error {
		return workMixed(ctx, pool, r, r.Object.Plan)
	}, inform: func(ctx context.Context, _ *delta.InformOptions) (<-chan mixedListed, error) {
		return listMixed(ctx, pool)
	}})
	c, err := delta.NewClient(pool, config)
	if err != nil {
		return err
	}
	stops := make(chan os.Signal, 1)
	signal.Notify(stops, syscall.SIGTERM)
	if err := startPatiently(ctx, c); err != nil {
		return err
	}
	fmt.Println("started")
	<-stops
	ending, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_ = c.Stop(ending) // Work that takes longer is cut off
	os.Exit(0)
	return nil
}

// workMixed is the Work of all kinds: some calls fail, snooze, or take longer than a local activity may. It notes what it has done. A lock of the
// connection, which ends with the process, shows whether another call runs for the object.
func workMixed[T delta.Object](ctx context.Context, pool *pgxpool.Pool, r *delta.Resource[T], plan string) error {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	lock := os.Getenv("DELTA_TEST_PREFIX") + "/" + r.ObjectKind + "/" + r.ObjectID
	alone := false
	if err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock(hashtextextended($1, 0))", lock).Scan(&alone); err != nil {
		return err
	}
	if !alone {
		_, err := conn.Exec(ctx, "INSERT INTO mixed_overlap VALUES ($1, $2, $3, $4)", r.ObjectKind, r.ObjectID, r.Generation, os.Getpid())
		return errors.Join(errors.New("another call of Work runs"), err)
	}
	defer conn.Exec(context.Background(), "SELECT pg_advisory_unlock(hashtextextended($1, 0))", lock) //nolint:errcheck // a closed connection has no lock
	takes, dice := time.Duration(rand.IntN(50))*time.Millisecond, rand.IntN(20)
	if dice == 0 {
		takes += activities.MaxLocalAttempt
	}
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return ctx.Err()
	}
	switch dice {
	case 1, 2:
		return errors.New("no luck")
	case 3:
		return delta.ResourceSnooze(200 * time.Millisecond)
	}
	_, err = conn.Exec(ctx, "INSERT INTO mixed_deed (kind, name, row_id, generation, plan) VALUES ($1, $2, $3, $4, $5)",
		r.ObjectKind, r.ObjectID, r.ID, r.Generation, plan)
	return err
}

// listMixed lists the rows of the world.
func listMixed(ctx context.Context, pool *pgxpool.Pool) (<-chan mixedListed, error) {
	rows, err := pool.Query(ctx, "SELECT name, plan FROM mixed_world")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []mixedListed
	for rows.Next() {
		var o mixedListed
		if err := rows.Scan(&o.Name, &o.Plan); err != nil {
			return nil, err
		}
		all = append(all, o)
	}
	return sendAll(ctx, all...), rows.Err()
}
