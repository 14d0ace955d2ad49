package deltatype

import (
	"errors"
	"fmt"
)

// ErrNotFound is wrapped in the errors of calls that name a resource that does not exist.
var ErrNotFound = errors.New("there is no such resource")

// NamespaceError is returned for an object that names another namespace than its resource has: it may be another tenant's object with the
// same id. Match it with errors.As.
type NamespaceError struct {
	// Kind and ObjectID name the resource.
	Kind, ObjectID string
	// Namespace is the resource's namespace, Given the one that the object names.
	Namespace, Given string
}

// Error names the resource and both namespaces, and a remedy.
func (e *NamespaceError) Error() string {
	return fmt.Sprintf("%s/%s: namespace %q: the resource is in namespace %q, and an inform does not move it unless MoveNamespace is set. "+
		"If these are objects of two tenants, their ids must differ: begin them with the tenant's", e.Kind, e.ObjectID, e.Given, e.Namespace)
}

// StateError is returned if the state of a resource does not allow a command. Match it with errors.As.
type StateError struct {
	// Command is the name of the command, such as "invalidate".
	Command string
	// Kind and ObjectID name the resource.
	Kind, ObjectID string
	// State is the state of the resource.
	State ResourceState
}

// Error names the resource and its state, and the states that allow the command.
func (e *StateError) Error() string {
	text := fmt.Sprintf("%s %s/%s: its state is %s", e.Command, e.Kind, e.ObjectID, e.State)
	switch e.Command {
	case "invalidate":
		return text + ", and must be synced"
	case "retry":
		return text + ", and must be degraded, or failed"
	case "revive":
		return text + ", and must be deleted"
	case "touch":
		return text + ", and must be another: inform the object to have it back"
	case "delete":
		return text + " already"
	}
	return text
}
