package delta

import (
	"time"

	"github.com/chariot-giving/delta/delta/deltatype"
)

// Explanation is the result of [Client.Explain]: why a resource is not synced now, or that it is.
type Explanation struct {
	// Resource is the row; At is when it was read, by the clock of the database.
	Resource *deltatype.ResourceRow
	At       time.Time
	// Reasons has at least one reason. The first one decides: while it holds, the others change nothing.
	Reasons []Reason
	// LastErrors are the latest of Resource.Errors, the latest first: 3 at most.
	LastErrors []deltatype.AttemptError
	// TemporalError is why Temporal was not asked, or did not answer within 4 seconds; nil if it answered or was not
	// needed. The explanation then lacks what only Temporal knows: which client works the resource, whether any polls its
	// task queue, and the status of its workflow.
	TemporalError error
}

// IsSynced reports whether the resource is synced.
func (e *Explanation) IsSynced() bool { return e.Reasons[0].Code == ReasonSynced }

// Reason is one reason why a resource is not synced now.
type Reason struct {
	// Code identifies the reason, and never changes; Text describes it.
	Code ReasonCode
	Text string
	// Since is when it began. Until is when it ends by itself at the latest, if nothing else intervenes. Nil if unknown.
	Since, Until *time.Time
	// Remedy is an instruction for a person; empty if there is nothing to do but wait.
	Remedy string
}

// ReasonCode identifies a reason why a resource is not synced now.
type ReasonCode string

// Reasons in the state of a resource that does not only wait for a call of Work.
const (
	// ReasonSynced: it is synced, until it expires or is removed.
	ReasonSynced ReasonCode = "synced"
	// ReasonExhausted: it has degraded because its attempts were used up.
	ReasonExhausted ReasonCode = "attempts_exhausted"
	// ReasonHopeless: it has degraded because its Work returned ResourceDegrade.
	ReasonHopeless ReasonCode = "hopeless"
	// ReasonDeleted: it was deleted; its row is kept for a while.
	ReasonDeleted ReasonCode = "deleted"
	// ReasonFinalizing: it was deleted, and its Finalizer has not succeeded yet.
	ReasonFinalizing ReasonCode = "finalizing"
	// ReasonUnknownState: its row is in a state that Delta does not work.
	ReasonUnknownState ReasonCode = "unknown_state"
)

// A call of Work, or Finalize, runs.
const (
	// ReasonInWork: a client has claimed it.
	ReasonInWork ReasonCode = "in_work"
	// ReasonEarlierCall: a call for an earlier generation, or one that ignores the end of its context, must end first.
	ReasonEarlierCall ReasonCode = "earlier_call"
)

// Somebody must do something.
const (
	// ReasonPaused and ReasonKindPaused: the resource, or its kind, is paused.
	ReasonPaused     ReasonCode = "paused"
	ReasonKindPaused ReasonCode = "kind_paused"
	// ReasonParent: it waits for a parent that was never synced ([ObjectWithParents]), or for an ancestor of that.
	ReasonParent ReasonCode = "parent"
	// ReasonParentCycle: it waits for itself, because two informs at the same moment have made a cycle of parents.
	ReasonParentCycle ReasonCode = "parent_cycle"
	// ReasonKindUnknown: no client has started with its kind.
	ReasonKindUnknown ReasonCode = "kind_unknown"
	// ReasonNoWorker: no worker polls the task queue of its kind.
	ReasonNoWorker ReasonCode = "no_worker"
	// ReasonNoFinalizer: it waits for Finalize, and no running client has a Finalizer for its kind.
	ReasonNoFinalizer ReasonCode = "no_finalizer"
	// ReasonUndecodable: the latest worker did not understand its stored object.
	ReasonUndecodable ReasonCode = "undecodable"
	// ReasonNotStarted: Temporal refuses to start its workflow.
	ReasonNotStarted ReasonCode = "workflow_not_started"
	// ReasonTemporalUnreachable: Temporal does not answer, or its prefix belongs to another installation.
	ReasonTemporalUnreachable ReasonCode = "temporal_unreachable"
	// ReasonWorkflowFailing: tasks of its workflow fail.
	ReasonWorkflowFailing ReasonCode = "workflow_failing"
)

// It waits for a time.
const (
	// ReasonKindSnoozed, ReasonNamespaceSnoozed and ReasonSnoozed: Work has put off its kind, its namespace, or the
	// resource itself.
	ReasonKindSnoozed      ReasonCode = "kind_snoozed"
	ReasonNamespaceSnoozed ReasonCode = "namespace_snoozed"
	ReasonSnoozed          ReasonCode = "snoozed"
	// ReasonBackoff: an attempt has failed, and the next one waits.
	ReasonBackoff ReasonCode = "backoff"
	// ReasonWorkerLost: the worker died, or was cut off, in the middle of an attempt.
	ReasonWorkerLost ReasonCode = "worker_lost"
	// ReasonWorkflowGone: its workflow no longer runs; a dispatcher starts another one.
	ReasonWorkflowGone ReasonCode = "workflow_gone"
)

// It waits for a slot, or for a rate to allow a call.
const (
	// ReasonLimitKey: its limit key has no slot, or no call, left.
	ReasonLimitKey ReasonCode = "limit_key"
	// ReasonKindRate and ReasonNamespaceRate: the next calls of the RateLimit are reserved for others.
	ReasonKindRate      ReasonCode = "kind_rate"
	ReasonNamespaceRate ReasonCode = "namespace_rate"
	// ReasonNamespaceSlots: MaxWorkers of its namespace are claimed.
	ReasonNamespaceSlots ReasonCode = "namespace_slots"
	// ReasonWorkerSlots: it waits for a slot of a worker: Parallelism of its kind, or MaxWorkers of its namespace in that
	// client.
	ReasonWorkerSlots ReasonCode = "worker_slots"
	// ReasonInBatch: it waits for other members of its batch, or for other batches.
	ReasonInBatch ReasonCode = "in_batch"
	// ReasonDue: it is due, and is to be taken within seconds.
	ReasonDue ReasonCode = "due"
)

// Further facts, which do not decide.
const (
	// ReasonStale: listings return an older version than the stored one, which is not taken.
	ReasonStale ReasonCode = "stale"
	// ReasonRefused: its object in a listing breaks a rule, and is not taken.
	ReasonRefused ReasonCode = "refused"
	// ReasonShardGone: the controller no longer names its shard, so nothing lists it.
	ReasonShardGone ReasonCode = "shard_gone"
	// ReasonWithheld: deletions of its kind, or its shard, are withheld: it may be gone.
	ReasonWithheld ReasonCode = "deletions_withheld"
)
