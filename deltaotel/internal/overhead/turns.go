package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/bench/protocol"
)

// expiry is when resources are synced again. Rows that are due much earlier are not synced yet.
const expiry = 24 * time.Hour

// callCounter counts calls of Work.
type callCounter struct{ atomic.Int64 }

// item is the object of the measurements.
type item struct{ protocol.Item }

func (i item) ID() string { return i.Key }
func (item) Kind() string { return "overhead" }

func (item) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{Parallelism: 100, InformInterval: -1, BatchSize: protocol.PageSize}
}

func newItem(turn, i int) item { return item{protocol.NewItem(fmt.Sprintf("%d-%d", turn, i), 1)} }

// countingController is a controller that only counts calls of Work.
type countingController struct {
	delta.WorkerDefaults[item]
	delta.NoInformer[item]
	worked *callCounter
}

func (c countingController) Work(context.Context, *delta.Resource[item]) error {
	c.worked.Add(1)
	return nil
}

func controllersFor(worked *callCounter) *delta.Controllers {
	controllers := delta.NewControllers()
	delta.AddController(controllers, countingController{worked: worked})
	return controllers
}

// informEach informs new objects, one per call.
func informEach(ctx context.Context, s *subject, order protocol.Order) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var all sync.WaitGroup
	for range protocol.Callers {
		all.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= order.Count {
					return
				}
				if _, err := s.client.Inform(ctx, newItem(order.Turn, i), nil); err != nil {
					cancel(err)
				}
			}
		})
	}
	all.Wait()
	return context.Cause(ctx)
}

// syncInBatches informs new objects in pages, and waits until all of them are synced.
func syncInBatches(ctx context.Context, s *subject, order protocol.Order) error {
	s.worked.Store(0)
	var group errgroup.Group
	group.SetLimit(protocol.PagesAtOnce)
	for from := 0; from < order.Count; from += protocol.PageSize {
		group.Go(func() error {
			var page []delta.Object
			for i := from; i < min(from+protocol.PageSize, order.Count); i++ {
				page = append(page, newItem(order.Turn, i))
			}
			_, err := s.client.InformMany(ctx, page, nil)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	for open := true; open; time.Sleep(2 * time.Millisecond) {
		if int(s.worked.Load()) < order.Count && ctx.Err() == nil {
			continue
		}
		err := s.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM delta_resource WHERE kind = 'overhead' AND priority = ANY ('{1,2,3,4,5}')
			AND dispatch_at < now() + interval '1 hour')`).Scan(&open)
		if err != nil {
			return fmt.Errorf("%d of %d were worked: %w", s.worked.Load(), order.Count, err)
		}
	}
	return nil
}
