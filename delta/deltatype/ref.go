package deltatype

import (
	"fmt"
	"strings"
)

// Ref names a resource.
type Ref struct {
	// Kind and ObjectID are the kind and id of its object.
	Kind, ObjectID string
}

// String returns kind/id, which is unambiguous because a kind has no slash.
func (r Ref) String() string { return r.Kind + "/" + r.ObjectID }

// ParentCycleError is returned for an object whose chain of parents leads back to it: none of them could be synced first. Nothing was written. Match it
// with errors.As.
type ParentCycleError struct {
	// Path begins and ends with the same resource; each resource is a parent of the previous one.
	Path []Ref
}

// Error names the whole path.
func (e *ParentCycleError) Error() string {
	names := make([]string, len(e.Path))
	for i, ref := range e.Path {
		names[i] = ref.String()
	}
	return fmt.Sprintf("the parents of %s lead back to it (%s): none of them could be synced first", names[0], strings.Join(names, " → "))
}
