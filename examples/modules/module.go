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

	// maxAttempts is for outages: after the tenth attempt they are ten minutes apart, so a thousand last for a week. With fewer, the modules would be degraded after
	// a long outage.
	maxAttempts = 1000
	// refusals is the number of attempts at a proxy that answers "forbidden", in case its settings are about to change. After that the answer stands until it expires
	// like any other, because asking for days is pointless.
	refusals = 3
)

// Module is a dependency in a go.mod: the object that Delta syncs.
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

// Settings limits how many modules are looked up at once. The proxy client limits the rate of requests.
func (Module) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{Parallelism: parallelism}
}

// InformOpts puts modules into a namespace with an expiry, with enough attempts to outlast an outage.
func (Module) InformOpts() delta.InformOpts {
	return delta.InformOpts{Namespace: namespace, MaxAttempts: maxAttempts}
}

// requestedModule returns the module that is really built, and is therefore looked up. No proxy knows it if local is true.
func (m Module) requestedModule() (path, version string, local bool) {
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

// controller keeps the table of modules in step with the go.mod and the proxy.
type controller struct {
	delta.ListerDefaults[Module]
	project project
	proxy   *proxy.Client
	store   *store
	// timeout limits one call of Work.
	timeout time.Duration
	// checks counts the calls of Work that have ended.
	checks atomic.Int64
}

// List yields all modules of the go.mod each time, because a go.mod has no dates. Delta ignores unchanged ones.
func (c *controller) List(context.Context, *delta.InformOptions) iter.Seq2[Module, error] {
	return func(yield func(Module, error) bool) {
		modules, err := c.project.readModules()
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

// ResourceTimeout limits one call of Work.
func (c *controller) ResourceTimeout(*delta.Resource[Module]) time.Duration { return c.timeout }

// Work looks up one module at the proxy and writes the answer to the table. It returns nil to be called again after the expiry, an error to be retried with
// backoff, and ResourceDelete for a module that no longer exists.
func (c *controller) Work(ctx context.Context, r *delta.Resource[Module]) error {
	defer c.checks.Add(1)
	if _, listed, err := c.project.readModule(r.Object.Path); err != nil {
		return err
	} else if !listed {
		if err := c.store.removeModule(ctx, r); err != nil {
			return err
		}
		return delta.ResourceDelete(fmt.Errorf("%s does not require it any more", c.project.file))
	}

	path, version, local := r.Object.requestedModule()
	if local {
		return c.store.saveFinding(ctx, r, finding{status: statusSkipped, reason: "replaced by a directory"})
	}
	answer, err := c.proxy.Ask(ctx, path, version)
	switch {
	case err == nil:
		return c.store.saveFinding(ctx, r, finding{status: statusKnown, Answer: answer})
	case errors.Is(err, proxy.ErrPrivate):
		return c.store.saveFinding(ctx, r, finding{status: statusSkipped, reason: err.Error()})
	case errors.Is(err, proxy.ErrNotExist):
		if err := c.store.saveFinding(ctx, r, finding{status: statusMissing, reason: err.Error()}); err != nil {
			return err
		}
		return delta.ResourceDelete(err)
	case errors.Is(err, proxy.ErrForbidden):
		return c.handleRefusal(ctx, r, err)
	default:
		return err
	}
}

// handleRefusal handles the answer "forbidden": Work asks the proxy again a few times, unless the last answer was the same.
func (c *controller) handleRefusal(ctx context.Context, r *delta.Resource[Module], refusal error) error {
	before, err := c.store.readStatus(ctx, r.Object.Path)
	if err != nil {
		return err
	}
	if before != statusRefused && r.Attempt < refusals {
		return refusal
	}
	return c.store.saveFinding(ctx, r, finding{status: statusRefused, reason: refusal.Error()})
}

// String formats a replacement as in a go.mod; "" for nil.
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
