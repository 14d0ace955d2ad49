package delta

import (
	"context"
	"time"

	"github.com/chariot-giving/delta/delta/deltatype"
)

// Telemetry takes in what a client measures, and makes spans of what it calls. The module github.com/chariot-giving/delta/deltaotel has one for
// OpenTelemetry.
//
// Its methods are called on the way of informs and attempts, by many goroutines at once: they must be safe for concurrent use, return quickly and
// never wait. A panic harms nothing: it is logged, at most once a minute, and the client goes on as if the method had done nothing. A method that
// blocks cannot be kept from holding up what it is called for.
//
// Later versions may add types of [Measurement], operations, and fields: leave alone what you do not know.
type Telemetry interface {
	// StartSpan begins the span of an inform, of a pass of an informer, or of a call of a controller. It returns the context that this is to have,
	// and a function that is called once, with what it came to. Both may be nil: then the context stays as it is, and nothing is called.
	StartSpan(ctx context.Context, span Span) (context.Context, func(SpanEnd))
	// Inject sets what of a context with a span, or of a caller's, travels with the object to its Work, such as W3C's traceparent and tracestate.
	// Names and values are printable ASCII, names without ' ' and ':', and 4 KiB at most together; others are dropped, which is logged. A name is
	// set once. set must not be called after Inject has returned.
	Inject(ctx context.Context, set func(name, value string))
	// Record takes in a measurement: a value of one of the types that have Measurement in their names.
	Record(ctx context.Context, measurement Measurement)
}

// Span says what a span is for.
type Span struct {
	// Operation is one of an inform, OperationPass, or the method of a controller that is called.
	Operation Operation
	// Kind and Namespace are those of all objects; empty where they differ, and Namespace also where an inform names none.
	Kind, Namespace string
	// Objects is how many objects are informed, or how many resources worked.
	Objects int
	// Resources are those that are worked, in the order of the call; none for an inform and a listing.
	Resources []SpanResource
	// Shard is that of a pass, and of its listing; empty where all of the kind is listed.
	Shard string
}

// SpanResource is a resource that is worked within a span.
type SpanResource struct {
	// ObjectID is the object's id, or its hash where Config.HashObjectIDs is set. It belongs in no label of a metric.
	ObjectID string
	// Generation and Attempt are those of the call, and IsFirst reports whether it is the generation's first.
	Generation int64
	Attempt    int
	IsFirst    bool
	// Carrier has the values that Inject set for the inform that made the generation; nil where there is nothing. Others read it too: it must not be
	// changed.
	Carrier map[string]string
}

// SpanEnd says what the operation of a span came to.
type SpanEnd struct {
	// Outcome is that of the resources; [OutcomeMixed] where they differ. It is empty for an inform, a listing and a pass.
	Outcome Outcome
	// Failed is how many resources failed or degraded.
	Failed int
	// Err is the error of the operation, or of the first resource that failed. A snooze is none, and neither is a resource that is deleted.
	Err error
	// Duration is how long it took.
	Duration time.Duration
	// Pass is what a pass came to; nil for other operations.
	Pass *PassMeasurement
}

// The operations of informs and passes, for [Telemetry].
const (
	// OperationInform is [Client.Inform], also within [Client.Sync].
	OperationInform Operation = "inform"
	// OperationInformMany is [Client.InformMany].
	OperationInformMany Operation = "inform_many"
	// OperationInformTx is [Client.InformTx] or [Client.InformManyTx].
	OperationInformTx Operation = "inform_tx"
	// OperationPass is a pass of an informer, with all that is written for it. Its OperationList is within it.
	OperationPass Operation = "pass"
	// OperationShards is that the controller names the shards of a kind, before the passes of a run.
	OperationShards Operation = "shards"
)

// Outcome is what an attempt came to, for [Telemetry].
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
	// OutcomeDeleted is that of an object that Work found gone.
	OutcomeDeleted Outcome = "deleted"
	// OutcomeSnoozed is that of an attempt that Work has put off.
	OutcomeSnoozed Outcome = "snoozed"
	// OutcomeUnreadable is that of a stored object that this client does not understand: Work was not called.
	OutcomeUnreadable Outcome = "unreadable"
	// OutcomeMixed is that of a WorkBatch whose resources had different ones.
	OutcomeMixed Outcome = "mixed"
)

// Measurement is one of the types of this package that have Measurement in their names.
type Measurement interface{ isMeasurement() }

// AttemptMeasurement is an attempt whose outcome was written, of one resource.
type AttemptMeasurement struct {
	// Operation is OperationFinalize, or OperationWork, also for a resource that was worked by a WorkBatch.
	Operation       Operation
	Kind, Namespace string
	Outcome         Outcome
	// Duration is how long Work took, a WorkBatch for all of its resources together; 0 where none was called.
	Duration time.Duration
	// Wait is for how long the attempt had been due when it was claimed.
	Wait time.Duration
	// Lag is the time from when the generation was made, such as by an inform, until the outcome was written. The transaction of an inform
	// counts from its beginning.
	Lag time.Duration
}

// InformResult is what an inform came to, for [Telemetry].
type InformResult string

const (
	// InformNew is that of an object that had no resource.
	InformNew InformResult = "new"
	// InformChanged is that of one that is to be synced again.
	InformChanged InformResult = "changed"
	// InformUnchanged is that of one that was left alone.
	InformUnchanged InformResult = "unchanged"
	// InformStale is that of one that is older than what is stored.
	InformStale InformResult = "stale"
	// InformRefused is that of one that would move its resource to another namespace.
	InformRefused InformResult = "refused"
)

// InformMeasurement counts objects that were informed, or listed by an informer. What a caller's transaction takes back later is counted all the same.
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
	// Listed counts the objects of the listing, by what they came to in New, Changed, Unchanged, Stale and Refused. Deleted counts resources that a
	// complete listing no longer had, Withheld those that it did not mark deleted because somebody has to decide of them first.
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
	// Workflows is how many, Resources how many resources they are of.
	Workflows, Resources int
	// Err is why Temporal took none of them; nil if it did.
	Err error
}

// ClaimsLostMeasurement counts resources whose calls were ended because their claim was lost.
type ClaimsLostMeasurement struct {
	Kind, Namespace string
	Resources       int
}

// DroppedMeasurement counts what was not handed on because a reader is too slow.
type DroppedMeasurement struct {
	// What is "events" for those of subscriptions, and "failures" for those of the ErrorHandler.
	What  string
	Count int
}

// ClientMeasurement says how the client stands. It takes the place of the one before. It comes every 15 seconds while the client runs, and when
// it stops, with no parts.
type ClientMeasurement struct {
	Parts []PartMeasurement
	// Slots is how many calls of Work of each kind the client runs at once at most.
	Slots map[string]int
}

// PartMeasurement is a part of the client.
type PartMeasurement struct {
	Part HealthPart
	// Kind is the kind that the part is for; empty where it is for all.
	Kind string
	// IsUp reports whether it is as [Client.Health] wants it.
	IsUp bool
}

// DatabaseMeasurement is what one client at a time measures in the database, for all of them, every 15 seconds. It takes the place of the one
// before. An empty one comes when another client does it.
type DatabaseMeasurement struct {
	// Installation is the id of the database's installation: a program may have clients of several.
	Installation string
	// Due has each kind that a client was started with.
	Due []DueMeasurement
	// States are the resources by kind, namespace and state, as they were counted last ([Config].CountResourcesInterval). They have the
	// MaxCountedNamespaces pairs of a kind and a namespace that have the most resources; those of all others are together, with an empty namespace.
	States []StateMeasurement
	// Passes has each kind with an informer of which a pass has ended.
	Passes []LastPassMeasurement
	// Refused has each kind that has refused objects ([Client.Refused]).
	Refused []RefusedMeasurement
	// Touches has each kind whose resources are still to be touched because parents have changed ([ObjectSettings].TouchedBy).
	Touches []TouchMeasurement
	// Sources has each source that was ever run.
	Sources []SourceMeasurement
	// HeldChanges is how many entries of the log of changes no reader is given yet, at most MaxChangesCounted, and HeldFor for how long the first of them has
	// been there: see [ChangeLogStatus].
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

// TouchMeasurement is what is still to be touched of a kind.
type TouchMeasurement struct {
	Kind string
	// Count is how many parents have changed whose children of the kind are still to be touched, at most MaxTouchesCounted, and Age how long ago the first of them has.
	Count int64
	Age   time.Duration
}

// MaxTouchesCounted bounds how many changed parents of a kind are counted.
const MaxTouchesCounted = 100_000

// SourceMeasurement is how a source stands.
type SourceMeasurement struct {
	Kind, Name string
	// Phase is what it does.
	Phase SourcePhase
	// Lag, BehindBytes and BehindMessages are those of its [SourceStatus].
	Lag                         *time.Duration
	BehindBytes, BehindMessages *int64
}

// ChangeConsumerMeasurement is how far a consumer of the log of changes has come.
type ChangeConsumerMeasurement struct {
	// Name is the consumer's; Member is "1 of 3" for a member of a group, which counts from 0, and empty for one that is in none.
	Name, Member string
	// Behind is how many entries are after its position, at most MaxChangesCounted, and Lag how old the first of them is.
	Behind int64
	Lag    time.Duration
	// IsRunning reports whether a process has it, and IsLost whether it cannot read on without a gap.
	IsRunning, IsLost bool
}

// MaxChangesCounted bounds how many entries of the log of changes are counted, for each consumer, so that a long log costs no more to be measured.
const MaxChangesCounted = 10_000

// DueMeasurement is the outbox of a kind.
type DueMeasurement struct {
	Kind string
	// Count is how many resources wait for a dispatcher, at most MaxDueCounted, and Oldest for how long the first of them has.
	Count  int64
	Oldest time.Duration
}

// MaxDueCounted bounds how many resources are counted that wait for a dispatcher, so that a long outbox costs no more to be measured.
const MaxDueCounted = 100_000

// MaxCountedNamespaces bounds how many pairs of a kind and a namespace resources are counted by, so that a program with a namespace for each of its
// customers has not as many metrics.
const MaxCountedNamespaces = 200

// StateMeasurement counts resources.
type StateMeasurement struct {
	Kind, Namespace string
	State           deltatype.ResourceState
	Count           int64
}

// LastPassMeasurement says how the listings of a kind stand, of a kind with shards those of the shard for which it is worst.
type LastPassMeasurement struct {
	Kind string
	// Age is how long ago a pass has succeeded; nil where none has.
	Age *time.Duration
	// Lag is how far the listing is behind: that of [KindStatus]. It is 0 where no pass has failed and no run is missing, and a run within its jitter is
	// not missing.
	Lag time.Duration
	// Failing counts the shards whose latest pass has failed, without those that are paused. A kind without shards has one.
	Failing int64
	// Withheld is how many deletions wait for somebody to decide.
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
