package console_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatest"
)

// listed is a kind whose listings last until the test ends them.
type listed struct {
	Name string `json:"name"`
}

func (l listed) ID() string   { return l.Name }
func (l listed) Kind() string { return "listed" }
func (l listed) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{InformInterval: 12 * time.Hour, Parallelism: 7}
}

// listedController lists the objects that the test adds, until it is ended. An attempt that takes over from a silent worker lists them all once more, as
// with a real provider.
type listedController struct {
	delta.WorkerDefaults[listed]
	delta.InformerDefaults[listed]
	fails bool

	mu    sync.Mutex
	all   []listed
	ended bool
	grown chan struct{} // closed and replaced when there is more; nil if nobody waits
}

// list adds objects to the listing, and may end it.
func (c *listedController) list(ended bool, objects ...listed) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all, c.ended = append(c.all, objects...), ended
	if c.grown != nil {
		close(c.grown)
		c.grown = nil
	}
}

// listedFrom returns the objects from the i-th, whether they are the last, and what is closed when that has changed.
func (c *listedController) listedFrom(i int) (objects []listed, ended bool, grown <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.grown == nil {
		c.grown = make(chan struct{})
	}
	return c.all[i:], c.ended, c.grown
}

func (c *listedController) Work(context.Context, *delta.Resource[listed]) error { return nil }
func (c *listedController) Inform(ctx context.Context, _ *delta.InformOptions) (<-chan listed, error) {
	if c.fails {
		return nil, errors.New("upstream is down " + hostile)
	}
	out := make(chan listed)
	go func() {
		defer close(out)
		for sent := 0; ; {
			objects, ended, grown := c.listedFrom(sent)
			for _, object := range objects {
				select {
				case out <- object:
				case <-ctx.Done():
					return
				}
			}
			if ended {
				return
			}
			sent += len(objects)
			select {
			case <-grown:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, nil
}

// InformTimeout is unlimited, because the test ends the listing.
func (c *listedController) InformTimeout(*delta.InformArgs[listed]) time.Duration { return -1 }

// startListed starts a client of the kind listed with settings, and stops it when the test ends.
func startListed(t *testing.T, env *deltatest.Env, controller *listedController, settings delta.ObjectSettings) *delta.Client {
	t.Helper()
	config := &delta.Config{
		Temporal: env.Temporal, TemporalNamespace: env.TemporalNamespace, WorkflowIDPrefix: env.Prefix, Logger: slog.New(slog.DiscardHandler),
		Controllers: delta.NewControllers(), Kinds: map[string]delta.ObjectSettings{"listed": settings},
	}
	delta.AddController(config.Controllers, controller)
	client, err := delta.NewClient(env.Pool, config)
	require.NoError(t, err)
	require.NoError(t, client.Start(t.Context()))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_ = client.Stop(ctx)
	})
	return client
}
