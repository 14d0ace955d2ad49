package delta

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// Resource is what Work is given: the object and the row that Postgres keeps of it. It is a copy; changing it changes
// nothing.
type Resource[T Object] struct {
	*deltatype.ResourceRow

	// Object is the object, as it was last informed.
	Object T

	completeTx activities.CompleteTx
}

// ErrSuperseded is wrapped in the error of [Resource.CompleteTx] for an attempt that is no longer the resource's: it was
// given to another worker, or closed because it took too long.
var ErrSuperseded = activities.ErrSuperseded

// CompleteTx marks this attempt synced in the caller's transaction, so that it commits with what else the transaction
// writes, or not at all: effects in the same database happen exactly once. Commit it, and return nil from Work. It returns
// [ErrSuperseded] where another attempt has taken over: roll back. If the transaction is committed the resource is synced,
// whatever Work returns afterwards; if Work returns nil but the transaction was not committed, the attempt has failed.
func (r *Resource[T]) CompleteTx(ctx context.Context, tx pgx.Tx) error {
	switch {
	case r.completeTx == nil:
		return errors.New("delta: CompleteTx: the resource is not one that Work was given")
	case tx == nil:
		return errors.New("delta: CompleteTx: tx is nil")
	}
	if err := checkEncoding(tx.Conn()); err != nil {
		return fmt.Errorf("delta: CompleteTx: %w", err)
	}
	if err := r.completeTx(ctx, tx); err != nil {
		return fmt.Errorf("delta: CompleteTx: %w", err)
	}
	return nil
}

// IdempotencyKey is for calls upstream that take one. It is the same for all attempts of one generation, and another one
// for each generation and resource, and for Finalize. 32 hexadecimal digits.
func (r *Resource[T]) IdempotencyKey() string {
	named := fmt.Appendf(nil, "%d/%d/%d/%s/%s", r.ID, r.CreatedAt.UnixMicro(), r.Generation, r.ObjectKind, r.ObjectID)
	if r.State == deltatype.ResourceStateDeleted {
		named = append(named, "/finalize"...) // it may be the generation in which Work found the object gone
	}
	sum := sha256.Sum256(named)
	return hex.EncodeToString(sum[:16])
}

// ResourceSnooze is what Work returns to be called again after d, such as an upstream's Retry-After. It does not count as an
// attempt. A d of 0 or less means at once; 100 years are the most.
func ResourceSnooze(d time.Duration) error { return newSnooze(SnoozesResource, d) }

// SnoozeKind is [ResourceSnooze] for an upstream that says "slow down" to all, as with a 429: besides the resource itself, nothing of its kind
// begins Work for d, on any client. Work that runs already goes on. What waits comes back spread over a tenth of d, 1 second to 1 minute,
// and loses no attempts. A shorter snooze does not cut a longer one short; [Client.ResumeKind] ends it.
func SnoozeKind(d time.Duration) error { return newSnooze(SnoozesKind, d) }

// SnoozeNamespace is [SnoozeKind] for all that is in the resource's namespace, of all kinds: for upstreams that count by account.
// [Client.ResumeNamespace] ends it.
func SnoozeNamespace(d time.Duration) error { return newSnooze(SnoozesNamespace, d) }

func newSnooze(scope SnoozeScope, d time.Duration) error {
	return &ResourceSnoozeError{scope: scope, duration: min(max(d, 0), maxDuration)}
}

// SnoozeScope is what a [ResourceSnoozeError] puts off.
type SnoozeScope = activities.SnoozeScope

const (
	// SnoozesResource puts off the resource alone, as [ResourceSnooze] does.
	SnoozesResource = activities.SnoozesResource
	// SnoozesKind puts off all of its kind, as [SnoozeKind] does.
	SnoozesKind = activities.SnoozesKind
	// SnoozesNamespace puts off all in its namespace, as [SnoozeNamespace] does.
	SnoozesNamespace = activities.SnoozesNamespace
)

// ResourceSnoozeError is what [ResourceSnooze], [SnoozeKind] and [SnoozeNamespace] return. Match it with errors.As.
type ResourceSnoozeError struct {
	scope    SnoozeScope
	duration time.Duration
}

// Error says what is put off, and for how long.
func (e *ResourceSnoozeError) Error() string {
	what := "resource"
	switch e.scope {
	case SnoozesResource:
	case SnoozesKind:
		what = "kind"
	case SnoozesNamespace:
		what = "namespace"
	}
	return what + " snoozed for " + e.duration.String()
}

// Duration is how long Work is put off.
func (e *ResourceSnoozeError) Duration() time.Duration { return e.duration }

// Scope is what is put off.
func (e *ResourceSnoozeError) Scope() SnoozeScope { return e.scope }

// ResourceDegrade wraps an error that Work returns to say that further attempts are hopeless: the resource becomes degraded
// now. The error may be nil.
func ResourceDegrade(err error) error {
	return &ResourceDegradeError{err: err}
}

// ResourceDegradeError is what [ResourceDegrade] returns. Match it with errors.As.
type ResourceDegradeError struct{ err error }

// Error is the text of the wrapped error, and what it means.
func (e *ResourceDegradeError) Error() string {
	if e.err == nil {
		return "resource degraded"
	}
	return "resource degraded: " + e.err.Error()
}

// Unwrap returns the wrapped error.
func (e *ResourceDegradeError) Unwrap() error { return e.err }

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
