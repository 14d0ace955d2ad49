package workflows

import "go.temporal.io/sdk/workflow"

// Registry is where workflows are registered: a worker, a replayer or a test environment.
type Registry interface {
	RegisterWorkflowWithOptions(w any, options workflow.RegisterOptions)
}

// RegisterResource registers the lifecycle of a resource.
func RegisterResource(r Registry) {
	r.RegisterWorkflowWithOptions(Resource, workflow.RegisterOptions{Name: ResourceName})
}

// RegisterInform registers the run of an informer.
func RegisterInform(r Registry) {
	r.RegisterWorkflowWithOptions(Inform, workflow.RegisterOptions{Name: InformName})
}
