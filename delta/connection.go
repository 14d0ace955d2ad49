package delta

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/sync/semaphore"
)

// connection is how calls reach Temporal: through what Start has started or, in a client that was not started, through a
// connection that the first of them makes. It does not use Client.life, which Stop holds while it waits for Work.
type connection struct {
	// turn guards the fields. It is waited for with a context, because whoever has it may be dialling.
	turn    *semaphore.Weighted
	running *engine
	// idle has names, installation and Temporal, but runs nothing.
	idle *engine
	// ended ends when the client stops, and with it whoever is dialling.
	ended context.Context //nolint:containedctx // it is the connection's life, not a call's
	end   context.CancelFunc
}

// errStopped is that of calls which need Temporal, of a client that was stopped.
var errStopped = errors.New("the client has been stopped")

func newConnection() connection {
	c := connection{turn: semaphore.NewWeighted(1)}
	c.ended, c.end = context.WithCancel(context.Background())
	return c
}

// reach returns the engine that runs, or an idle one. Where Temporal knows the prefix as another installation's, that is an
// error, as it is at Start.
func (c *Client) reach(ctx context.Context) (*engine, error) {
	if err := c.connection.turn.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer c.connection.turn.Release(1)
	switch {
	case c.connection.running != nil:
		return c.connection.running, nil
	case c.connection.ended.Err() != nil:
		return nil, errStopped
	case c.connection.idle != nil:
		return c.connection.idle, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.connection.ended, cancel)()

	e := &engine{client: c, names: c.names(), attributes: new(atomic.Bool)}
	if err := e.learn(ctx); err != nil {
		if e.ownsTemporal {
			e.temporal.Close()
		}
		return nil, err
	}
	c.connection.idle = e
	return e, nil
}

// learn finds out what an idle engine has to know, and changes nothing.
func (e *engine) learn(ctx context.Context) error {
	if err := e.readInstallation(ctx); err != nil {
		return err
	}
	if err := e.connect(ctx); err != nil {
		return err
	}
	if _, err := prefixHeld(ctx, e.temporal, e.names, e.installation); err != nil {
		return err
	}
	missing, err := e.missingAttributes(ctx)
	e.attributes.Store(err == nil && len(missing) == 0)
	return nil
}

// use has calls go through what was started.
func (c *connection) use(e *engine) {
	_ = c.turn.Acquire(context.Background(), 1)
	defer c.turn.Release(1)
	c.running = e
}

// close refuses further calls, and closes the connection of an idle engine.
func (c *connection) close() {
	c.end()
	_ = c.turn.Acquire(context.Background(), 1)
	defer c.turn.Release(1)
	c.running = nil
	if c.idle != nil && c.idle.ownsTemporal {
		c.idle.temporal.Close()
	}
	c.idle = nil
}

// reachFor is reach with an error that says what for.
func (c *Client) reachFor(ctx context.Context, what string) (*engine, error) {
	e, err := c.reach(ctx)
	if err != nil {
		return nil, fmt.Errorf("delta: %s: %w", what, err)
	}
	return e, nil
}
