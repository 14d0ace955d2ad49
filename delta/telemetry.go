package delta

import (
	"context"
	"time"

	"github.com/chariot-giving/delta/delta/deltatype"
)

// Telemetry receives a client's measurements, and makes spans of its calls. The module
// github.com/chariot-giving/delta/deltaotel has one for OpenTelemetry.
//
// Informs and attempts call its methods from many goroutines at once: they must be safe for concurrent use, return quickly
// and never wait. A panic harms nothing: it is logged, at most once a minute, and the client continues as if the method had
// done nothing. A method that blocks delays the inform or attempt that calls it.
//
// Later versions may add types of [Measurement], operations, and fields: ignore unknown ones.
type Telemetry interface {
	// StartSpan begins the span of an inform, of a pass of an informer, or of a call of a controller. It returns the
	// context for this operation, and a function that is called once, with its result. Both may be nil: then the context
	// stays as it is, and nothing is called.
	StartSpan(ctx context.Context, span Span) (context.Context, func(SpanEnd))
	// Inject sets the values of a context that travel with the object to its Work, such as W3C's traceparent and
	// tracestate. Names and values are printable ASCII, names without ' ' and ':', and 4 KiB at most together; others are
	// dropped, which is logged. A name is set once. set must not be called after Inject has returned.
	Inject(ctx context.Context, set func(name, value string))
	// Record receives a measurement: a value of one of the types with Measurement in their names.
	Record(ctx context.Context, measurement Measurement)
}

// Span describes the operation of a span.
type Span struct {
	// Operation is an inform, OperationPass, or the called method of a controller.
	Operation Operation
	// Kind and Namespace are those of all objects; empty if they differ. Namespace is also empty if an inform names none.
	Kind, Namespace string
	// Objects is how many objects are informed, or how many resources worked.
	Objects int
	// Resources are the worked resources, in the order of the call; none for an inform and a listing.
	Resources []SpanResource
	// Shard is that of a pass, and of its listing; empty if the kind is listed as a whole.
	Shard string
}

// SpanResource is a resource that is worked within a span.
type SpanResource struct {
	// ObjectID is the object's id, or its hash if Config.HashObjectIDs is set. It belongs in no label of a metric.
	ObjectID string
	// Generation and Attempt are those of the call. IsFirst reports whether it is the first call of the generation.
	Generation int64
	Attempt    int
	IsFirst    bool
	// Carrier has the values that Inject set for the inform that made the generation; nil if there are none. It is shared,
	// so it must not be changed.
	Carrier map[string]string
}

// SpanEnd is the result of the operation of a span.
type SpanEnd struct {
	// Outcome is that of the resources; [OutcomeMixed] if they differ. It is empty for an inform, a listing and a pass.
	Outcome Outcome
	// Failed is how many resources failed or degraded.
	Failed int
	// Err is the error of the operation, or of the first resource that failed. A snooze, or the deletion of a resource, is
	// no error.
	Err error
	// Duration is how long it took.
	Duration time.Duration
	// Pass is the result of a pass; nil for other operations.
	Pass *PassMeasurement
}

// The operations of informs and passes, for [Telemetry].
const (
	// OperationInform is [Client.Inform], including those of [Client.Sync].
	OperationInform Operation = "inform"
	// OperationInformMany is [Client.InformMany].
	OperationInformMany Operation = "inform_many"
	// OperationInformTx is [Client.InformTx] or [Client.InformManyTx].
	OperationInformTx Operation = "inform_tx"
	// OperationPass is a pass of an informer, with all its writes. Its OperationList is within it.
	OperationPass Operation = "pass"
	// OperationShards is the call of Shards before the passes of a run.
	OperationShards Operation = "shards"
)

// Outcome is the outcome of an attempt, for [Telemetry] and [Client.Figures]. See [the table of outcomes].
//
// [the table of outcomes]: https://github.com/chariot-giving/delta/blob/main/docs/concepts.md#outcomes-of-work
type Outcome string

const (
	// OutcomeSynced is success of Work.
	OutcomeSynced Outcome = "synced"
	// OutcomeFinalized is success of Finalize.
	OutcomeFinalized Outcome = "finalized"
	// OutcomeFailed is a failure that is tried again.
	OutcomeFailed Outcome = "failed"
	// OutcomeDegraded is the last failure of a generation, or one that Work called hopeless.
	OutcomeDegraded Outcome = "degraded"
	// OutcomeDeleted is an object that Work found gone.
	OutcomeDeleted Outcome = "deleted"
	// OutcomeSnoozed is an attempt that Work has put off.
	OutcomeSnoozed Outcome = "snoozed"
	// OutcomeUndecodable is a stored object that this client does not understand: Work was not called.
	OutcomeUndecodable Outcome = "undecodable"
	// OutcomeMixed is a WorkBatch whose resources had different outcomes.
	OutcomeMixed Outcome = "mixed"
)

// Measurement is one of the types of this package with Measurement in their names.
type Measurement interface{ isMeasurement() }

// AttemptMeasurement is an attempt of one resource whose outcome was written.
type AttemptMeasurement struct {
	// Operation is OperationFinalize, or OperationWork, which includes a resource of a WorkBatch.
	Operation       Operation
	Kind, Namespace string
	Outcome         Outcome
	// Duration is how long Work took, a WorkBatch for all of its resources together; 0 if none was called.
	Duration time.Duration
	// Wait is how long the attempt had been due when it was claimed.
	Wait time.Duration
	// Lag is the time from the making of the generation, such as by an inform, until the outcome was written. For an inform
	// in a transaction it begins with the transaction.
	Lag time.Duration
}

// InformResult is the result of the inform of an object, for [Telemetry].
type InformResult string

const (
	// InformNew is an object that had no resource.
	InformNew InformResult = "new"
	// InformChanged is an object that is to be synced again.
	InformChanged InformResult = "changed"
	// InformUnchanged is an object whose resource was left alone.
	InformUnchanged InformResult = "unchanged"
	// InformStale is an object that is older than the stored one.
	InformStale InformResult = "stale"
	// InformRefused is an object that would move its resource to another namespace.
	InformRefused InformResult = "refused"
)

// InformMeasurement counts objects that were informed, or listed by an informer. Informs of a transaction that is rolled
// back later still count.
type InformMeasurement struct {
	Kind, Namespace string
	// Operation is that of an inform, or OperationList.
	Operation Operation
	Result    InformResult
	Objects   int
}

// PassMeasurement is a pass of an informer that has ended.
type PassMeasurement struct {
	Kind     string
	Duration time.Duration
	// Listed counts the objects of the listing; New, Changed, Unchanged, Stale and Refused count them by result. Deleted
	// counts resources that a complete listing no longer had, Withheld those that it did not mark deleted because somebody
	// must decide first.
	Listed, New, Changed, Unchanged, Stale, Refused, Deleted, Withheld int64
	// Err is why it failed; nil if it was complete.
	Err error
}

// DispatchWay is how a dispatcher wakes workflows.
type DispatchWay string

const (
	// DispatchSingle starts or signals the workflow of one resource.
	DispatchSingle DispatchWay = "single"
	// DispatchBatch starts the workflow of a batch.
	DispatchBatch DispatchWay = "batch"
)

// DispatchMeasurement counts workflows that were woken, or that could not be.
type DispatchMeasurement struct {
	Kind string
	Way  DispatchWay
	// Workflows is their number, Resources the number of their resources.
	Workflows, Resources int
	// Err is why Temporal took none of them; nil if it did.
	Err error
}

// ClaimsLostMeasurement counts resources whose calls were ended because their claims were lost.
type ClaimsLostMeasurement struct {
	Kind, Namespace string
	Resources       int
}

// DroppedMeasurement counts events or failures that were dropped because a reader is too slow.
type DroppedMeasurement struct {
	// What is "events" for subscriptions, and "failures" for the ErrorHandler.
	What  string
	Count int
}

// ClientMeasurement is the state of the client. It replaces the previous one. It comes every 15 seconds while the client
// runs, and without parts when it stops.
type ClientMeasurement struct {
	Parts []PartMeasurement
	// Slots is how many calls of Work of each kind the client runs at once at most.
	Slots map[string]int
}

// PartMeasurement is the state of a part of the client.
type PartMeasurement struct {
	Part HealthPart
	// Kind is the kind that the part serves; empty if it serves all.
	Kind string
	// IsUp reports whether [Client.Health] considers it healthy.
	IsUp bool
}

// DatabaseMeasurement is the state of the database, which one client at a time measures for all of them, every 15 seconds.
// It replaces the previous one. An empty one comes when another client takes over.
type DatabaseMeasurement struct {
	// Installation is the id of the database's installation: a program may have clients of several.
	Installation string
	// Due has each kind that a client was started with.
	Due []DueMeasurement
	// States are the resources by kind, namespace and state, at their latest count ([Config].CountResourcesInterval): the
	// MaxCountedNamespaces pairs of kind and namespace with the most resources, and the sum of the others, with an empty
	// namespace.
	States []StateMeasurement
	// Passes has each kind with an informer of which a pass has ended.
	Passes []LastPassMeasurement
	// Refused has each kind with refused objects ([Client.Refused]).
	Refused []RefusedMeasurement
	// Touches has each kind with resources that are still to be touched because parents have changed
	// ([ObjectSettings].TouchedBy).
	Touches []TouchMeasurement
	// Sources has each source that was ever run.
	Sources []SourceMeasurement
	// HeldChanges is how many entries of the log of changes are held back from readers, at most MaxChangesCounted. HeldFor
	// is the age of the first of them: see [ChangeLogStatus].
	HeldChanges int64
	HeldFor     time.Duration
	// Consumers are those of the log of changes.
	Consumers []ChangeConsumerMeasurement
}

// RefusedMeasurement counts the refused objects of a kind.
type RefusedMeasurement struct {
	Kind  string
	Count int64
}

// TouchMeasurement counts changed parents whose children of a kind are still to be touched.
type TouchMeasurement struct {
	Kind string
	// Count is how many parents these are, at most MaxTouchesCounted. Age is how long ago the first of them changed.
	Count int64
	Age   time.Duration
}

// MaxTouchesCounted bounds how many changed parents of a kind are counted.
const MaxTouchesCounted = 100_000

// SourceMeasurement is the state of a source.
type SourceMeasurement struct {
	Kind, Name string
	// Phase is its current activity.
	Phase SourcePhase
	// Lag, BehindBytes and BehindMessages are those of its [SourceStatus].
	Lag                         *time.Duration
	BehindBytes, BehindMessages *int64
}

// ChangeConsumerMeasurement is the progress of a consumer of the log of changes.
type ChangeConsumerMeasurement struct {
	// Name is the consumer's. Member is "1 of 3" for a member of a group, which counts from 0, and empty outside of groups.
	Name, Member string
	// Behind is how many entries are after its position, at most MaxChangesCounted. Lag is the age of the first of them.
	Behind int64
	Lag    time.Duration
	// IsRunning reports whether a process has claimed it, and IsLost whether it cannot continue without a gap.
	IsRunning, IsLost bool
}

// MaxChangesCounted bounds how many entries of the log of changes are counted for each consumer, so that measuring a long
// log costs no more.
const MaxChangesCounted = 10_000

// DueMeasurement is the outbox of a kind.
type DueMeasurement struct {
	Kind string
	// Count is how many resources wait for a dispatcher, at most MaxDueCounted. Oldest is how long the first of them has
	// waited.
	Count  int64
	Oldest time.Duration
}

// MaxDueCounted bounds how many resources that wait for a dispatcher are counted, so that measuring a long outbox costs no
// more.
const MaxDueCounted = 100_000

// MaxCountedNamespaces bounds the pairs of kind and namespace by which resources are counted, so that a namespace for each
// customer does not mean as many metrics.
const MaxCountedNamespaces = 200

// StateMeasurement counts resources.
type StateMeasurement struct {
	Kind, Namespace string
	State           deltatype.ResourceState
	Count           int64
}

// LastPassMeasurement is the state of the listings of a kind; for a kind with shards, that of the worst shard.
type LastPassMeasurement struct {
	Kind string
	// Age is how long ago a pass has succeeded; nil if none has.
	Age *time.Duration
	// Lag is how far the listing is behind: that of [KindStatus]. It is 0 if no pass has failed and no run was missed; a
	// run within its jitter is not missed.
	Lag time.Duration
	// Failing counts the shards whose latest pass has failed, without paused ones. A kind without shards has one.
	Failing int64
	// Withheld is how many deletions await a decision.
	Withheld int64
}

func (AttemptMeasurement) isMeasurement()    {}
func (InformMeasurement) isMeasurement()     {}
func (PassMeasurement) isMeasurement()       {}
func (DispatchMeasurement) isMeasurement()   {}
func (ClaimsLostMeasurement) isMeasurement() {}
func (DroppedMeasurement) isMeasurement()    {}
func (ClientMeasurement) isMeasurement()     {}
func (DatabaseMeasurement) isMeasurement()   {}
