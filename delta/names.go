package delta

// names are the ids that an installation uses in Temporal. Kinds have neither '/' nor ':' in them, so no two of these
// can be the same.
type names struct {
	prefix string
	// queue is the task queue of all kinds, where the user runs the worker.
	queue string
}

// resource is the id of a resource's workflow.
func (n names) resource(kind, objectID string) string {
	return n.prefix + "/" + kind + "/" + objectID
}

// batch is the id of a batch's workflow.
func (n names) batch(kind, id string) string { return n.prefix + "/" + kind + ":batch/" + id }

// taskQueue is where the workflows and attempts of a kind are worked.
func (n names) taskQueue(kind string) string {
	if n.queue != "" {
		return n.queue
	}
	return n.prefix + "/" + kind
}

// inform is the id of a kind's schedule, and begins those of the workflows that it starts.
func (n names) inform(kind string) string { return n.prefix + "/inform:" + kind }

// informQueue is where passes are worked: on a task queue of their own, so as not to wait behind attempts.
func (n names) informQueue(kind string) string {
	if n.queue != "" {
		return n.queue
	}
	return n.inform(kind)
}

// anchor is the id of the schedule that marks the prefix as taken by an installation.
func (n names) anchor() string { return n.prefix + "/installation" }
