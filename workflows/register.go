package workflows

import (
	"time"

	"go.temporal.io/sdk/workflow"
)

// Registry is where workflows are registered: a worker, a replayer or a test environment.
type Registry interface {
	RegisterWorkflowWithOptions(w any, options workflow.RegisterOptions)
}

// Kind is what workflows know of a kind. It changes nothing but options of activities, which a replay does not compare.
type Kind struct {
	// HeartbeatTimeout is how long a worker may be silent before an attempt is given to another one.
	HeartbeatTimeout time.Duration
}

// Kinds are the kinds of one worker. One that is missing has the defaults.
type Kinds map[string]Kind

// RegisterResource registers the lifecycles of resources: each by itself, and in batches.
func (k Kinds) RegisterResource(r Registry) {
	r.RegisterWorkflowWithOptions(k.Resource, workflow.RegisterOptions{Name: ResourceName})
	r.RegisterWorkflowWithOptions(k.Batch, workflow.RegisterOptions{Name: BatchName})
}

// RegisterInform registers the run of an informer, and that of a source.
func RegisterInform(r Registry) {
	r.RegisterWorkflowWithOptions(Inform, workflow.RegisterOptions{Name: InformName})
	r.RegisterWorkflowWithOptions(Source, workflow.RegisterOptions{Name: SourceName})
}
