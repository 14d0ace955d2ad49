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

// expiry is when what is synced here is to be synced again: what is due long before that is not synced yet.
const expiry = 24 * time.Hour

// counter counts calls of Work.
type counter struct{ atomic.Int64 }

// item is the object of the measurements.
type item struct{ protocol.Item }

func (i item) ID() string { return i.Key }
func (item) Kind() string { return "overhead" }

func (item) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{Parallelism: 100, InformInterval: -1, BatchSize: protocol.PageSize}
}

func itemOf(turn, i int) item { return item{protocol.NewItem(fmt.Sprintf("%d-%d", turn, i), 1)} }

// idle is a controller whose Work does nothing but count.
type idle struct {
	delta.WorkerDefaults[item]
	delta.NoInformer[item]
	worked *counter
}

func (c idle) Work(context.Context, *delta.Resource[item]) error {
	c.worked.Add(1)
	return nil
}

func controllersFor(worked *counter) *delta.Controllers {
	controllers := delta.NewControllers()
	delta.AddController(controllers, idle{worked: worked})
	return controllers
}

// inform informs new objects, each by a call of its own.
func inform(ctx context.Context, s *subject, order protocol.Order) error {
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
				if _, err := s.client.Inform(ctx, itemOf(order.Turn, i), nil); err != nil {
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
				page = append(page, itemOf(order.Turn, i))
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
