package delta

import (
	"errors"

	"github.com/chariot-giving/delta/delta/deltatype"
)

// Resource is what Work is given: the object and the row that Postgres keeps of it. It is a copy; changing it changes
// nothing.
type Resource[T Object] struct {
	*deltatype.ResourceRow

	// Object is the object, as it was last informed.
	Object T
}

// ResourceDelete wraps an error that Work returns to say that the object is gone outside: the resource becomes deleted
// and its row is removed after the retention period of deleted resources. The error may be nil.
func ResourceDelete(err error) error {
	return &ResourceDeleteError{err: err}
}

// ResourceDeleteError is what [ResourceDelete] returns. Match it with errors.As.
type ResourceDeleteError struct{ err error }

// Error is the text of the wrapped error, and what it means.
func (e *ResourceDeleteError) Error() string {
	if e.err == nil {
		return "resource deleted"
	}
	return "resource deleted: " + e.err.Error()
}

// Is tells whether the target is a ResourceDeleteError too.
func (e *ResourceDeleteError) Is(target error) bool {
	var other *ResourceDeleteError
	return errors.As(target, &other)
}

// Unwrap returns the wrapped error.
func (e *ResourceDeleteError) Unwrap() error { return e.err }
