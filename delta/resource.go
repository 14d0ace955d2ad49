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

// Resource is the argument of Work: the object, and its row in Postgres. It is a copy; changing it changes nothing.
type Resource[T Object] struct {
	*deltatype.ResourceRow

	// Object is the object, as it was last informed.
	Object T

	completeTx activities.CompleteTx
}

// ErrSuperseded is wrapped in the error of [Resource.CompleteTx] if the attempt no longer owns the resource: another worker
// has claimed it, or the attempt was closed because it took too long.
var ErrSuperseded = activities.ErrSuperseded

// CompleteTx marks this attempt synced in the caller's transaction, so that it commits together with the transaction's
// other writes, or not at all: effects in the same database happen exactly once. Commit the transaction, and return nil
// from Work. CompleteTx returns [ErrSuperseded] if another attempt has taken over: roll back. If the transaction was
// committed, the resource is synced, whatever Work returns. If Work returns nil but the transaction was not committed, the
// attempt has failed.
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

// IdempotencyKey returns a key for upstream calls that take one: 32 hexadecimal digits. It is the same for all attempts of
// a generation, and differs between generations, resources, and Work and Finalize.
func (r *Resource[T]) IdempotencyKey() string {
	named := fmt.Appendf(nil, "%d/%d/%d/%s/%s", r.ID, r.CreatedAt.UnixMicro(), r.Generation, r.ObjectKind, r.ObjectID)
	if r.State == deltatype.ResourceStateDeleted {
		named = append(named, "/finalize"...) // it may be the generation in which Work found the object gone
	}
	sum := sha256.Sum256(named)
	return hex.EncodeToString(sum[:16])
}

// ResourceSnooze is returned by Work to be called again after d, for example an upstream's Retry-After. The attempt does
// not count. A d of 0 or less means at once; 100 years are the most. [The table of outcomes] has all errors that Work may
// return.
//
// [The table of outcomes]: https://github.com/chariot-giving/delta/blob/main/docs/concepts.md#outcomes-of-work
func ResourceSnooze(d time.Duration) error { return newSnooze(SnoozesResource, d) }

// SnoozeKind is [ResourceSnooze] for an upstream that tells all callers to slow down, as with a 429: no Work of the kind
// begins for d, in any client. Running calls go on. The waiting resources come back spread over a tenth of d, 1 second to 1
// minute, and lose no attempts. A shorter snooze does not shorten a longer one; [Client.ResumeKind] ends it.
func SnoozeKind(d time.Duration) error { return newSnooze(SnoozesKind, d) }

// SnoozeNamespace is [SnoozeKind] for the resource's namespace, across kinds: for upstreams that count by account.
// [Client.ResumeNamespace] ends it.
func SnoozeNamespace(d time.Duration) error { return newSnooze(SnoozesNamespace, d) }

func newSnooze(scope SnoozeScope, d time.Duration) error {
	return &ResourceSnoozeError{scope: scope, duration: min(max(d, 0), maxDuration)}
}

// SnoozeScope is the extent of a [ResourceSnoozeError]: the resource, its kind or its namespace.
type SnoozeScope = deltatype.SnoozeScope

const (
	// SnoozesResource puts off the resource alone, as [ResourceSnooze] does.
	SnoozesResource = deltatype.SnoozesResource
	// SnoozesKind puts off all resources of the kind, as [SnoozeKind] does.
	SnoozesKind = deltatype.SnoozesKind
	// SnoozesNamespace puts off all resources in the namespace, as [SnoozeNamespace] does.
	SnoozesNamespace = deltatype.SnoozesNamespace
)

// ResourceSnoozeError is the type of the errors of [ResourceSnooze], [SnoozeKind] and [SnoozeNamespace]. Match it with
// errors.As.
type ResourceSnoozeError struct {
	scope    SnoozeScope
	duration time.Duration
}

// Error has the scope and the duration.
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

// Scope is the extent of the snooze: the resource, its kind or its namespace.
func (e *ResourceSnoozeError) Scope() SnoozeScope { return e.scope }

// ResourceDegrade is returned by Work to declare that further attempts are hopeless: the resource becomes degraded now. It
// wraps err, which may be nil. [The table of outcomes] has all errors that Work may return.
//
// [The table of outcomes]: https://github.com/chariot-giving/delta/blob/main/docs/concepts.md#outcomes-of-work
func ResourceDegrade(err error) error {
	return &ResourceDegradeError{err: err}
}

// ResourceDegradeError is the type of the error of [ResourceDegrade]. Match it with errors.As.
type ResourceDegradeError struct{ err error }

// Error has the text of the wrapped error.
func (e *ResourceDegradeError) Error() string {
	if e.err == nil {
		return "resource degraded"
	}
	return "resource degraded: " + e.err.Error()
}

// Unwrap returns the wrapped error.
func (e *ResourceDegradeError) Unwrap() error { return e.err }

// ResourceDelete is returned by Work to declare that the object is gone outside: the resource becomes deleted, and its row
// is removed after the retention period of deleted resources. It wraps err, which may be nil. [The table of outcomes] has
// all errors that Work may return.
//
// [The table of outcomes]: https://github.com/chariot-giving/delta/blob/main/docs/concepts.md#outcomes-of-work
func ResourceDelete(err error) error {
	return &ResourceDeleteError{err: err}
}

// ResourceDeleteError is the type of the error of [ResourceDelete]. Match it with errors.As.
type ResourceDeleteError struct{ err error }

// Error has the text of the wrapped error.
func (e *ResourceDeleteError) Error() string {
	if e.err == nil {
		return "resource deleted"
	}
	return "resource deleted: " + e.err.Error()
}

// Is reports whether the target is a ResourceDeleteError too.
func (e *ResourceDeleteError) Is(target error) bool {
	var other *ResourceDeleteError
	return errors.As(target, &other)
}

// Unwrap returns the wrapped error.
func (e *ResourceDeleteError) Unwrap() error { return e.err }
