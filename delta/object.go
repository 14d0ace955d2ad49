package delta

import (
	"time"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// NamespaceDefault is the namespace of objects that name none.
const NamespaceDefault = "default"

// Object is something outside that is to be kept in line. It is stored as JSON, as encoding/json makes it. See
// [deltatype.Object] for the rules that ID and Kind follow.
type Object = deltatype.Object

// InformOptions narrow what an informer lists.
type InformOptions = deltatype.InformOptions

// Priorities of resources, for [InformOpts].
const (
	// PriorityLive is that of what a program informs.
	PriorityLive = deltatype.PriorityLive
	// PriorityPeriodic is that of what an informer lists.
	PriorityPeriodic = deltatype.PriorityPeriodic
	// PriorityBackfill is that of what an informer lists again although it did not change (ProcessExisting).
	PriorityBackfill = deltatype.PriorityBackfill
)

// ObjectWithRevision is for objects that carry their own version, such as a counter or the time of the last change in
// microseconds, which rises with each change. An inform with a lower revision than the stored one is stale and changes nothing,
// whichever way it comes: a listing that was read before a webhook, or two webhooks out of order. With the same revision, the hash
// decides. Every value counts, 0 and negative ones too.
//
// The revision is a column, and is compared in the statement that writes.
type ObjectWithRevision interface {
	Revision() int64
}

// ObjectWithShard is for objects that are listed by the parts of the outside world that they belong to, such as the tenants, accounts or regions
// of an upstream, which [Sharder] names: 255 bytes of UTF-8 at most, without control characters. Empty means none: then no listing of a shard
// can find the object gone. In a listing of a shard, an object that says another one, or none, is refused.
//
// The shard is a column. It is written when the object changes or is informed, also if nothing else changed, so whatever informs a kind has to
// say it.
type ObjectWithShard interface {
	Shard() string
}

// ObjectWithLimitKey is for objects whose calls of Work are limited together with those of others, such as all of one account of the
// upstream's: [ObjectSettings].KeyConcurrency and KeyRate say how. 255 bytes of UTF-8 at most, without control characters. Empty means none.
//
// The key is a column. It is written when the object changes or is informed, also if nothing else changed.
type ObjectWithLimitKey interface {
	LimitKey() string
}

// Ref names a resource by the kind and the id of its object.
type Ref = deltatype.Ref

// ObjectWithParents is for objects that are of no use before others exist outside, such as a payment before its account. Work is not called for a resource before
// each of its parents was synced once, whatever becomes of them later. Until then it waits in Postgres, and takes no slot and no workflow;
// [Client.Explain] says what for. 16 at most; nil means none.
//
// A parent may be of the same kind or another one, in any namespace, and need not be there yet. One whose row was removed after its retention
// counts as never synced, for resources that have not seen it synced: give the kinds of parents a SyncedRetention that is long enough. Finalize
// does not wait.
//
// An object whose parents lead back to it is refused with a *[ParentCycleError], also if all of them are informed together. Chains are followed for
// 32 parents. Two informs at the same moment can still make a cycle: then none of its resources is worked, and Explain names it.
//
// That a parent changes later is no reason to call Work, unless [ObjectSettings].TouchedBy says so.
//
// The parents are columns. They are written when the object changes or is informed, also if nothing else changed. A resource waits for those that are
// new to it.
type ObjectWithParents interface {
	Parents() []Ref
}

// ObjectWithVersion is for types whose JSON changes in a way that older programs would misread: the version is stored with it. It must be the same
// for every value of the type, the zero value included, and rises with such a change; it is positive. What was stored before a type had a version
// has version 0.
//
// A worker whose type is older than a stored object leaves its resource to one that understands it. A newer one is given what it stored
// itself, or what the controller's [Upgrader] makes of an older object.
type ObjectWithVersion interface {
	Version() int
}

// ComparableObject is for objects that know better than a hash of their JSON whether they are the same, and which of two is older. Compare
// is called on the object that is informed, or listed, with the stored one; the sign is that of new minus stored:
//
//   - negative: the object is older than the stored one. It is stale, and changes nothing. Do not return it for "differs".
//   - 0: they are the same, and the resource is left alone.
//   - positive: the object is newer, and is written.
//
// The bool says whether the two can be compared at all: if not, the hash decides, as it does if Compare panics, or if the stored JSON does not
// decode. An inform reads the row before it writes, and looks again if the row changed meanwhile: [ObjectWithRevision] costs less. Of an
// object that has both, either can say that it is older.
type ComparableObject interface {
	Object
	Compare(other Object) (int, bool)
}

// ObjectWithCreatedAt is for objects that know when they were created outside. Informers then go on from the latest
// creation that they have seen, instead of from the time of their last pass. The zero time means unknown; others are in the
// years 1 to 9999.
type ObjectWithCreatedAt interface {
	CreatedAt() time.Time
}

// ObjectWithInformOpts is for objects that bring options of their own. Those given to an inform win over them.
type ObjectWithInformOpts interface {
	InformOpts() InformOpts
}

// ObjectWithSettings is for kinds with settings of their own. The method is called once, on a zero object, when the
// controller is added.
type ObjectWithSettings interface {
	Settings() ObjectSettings
}

// ObjectSettings are the settings of a kind.
type ObjectSettings struct {
	// Parallelism is how many calls of Work for this kind run at once in one client, 10,000 at most.
	//
	// Defaults to 1.
	Parallelism int

	// InformInterval is how often the informer runs, 1 second at least, in multiples of 10 milliseconds. Negative: never.
	//
	// Defaults to the client's ResourceInformInterval.
	InformInterval time.Duration

	// InformSchedule is when the informer runs, where an interval does not say it: calendars or cron expressions, in a time zone, with
	// times to skip. It cannot be set together with InformInterval.
	//
	//	&delta.ScheduleSpec{CronExpressions: []string{"30 6 * * MON-FRI"}, TimeZoneName: "Europe/Berlin"}
	//
	// Defaults to nil: InformInterval says when.
	InformSchedule *ScheduleSpec

	// InformOverlap is how far before its cursor a pass of the informer begins: the After that it is given is that much
	// earlier. Objects that show up later than they were created, by less than this, are not missed; nor are any if the
	// clocks differ by less. Listing an object again costs little. Negative: none.
	//
	// Defaults to 5 minutes.
	InformOverlap time.Duration

	// FullListingInterval is how often everything is listed, beside the incremental passes of InformInterval, on a schedule of its own: with
	// neither After nor Cursor. What such a listing leaves out is marked deleted, as with CompleteListing, and so it is after any other
	// pass that was given neither. Rows of synced resources are kept for ever, as with CompleteListing. 1 second at least, in multiples of
	// 10 milliseconds. It cannot be set together with CompleteListing.
	//
	// Defaults to 0: never.
	FullListingInterval time.Duration

	// CompleteListing says that the informer always lists all there is: it is given no After and no Cursor, and what a complete pass
	// leaves out is marked deleted, within the bounds of MaxDeleted and MaxDeletedShare. Rows of synced resources are kept for ever, unless a
	// retention is set. What such a
	// pass had marked deleted, and is listed again, is live again; what Work or [Client.Delete] deleted is not.
	CompleteListing bool

	// MaxDeleted is how many resources one pass may mark deleted in any case. If more are missing, and they are more than
	// MaxDeletedShare of all, none is: the pass logs an error, says so in its result (withheld), and applies the rest. It is shown
	// until somebody has decided ([Client.ApproveWithheld]). A pass that named no object at all marks one deleted at most, whatever
	// MaxDeleted says, unless MaxDeletedShare is 1: an upstream that answers an empty list is more often broken than empty. Negative: none.
	//
	// Defaults to 10.
	MaxDeleted int

	// MaxDeletedShare is the share of a kind's resources, from 0 to 1, that one pass may mark deleted. A very small one, such as
	// 1e-9, leaves MaxDeleted alone to decide. 1 lets a pass delete everything, also one that named no object at all.
	//
	// Defaults to 0.25.
	MaxDeletedShare float64

	// RetryPolicy says how long to wait after a failed attempt.
	RetryPolicy RetryPolicy

	// DegradedRetryInterval is after what time a resource is tried again that has degraded because its attempts were used up, or up to 5 %
	// less: one attempt, each time, until it is synced. Its row is not removed. Those that are many are tried in batches. What Work said is
	// hopeless ([ResourceDegrade]) is not tried again. Negative: never.
	//
	// Defaults to 1 hour.
	DegradedRetryInterval time.Duration

	// RateLimit is how many calls of Work may begin a second, of all clients together, in batches too: Postgres has the time at which
	// the next one may. Clients that differ in it each take what they have reserved.
	//
	// Defaults to 0: no limit.
	RateLimit float64

	// KeyConcurrency is how many resources with one limit key ([ObjectWithLimitKey]) may be in calls of Work or Finalize at once, of all clients
	// together: one that an upstream allows for an account, say. Each resource in a call of WorkBatch counts. A key is within its kind: those of
	// other kinds have nothing to do with it. What has no key is not limited. A resource whose key is full waits in Postgres, and takes no slot
	// of its kind, its namespace or a worker meanwhile. If a process dies, what it had claimed counts until the claims have passed.
	//
	// The limits are those of the client of the kind that has started last. Clients that set neither KeyConcurrency nor KeyRate do not ask.
	//
	// Defaults to 0: no limit.
	KeyConcurrency int

	// KeyRate is how many resources with one limit key may be claimed for a call of Work or Finalize a second, of all clients together. What a
	// tenth of a second allows may begin at once.
	//
	// Defaults to 0: no limit.
	KeyRate float64

	// HeartbeatTimeout is how long a worker may be silent before Temporal gives its attempt to another one, which waits until the claim on
	// the resource has passed: a claim lasts for twice this time, and is renewed in Postgres while Work runs. At least 1 second.
	//
	// Defaults to 10 seconds.
	HeartbeatTimeout time.Duration

	// TouchedBy names kinds of parents ([ObjectWithParents]) whose changes have Work called again: when such a parent was synced with another object than before, its children of
	// this kind are touched, as by [Client.Touch], in the background, and worked after what is informed. Each is touched once for each version of the parent that was synced,
	// however often that changed in between. What waits for Work anyway, and what has begun since the parent was synced, is not touched. A parent that was only worked again, because
	// it had expired or was touched itself, touches nothing. One whose row was removed meanwhile touches its children when it is synced again, changed or not.
	//
	// The kinds are those of the client that has started last. Only a kind whose objects have Parents can name any.
	//
	// Defaults to nil: that a parent changes is no reason to call Work.
	TouchedBy []string

	// Log appends an entry to the log of changes for each settled step of a resource: created, updated, failed for good, deleted, finalized, revived.
	// [Client.Changes] and [Client.ConsumeChanges] read it. It costs a tenth to a quarter of the speed of batches, and disk for the objects before and
	// after, for as long as [Config].ChangeRetentionPeriod. Work writes entries on clients that set it; for commands and deletions, the client of the kind that
	// has started last decides.
	//
	// Defaults to false: nothing is kept of what a resource was.
	Log bool

	// BatchSize is how many resources share a Temporal workflow, at most 10,000. 1 is a workflow for each, in which a person can see it.
	// Above 1, resources are synced in batches of up to so many, which is many times faster: for kinds with very many resources, and for
	// upstreams that take many objects at once (see [BatchWorker]). A few that fail go on in workflows of their own.
	//
	// Defaults to 0: Delta decides. A few resources get a workflow each, as many as are worked in about half a second; what is due beyond
	// that is batched, up to 1000 each, and fewer where Work is slow.
	BatchSize int

	// BatchWait is how long a batch waits to be filled. Negative: not at all. At most 1 second.
	//
	// Defaults to 20 milliseconds.
	BatchWait time.Duration
}

// RetryPolicy says how long to wait after an attempt that failed, in Temporal's words; how often is InformOpts.MaxAttempts. It has
// InitialInterval, the wait after the first failure, which defaults to 1 second; BackoffCoefficient, by which each further wait is
// longer, 1 at least, which defaults to 3; and MaximumInterval, which defaults to 30 minutes and is InitialInterval at least. Waits
// are up to a tenth shorter or longer. With these defaults, ten attempts last for 70 to 86 minutes.
type RetryPolicy = activities.RetryPolicy

// InformOpts are options of a resource. A zero field leaves the resource what it has; a new resource gets the default.
type InformOpts struct {
	// Namespace is where the resource belongs. It is no part of what identifies the resource: kind and id are. Letters, digits, '_', '-' and '.', at most 127 bytes.
	//
	// Defaults to [NamespaceDefault].
	Namespace string

	// MoveNamespace lets the inform move a resource that is in another namespace. Otherwise such an object is refused, with a
	// *[NamespaceError]: it may be another tenant's that has the same id.
	MoveNamespace bool

	// Metadata is a JSON object, stored with the resource. Valid UTF-8 without NUL characters.
	//
	// Defaults to {}.
	Metadata []byte

	// MaxAttempts is how many times a sync is tried before the resource is degraded.
	//
	// Defaults to 10.
	MaxAttempts int16

	// Priority orders what waits to be synced, from 1, the most urgent, to 5.
	//
	// Defaults to [PriorityLive] for what is informed, [PriorityPeriodic] for what an informer lists.
	Priority int16

	// Force writes the object although the stored one is newer, by its revision or by Compare: after the upstream was restored from a
	// backup, say.
	Force bool

	// SyncMetadata has Work called when nothing but Metadata or Tags changes. By default these are written, and the resource stays as it is.
	SyncMetadata bool

	// Tags group resources; they have no effect. Each is at least three characters and at most 255 long, letters,
	// digits, '_' and '-', with no '-' at either end. They replace the resource's tags; an empty, non-nil slice removes
	// them.
	Tags []string
}

// withFallback returns the options with what is not set taken from another set.
func (o InformOpts) withFallback(under InformOpts) InformOpts {
	if o.Namespace == "" {
		o.Namespace = under.Namespace
	}
	o.MoveNamespace = o.MoveNamespace || under.MoveNamespace
	if o.Metadata == nil {
		o.Metadata = under.Metadata
	}
	if o.MaxAttempts == 0 {
		o.MaxAttempts = under.MaxAttempts
	}
	if o.Priority == 0 {
		o.Priority = under.Priority
	}
	if o.Tags == nil {
		o.Tags = under.Tags
	}
	o.Force = o.Force || under.Force
	o.SyncMetadata = o.SyncMetadata || under.SyncMetadata
	return o
}
