package deltatype

import (
	"fmt"
	"strings"
)

// Ref names a resource.
type Ref struct {
	// Kind and ID are those of its object.
	Kind, ID string
}

// String is kind/id. A kind has no slash, so it tells all that the Ref does.
func (r Ref) String() string { return r.Kind + "/" + r.ID }

// ParentCycleError is returned for an object whose parents, or theirs, lead back to it: none of them could be synced first. Nothing was written. Match it
// with errors.As.
type ParentCycleError struct {
	// Path begins and ends with the same resource; each one is a parent of the one before it.
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
