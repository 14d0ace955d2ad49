package delta

import (
	"context"
	"time"
)

// Worker syncs one resource.
type Worker[T Object] interface {
	// Work makes the outside world and the resource agree. Nil means synced. After an error it is called again, after a
	// second and then ever later, until the resource's MaxAttempts are used up, and then slowly. [ResourceDelete] means
	// that the object is gone outside. A panic counts as an error. See [the table of outcomes] for all errors that it may
	// return.
	//
	// It must be idempotent: it runs again after a crash, and if the object was informed again meanwhile. It is called
	// outside any transaction, by several goroutines at once if the kind's Parallelism allows, but never twice at once for
	// one resource.
	//
	// The context ends at the timeout, and when Stop no longer waits. If Work ignores that, its attempt is closed as
	// failed, and the call counts against the kind's Parallelism until it returns.
	//
	// [the table of outcomes]: https://github.com/chariot-giving/delta/blob/main/docs/concepts.md#outcomes-of-work
	Work(ctx context.Context, resource *Resource[T]) error

	// ResourceTimeout bounds one call of Work. Zero leaves it to the client's ResourceWorkTimeout, -1 means no bound.
	ResourceTimeout(resource *Resource[T]) time.Duration
}

// BatchWorker is for controllers of kinds with a BatchSize whose upstream takes many objects in one call. Batches call
// WorkBatch instead of Work. Work is called for resources that are worked singly, for example after a failure.
type BatchWorker[T Object] interface {
	// WorkBatch does for many resources, all of one namespace, what Work does for one. It returns one result for each, in
	// their order, as Work would return it ([the table of outcomes]). A panic, or another number of results, fails all of
	// them. One call counts once against Parallelism and MaxWorkers, and has the longest of the resources' timeouts.
	//
	// [the table of outcomes]: https://github.com/chariot-giving/delta/blob/main/docs/concepts.md#outcomes-of-work
	WorkBatch(ctx context.Context, resources []*Resource[T]) []error
}

// Finalizer is for controllers that clean up after deleted resources.
type Finalizer[T Object] interface {
	// Finalize is called for a resource that was deleted: a complete listing left it out, Work returned [ResourceDelete],
	// or a command deleted it. The resource's Cause says which. Finalize has the timeout, the limits, the attempts, the
	// backoff and the CompleteTx of Work, may return the same errors, and must be idempotent too. It is called until it
	// returns nil or a [ResourceDelete]; after MaxAttempts failures every DegradedRetryInterval, even if it returns
	// [ResourceDegrade]. Only then is the row removed, by any client, after its retention. If the object is informed again
	// before, the resource is live again and Finalize is not called any more; Work waits for a running call.
	//
	// Once a client with a Finalizer has started, rows of deleted resources of the kind wait for it, even if later clients
	// have no Finalizer. To use the kind without one again, run: UPDATE delta_controller SET finalizes = FALSE WHERE name =
	// '<kind>'; UPDATE delta_resource SET finalized = NULL WHERE kind = '<kind>'.
	Finalize(ctx context.Context, resource *Resource[T]) error
}

// Upgrader is for controllers of types with a version ([ObjectWithVersion]).
type Upgrader interface {
	// Upgrade turns the JSON of an object that an older version of its type stored into JSON of the current version. It is
	// called each time such an object is read; the row keeps the old JSON until the object is informed again. After an
	// error, or a panic, the resource waits as for an object that does not decode.
	Upgrade(version int, object []byte) ([]byte, error)
}

// Informer lists on a channel the objects that exist outside. [Lister] does so with an iterator, whose errors cannot get
// lost.
type Informer[T Object] interface {
	// Inform sends every object that the options ask for, and closes the channel at the end of the listing. It may return
	// before, because Delta reads while it sends. It must stop, and close the channel, when the context ends. If a listing
	// fails after Inform has returned, call [FailInform] before closing the channel.
	//
	// Objects are written in pages while the listing goes on. A pass is complete if the channel is closed, FailInform was
	// not called and the context has not ended. Only then does the next pass ask for newer objects (options.After).
	Inform(ctx context.Context, options *InformOptions) (<-chan T, error)

	// InformTimeout bounds the pass that args describes. Zero leaves it to the client's ControllerInformTimeout, -1 means
	// no bound.
	InformTimeout(args *InformArgs[T]) time.Duration
}

// Sharder is for controllers of kinds that are listed in parts, such as by the accounts, tenants or regions of an upstream.
// Each shard has its own passes, which begin at different times, its own cursor, pause, error, and bounds of deletions
// (MaxDeleted and MaxDeletedShare count within the shard): a shard that fails, hangs or lists nothing affects no other. The
// objects must return their shard ([ObjectWithShard]).
//
// A pass of a shard marks deleted only resources of that shard, and refuses an object that returns another shard.
type Sharder interface {
	// Shards names the current shards, 1000 at most, in any order; each is then listed with its name in
	// [InformOptions].Shard. A name is 1 to 255 bytes of UTF-8 without control characters, and is shown in Temporal. Shards
	// is called at the beginning of each run, with the timeout of a pass. After an error, or a panic, nothing is listed,
	// and nothing else happens.
	//
	// A shard that is no longer named is not listed. Its resources stay as they are until somebody decides
	// ([Client.ApproveWithheld], [Client.DismissWithheld]), or it is named again.
	Shards(ctx context.Context) ([]string, error)
}

// Controller syncs the objects of one type. Besides these methods it may implement optional interfaces: [BatchWorker],
// [Lister], [Sharder] and [Finalizer]. A decorator that embeds a Controller hides them; give it a method
//
//	Unwrap() any
//
// which returns the wrapped controller. Each optional interface that the decorator itself lacks is then looked for there,
// and called on the wrapped controller, past the decorator.
type Controller[T Object] interface {
	Worker[T]
	Informer[T]
}

// InformArgs is the argument of [Informer].InformTimeout: it describes the pass whose timeout is asked for.
type InformArgs[T Object] struct {
	// ResourceKind is the kind of object.
	ResourceKind string
	// FullListing is set for a listing of everything: by the schedule of full listings, or by request.
	FullListing bool
	// ProcessExisting also syncs objects that did not change.
	ProcessExisting bool
	// RunForeground makes the run wait until all resources that it informed have settled; it fails if one of them degraded.
	RunForeground bool
	// Options are the options that the informer gets, including the kind's cursor.
	Options *InformOptions
}

// WorkerDefaults can be embedded in a controller: Work has the client's timeout.
type WorkerDefaults[T Object] struct{}

// ResourceTimeout leaves the timeout to the client.
func (WorkerDefaults[T]) ResourceTimeout(*Resource[T]) time.Duration { return 0 }

// InformerDefaults can be embedded in a controller: Inform has the client's timeout.
type InformerDefaults[T Object] struct{}

// InformTimeout leaves the timeout to the client.
func (InformerDefaults[T]) InformTimeout(*InformArgs[T]) time.Duration { return 0 }
