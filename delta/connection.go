package delta

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/envconfig"
	"golang.org/x/sync/semaphore"
)

// connection gives calls access to Temporal: through the engine that Start has started or, in a client that was not
// started, through a connection that the first call makes. It does not use Client.life, because Stop holds that while it
// waits for Work.
type connection struct {
	// guard guards the fields. It is acquired with a context, because its holder may be dialling.
	guard   *semaphore.Weighted
	running *engine
	// idle has names, installation and Temporal, but runs nothing.
	idle *engine
	// ended ends when the client stops, and cancels a dial in progress.
	ended context.Context //nolint:containedctx // it is the connection's life, not a call's
	end   context.CancelFunc
}

// errStopped is returned by calls that need Temporal after the client was stopped.
var errStopped = errors.New("the client has been stopped")

func newConnection() connection {
	c := connection{guard: semaphore.NewWeighted(1)}
	c.ended, c.end = context.WithCancel(context.Background())
	return c
}

// reachTemporal returns the running engine, or an idle one. It fails, as Start does, if the prefix in Temporal belongs to
// another installation, or the database was restored.
func (c *Client) reachTemporal(ctx context.Context) (*engine, error) {
	if err := c.connection.guard.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer c.connection.guard.Release(1)
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

	e := &engine{client: c, names: c.temporalNames(), attributes: new(atomic.Bool)}
	if err := e.prepareIdle(ctx); err != nil {
		if e.ownsTemporal {
			e.temporal.Close()
		}
		return nil, err
	}
	c.connection.idle = e
	return e, nil
}

// prepareIdle reads what an idle engine needs, and changes nothing.
func (e *engine) prepareIdle(ctx context.Context) error {
	if err := e.readInstallation(ctx); err != nil {
		return err
	}
	if err := e.connectTemporal(ctx, callOnce); err != nil {
		return err
	}
	if _, _, err := e.readMark(ctx); err != nil {
		return err
	}
	missing, err := e.missingAttributes(ctx)
	e.attributes.Store(err == nil && len(missing) == 0)
	return nil
}

// setRunning makes calls use the started engine.
func (c *connection) setRunning(e *engine) {
	_ = c.guard.Acquire(context.Background(), 1)
	defer c.guard.Release(1)
	c.running = e
}

// close refuses further calls, and closes the connection of an idle engine.
func (c *connection) close() {
	c.end()
	_ = c.guard.Acquire(context.Background(), 1)
	defer c.guard.Release(1)
	c.running = nil
	if c.idle != nil && c.idle.ownsTemporal {
		c.idle.temporal.Close()
	}
	c.idle = nil
}

// reachTemporalFor is reachTemporal with an error that names the operation.
func (c *Client) reachTemporalFor(ctx context.Context, what string) (*engine, error) {
	e, err := c.reachTemporal(ctx)
	if err != nil {
		return nil, fmt.Errorf("delta: %s: %w", what, err)
	}
	return e, nil
}

// connectionOptions returns the options with which the client dials Temporal: the environment configuration with the
// changes of Config.TemporalOptions.
func (c *Client) connectionOptions() (client.Options, error) {
	options, err := envconfig.LoadDefaultClientOptions()
	if err != nil {
		return options, fmt.Errorf("the environment configuration for Temporal: %w", err)
	}
	return c.completeOptions(options)
}

// completeOptions adds Delta's settings, and the changes of Config.TemporalOptions, to options of the environment
// configuration.
func (c *Client) completeOptions(options client.Options) (client.Options, error) {
	setDefault(&options.HostPort, client.DefaultHostPort)
	options.Namespace = cmp.Or(c.config.TemporalNamespace, options.Namespace, client.DefaultNamespace)
	options.Logger = TemporalLogger(c.config.Logger)
	options.ConnectionOptions.GetSystemInfoTimeout = c.timing.temporalTimeout // the SDK's 5 s would end the first call before its context does
	return options, c.applyTemporalOptions(&options)
}

// applyTemporalOptions calls Config.TemporalOptions, and checks that it kept the rules.
func (c *Client) applyTemporalOptions(options *client.Options) error {
	change := c.config.TemporalOptions
	if change == nil {
		return nil
	}
	namespace := options.Namespace
	change(options)
	switch {
	case options.Namespace != namespace:
		return inputError("Config.TemporalOptions", options.Namespace, "must leave Namespace at %q: set Config.TemporalNamespace", namespace)
	case options.HostPort == "":
		return inputError("Config.TemporalOptions", options.HostPort, "must not empty HostPort")
	}
	return nil
}

// dialTemporal connects to Temporal.
func dialTemporal(ctx context.Context, options client.Options) (client.Client, error) {
	dialled, err := client.DialContext(ctx, options)
	if err != nil {
		return nil, fmt.Errorf("reaching Temporal at %s, namespace %q: %w", options.HostPort, options.Namespace, err)
	}
	return dialled, nil
}
