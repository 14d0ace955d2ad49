package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync/atomic"
	"time"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/examples/modules/proxy"
)

const (
	kind      = "module"
	namespace = "modules"

	parallelism = 8

	// maxAttempts is for outages: after the tenth attempt they are ten minutes apart, so that a thousand are a week. With
	// fewer, a long outage would leave the modules degraded when it ends.
	maxAttempts = 1000
	// refusals is how many times a proxy that says "forbidden" is asked, in case it is about to learn better. Then that
	// is its answer, until it expires like any other: there is nothing to be gained by asking for days.
	refusals = 3
)

// Module is a dependency as a go.mod has it: the object that Delta keeps in line.
type Module struct {
	Path        string       `json:"path"`
	Version     string       `json:"version"`
	Indirect    bool         `json:"indirect,omitempty"`
	Replacement *Replacement `json:"replacement,omitempty"`
}

// Replacement is the right side of a replace line. Without a version it is a directory.
type Replacement struct {
	Path    string `json:"path"`
	Version string `json:"version,omitempty"`
}

// ID is the module's path.
func (m Module) ID() string { return m.Path }

// Kind is the same for all modules.
func (Module) Kind() string { return kind }

// Settings bound how many modules are asked about at once. How many requests that makes is the proxy client's to bound.
func (Module) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{Parallelism: parallelism}
}

// InformOpts put modules into a namespace whose resources expire, and have them outlast an outage.
func (Module) InformOpts() delta.InformOpts {
	return delta.InformOpts{Namespace: namespace, MaxAttempts: maxAttempts}
}

// asked is the module that is really built with, and so the one to ask about. It is not known to any proxy if local.
func (m Module) asked() (path, version string, local bool) {
	switch {
	case m.Replacement == nil:
		return m.Path, m.Version, false
	case m.Replacement.Version == "":
		return "", "", true
	default:
		return m.Replacement.Path, m.Replacement.Version, false
	}
}

var (
	_ delta.Controller[Module]   = (*controller)(nil)
	_ delta.Lister[Module]       = (*controller)(nil)
	_ delta.ObjectWithSettings   = Module{}
	_ delta.ObjectWithInformOpts = Module{}
)

// controller keeps the table of modules true: to the go.mod, and to the proxy.
type controller struct {
	delta.ListerDefaults[Module]
	project project
	proxy   *proxy.Client
	store   *store
	// timeout bounds one Work.
	timeout time.Duration
	// checks counts the calls of Work that have ended.
	checks atomic.Int64
}

// List yields the modules of the go.mod, all of them each time: it tells no dates, and Delta leaves alone what has not changed.
func (c *controller) List(context.Context, *delta.InformOptions) iter.Seq2[Module, error] {
	return func(yield func(Module, error) bool) {
		modules, err := c.project.modules()
		if err != nil {
			yield(Module{}, err)
			return
		}
		for _, m := range modules {
			if !yield(m, nil) {
				return
			}
		}
	}
}

// ResourceTimeout bounds one call of Work.
func (c *controller) ResourceTimeout(*delta.Resource[Module]) time.Duration { return c.timeout }

// Work asks the proxy about one module and writes what it says to the table. What it returns is for Delta to act on:
// nil until the answer expires, an error to be tried again ever later, ResourceDelete for a module that is no more.
func (c *controller) Work(ctx context.Context, r *delta.Resource[Module]) error {
	defer c.checks.Add(1)
	if _, listed, err := c.project.module(r.Object.Path); err != nil {
		return err
	} else if !listed {
		if err := c.store.remove(ctx, r); err != nil {
			return err
		}
		return delta.ResourceDelete(fmt.Errorf("%s does not require it any more", c.project.file))
	}

	path, version, local := r.Object.asked()
	if local {
		return c.store.save(ctx, r, finding{status: statusSkipped, reason: "replaced by a directory"})
	}
	answer, err := c.proxy.Ask(ctx, path, version)
	switch {
	case err == nil:
		return c.store.save(ctx, r, finding{status: statusKnown, Answer: answer})
	case errors.Is(err, proxy.ErrPrivate):
		return c.store.save(ctx, r, finding{status: statusSkipped, reason: err.Error()})
	case errors.Is(err, proxy.ErrNotExist):
		if err := c.store.save(ctx, r, finding{status: statusMissing, reason: err.Error()}); err != nil {
			return err
		}
		return delta.ResourceDelete(err)
	case errors.Is(err, proxy.ErrForbidden):
		return c.refused(ctx, r, err)
	default:
		return err
	}
}

// refused deals with a proxy that says "forbidden": it is asked again a few times, unless it said so last time as well.
func (c *controller) refused(ctx context.Context, r *delta.Resource[Module], refusal error) error {
	before, err := c.store.status(ctx, r.Object.Path)
	if err != nil {
		return err
	}
	if before != statusRefused && r.Attempt < refusals {
		return refusal
	}
	return c.store.save(ctx, r, finding{status: statusRefused, reason: refusal.Error()})
}

// String shows a replacement as a go.mod does; nothing for nil.
func (r *Replacement) String() string {
	switch {
	case r == nil:
		return ""
	case r.Version == "":
		return r.Path
	default:
		return r.Path + " " + r.Version
	}
}
