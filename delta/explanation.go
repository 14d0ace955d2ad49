package delta

import (
	"time"

	"github.com/chariot-giving/delta/delta/deltatype"
)

// Explanation says why a resource is not synced now, or that it is. [Client.Explain] makes it.
type Explanation struct {
	// Resource is the row, and At when it was read, by the clock of the database.
	Resource *deltatype.ResourceRow
	At       time.Time
	// Reasons has one reason at least. The first one decides: as long as it holds, the others change nothing.
	Reasons []Reason
	// LastErrors are the latest of Resource.Errors, the latest first: 3 at most.
	LastErrors []deltatype.AttemptError
	// TemporalError is why Temporal was not asked, or did not answer within 4 seconds; nil if it did, and where it was not needed. What only Temporal knows is
	// missing then: which client works the resource, whether any polls its task queue, and how its workflow stands.
	TemporalError error
}

// IsSynced reports whether the resource is synced.
func (e *Explanation) IsSynced() bool { return e.Reasons[0].Code == ReasonSynced }

// Reason is one reason why a resource is not synced now.
type Reason struct {
	// Code names the reason, and stays the same; Text says it in words.
	Code ReasonCode
	Text string
	// Since is since when it holds, Until when it ends by itself at the latest, if nothing else comes between; nil where that is not known.
	Since, Until *time.Time
	// Remedy is what a person can do; empty where there is nothing to do but wait.
	Remedy string
}

// ReasonCode names a reason why a resource is not synced now.
type ReasonCode string

// How a resource stands that waits for nothing, or not only for a call of Work.
const (
	// ReasonSynced says that it is synced, until it expires or is removed.
	ReasonSynced ReasonCode = "synced"
	// ReasonExhausted says that it has degraded because its attempts were used up.
	ReasonExhausted ReasonCode = "attempts_exhausted"
	// ReasonHopeless says that it has degraded because its Work returned ResourceDegrade.
	ReasonHopeless ReasonCode = "hopeless"
	// ReasonDeleted says that it was deleted; its row is kept for a while.
	ReasonDeleted ReasonCode = "deleted"
	// ReasonFinalizing says that it was deleted, and that its Finalizer has not succeeded yet.
	ReasonFinalizing ReasonCode = "finalizing"
	// ReasonUnknownState says that its row is not in a state that Delta works.
	ReasonUnknownState ReasonCode = "unknown_state"
)

// A call of Work, or Finalize, is under way.
const (
	// ReasonInWork says that a client has claimed it.
	ReasonInWork ReasonCode = "in_work"
	// ReasonEarlierCall says that a call for an earlier generation, or one that ignores the end of its context, has to end first.
	ReasonEarlierCall ReasonCode = "earlier_call"
)

// Somebody has to do something.
const (
	// ReasonPaused and ReasonKindPaused say what is paused.
	ReasonPaused     ReasonCode = "paused"
	ReasonKindPaused ReasonCode = "kind_paused"
	// ReasonParent says that it waits for a parent that was never synced ([ObjectWithParents]), or for what that waits for.
	ReasonParent ReasonCode = "parent"
	// ReasonParentCycle says that what it waits for waits for itself: two informs at the same moment have made a cycle of parents.
	ReasonParentCycle ReasonCode = "parent_cycle"
	// ReasonKindUnknown says that no client has started with its kind.
	ReasonKindUnknown ReasonCode = "kind_unknown"
	// ReasonNoWorker says that nobody polls the task queue of its kind.
	ReasonNoWorker ReasonCode = "no_worker"
	// ReasonNoFinalizer says that it waits for Finalize, and that no client which runs has a Finalizer for its kind.
	ReasonNoFinalizer ReasonCode = "no_finalizer"
	// ReasonUndecodable says that the latest worker did not understand its stored object.
	ReasonUndecodable ReasonCode = "undecodable"
	// ReasonNotStarted says that Temporal refuses to start its workflow.
	ReasonNotStarted ReasonCode = "workflow_not_started"
	// ReasonTemporalUnreachable says that Temporal does not answer, or is not this installation's.
	ReasonTemporalUnreachable ReasonCode = "temporal_unreachable"
	// ReasonWorkflowFailing says that tasks of its workflow fail.
	ReasonWorkflowFailing ReasonCode = "workflow_failing"
)

// A time is to pass.
const (
	// ReasonKindSnoozed and ReasonNamespaceSnoozed say that Work has put off its kind or its namespace, ReasonSnoozed that it has put off the
	// resource.
	ReasonKindSnoozed      ReasonCode = "kind_snoozed"
	ReasonNamespaceSnoozed ReasonCode = "namespace_snoozed"
	ReasonSnoozed          ReasonCode = "snoozed"
	// ReasonBackoff says that an attempt has failed, and that the next one waits.
	ReasonBackoff ReasonCode = "backoff"
	// ReasonWorkerLost says that the worker died, or was cut off, in the middle of an attempt.
	ReasonWorkerLost ReasonCode = "worker_lost"
	// ReasonWorkflowGone says that its workflow does not run any more; a dispatcher starts another one.
	ReasonWorkflowGone ReasonCode = "workflow_gone"
)

// It waits for a slot, or for a call that a rate allows.
const (
	// ReasonLimitKey says that its limit key has no slot, or no call, left.
	ReasonLimitKey ReasonCode = "limit_key"
	// ReasonKindRate and ReasonNamespaceRate say that the calls of the RateLimit are reserved for others.
	ReasonKindRate      ReasonCode = "kind_rate"
	ReasonNamespaceRate ReasonCode = "namespace_rate"
	// ReasonNamespaceSlots says that MaxWorkers of its namespace are in work.
	ReasonNamespaceSlots ReasonCode = "namespace_slots"
	// ReasonWorkerSlots says that it waits for a slot of a worker: Parallelism of its kind, or MaxWorkers of its namespace on that client.
	ReasonWorkerSlots ReasonCode = "worker_slots"
	// ReasonInBatch says that it waits for other members of its batch, or for other batches.
	ReasonInBatch ReasonCode = "in_batch"
	// ReasonDue says that it is due, and is to be taken within seconds.
	ReasonDue ReasonCode = "due"
)

// What is worth knowing beside that.
const (
	// ReasonStale says that what listings name is older than what is stored, and not taken.
	ReasonStale ReasonCode = "stale"
	// ReasonRefused says that what a listing named breaks a rule, and is not taken.
	ReasonRefused ReasonCode = "refused"
	// ReasonShardGone says that the controller no longer names its shard: nothing lists it any more.
	ReasonShardGone ReasonCode = "shard_gone"
	// ReasonWithheld says that deletions of its kind, or its shard, are withheld: it may be gone.
	ReasonWithheld ReasonCode = "deletions_withheld"
)
