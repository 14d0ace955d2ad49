package delta

// names are the ids that an installation uses in Temporal. Kinds have neither '/' nor ':' in them, so no two of these
// can be the same.
type names struct{ prefix string }

// resource is the id of a resource's workflow.
func (n names) resource(kind, objectID string) string {
	return n.prefix + "/" + kind + "/" + objectID
}

// taskQueue is where the workflows and attempts of a kind are worked.
func (n names) taskQueue(kind string) string { return n.prefix + "/" + kind }

// inform is the id of a kind's schedule, of the workflows that it starts, and the name of the task queue of its passes:
// they have one of their own so as not to wait behind attempts.
func (n names) inform(kind string) string { return n.prefix + "/inform:" + kind }

// anchor is the id of the schedule that marks the prefix as taken by an installation.
func (n names) anchor() string { return n.prefix + "/installation" }
