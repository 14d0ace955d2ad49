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

// lives is the versioning behavior of workflows that live as long as a resource, or for ever. Pinned ones would need the
// workers of the build that started them for as long, also after they continue as new. They go on with the current
// version instead, because every release replays the histories of earlier ones. A worker without a version ignores it.
const lives = workflow.VersioningBehaviorAutoUpgrade

// RegisterResource registers the workflows of resources: single and in batches.
func (k Kinds) RegisterResource(r Registry) {
	r.RegisterWorkflowWithOptions(k.Resource, workflow.RegisterOptions{Name: ResourceName, VersioningBehavior: lives})
	r.RegisterWorkflowWithOptions(k.Batch, workflow.RegisterOptions{Name: BatchName, VersioningBehavior: lives})
}

// RegisterInform registers the workflows of an informer's run, which ends, with a versioning behavior, and of a source.
func RegisterInform(r Registry, runs workflow.VersioningBehavior) {
	r.RegisterWorkflowWithOptions(Inform, workflow.RegisterOptions{Name: InformName, VersioningBehavior: runs})
	r.RegisterWorkflowWithOptions(Source, workflow.RegisterOptions{Name: SourceName, VersioningBehavior: lives})
}
