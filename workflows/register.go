package workflows

import (
	"time"

	"go.temporal.io/sdk/workflow"
)

// Registry registers workflows: it is a worker, a replayer or a test environment.
type Registry interface {
	RegisterWorkflowWithOptions(w any, options workflow.RegisterOptions)
}

// Kind has the settings of a kind that workflows need. They change only options of activities, which a replay does not
// compare.
type Kind struct {
	// HeartbeatTimeout is how long a worker may be silent before Temporal gives its attempt to another one.
	HeartbeatTimeout time.Duration
}

// Kinds are the kinds of one worker. A missing kind has the defaults.
type Kinds map[string]Kind

// RegisterResource registers the workflows of resources: single and in batches.
func (k Kinds) RegisterResource(r Registry) {
	r.RegisterWorkflowWithOptions(k.Resource, workflow.RegisterOptions{Name: ResourceName})
	r.RegisterWorkflowWithOptions(k.Batch, workflow.RegisterOptions{Name: BatchName})
}

// RegisterInform registers the workflows of an informer's run and of a source.
func RegisterInform(r Registry) {
	r.RegisterWorkflowWithOptions(Inform, workflow.RegisterOptions{Name: InformName})
	r.RegisterWorkflowWithOptions(Source, workflow.RegisterOptions{Name: SourceName})
}
