package delta

import (
	"time"

	"github.com/chariot-giving/delta/delta/deltatype"
)

// NamespaceDefault is the namespace of objects that name none.
const NamespaceDefault = "default"

// Object is something outside that Delta keeps in sync. It is stored as JSON, as encoding/json makes it. See
// [deltatype.Object] for the rules that ID and Kind follow.
type Object = deltatype.Object

// InformOptions is the argument of [Informer].Inform and [Lister].List: it narrows what a pass lists, for example to
// objects after the cursor. [Client.RunInform] takes one to narrow a run. Its fields are those of
// [deltatype.InformOptions].
type InformOptions = deltatype.InformOptions

// Priorities of resources, for [InformOpts].
const (
	// PriorityLive is the default of objects that a program informs.
	PriorityLive = deltatype.PriorityLive
	// PriorityPeriodic is the default of objects that an informer lists.
	PriorityPeriodic = deltatype.PriorityPeriodic
	// PriorityBackfill is the default of objects that an informer lists although they did not change (ProcessExisting).
	PriorityBackfill = deltatype.PriorityBackfill
)

// ObjectWithRevision is for objects that carry their own version, such as a counter or the time of the last change in
// microseconds, which rises with each change. An inform with a lower revision than the stored one is stale and changes
// nothing, on any path: a listing that was read before a webhook, or two webhooks out of order. With equal revisions the
// hash decides. Every value counts, including 0 and negative ones.
//
// The revision is a column, and is compared in the statement that writes.
type ObjectWithRevision interface {
	Revision() int64
}

// ObjectWithShard is for objects that are listed in parts, such as by the tenants, accounts or regions of an upstream,
// which [Sharder] names: 255 bytes of UTF-8 at most, without control characters. Empty means none: then no listing of a
// shard can detect that the object is gone. A listing of a shard refuses an object that returns another shard, or none.
//
// The shard is a column. It is written whenever the object changes or is informed, even if nothing else changed, so
// everything that informs the kind must set it.
type ObjectWithShard interface {
	Shard() string
}

// ObjectWithLimitKey is for objects whose calls of Work are limited together with those of others, such as all objects of
// one account upstream: [ObjectSettings].KeyConcurrency and KeyRate are the limits. 255 bytes of UTF-8 at most, without
// control characters. Empty means none.
//
// The key is a column. It is written whenever the object changes or is informed, even if nothing else changed.
type ObjectWithLimitKey interface {
	LimitKey() string
}

// Ref names a resource by the kind and the id of its object.
type Ref = deltatype.Ref

// ObjectWithParents is for objects that are of no use before others exist outside, such as a payment before its account.
// Work is not called for a resource until each of its parents was synced once, whatever happens to them later. Until then
// it waits in Postgres, and takes no slot and no workflow; [Client.Explain] names the parent. 16 at most; nil means none.
//
// A parent may be of the same kind or another one, in any namespace, and need not exist yet. If its row was removed after
// its retention, it counts as never synced for resources that have not seen it synced: give the kinds of parents a long
// enough retention of synced resources. Finalize does not wait.
//
// An object whose parents lead back to it is refused with a *[ParentCycleError], even if all of them are informed together.
// Chains are followed for 32 parents. Two informs at the same moment can still make a cycle: then none of its resources is
// worked, and Explain names it.
//
// A later change of a parent does not call Work again, unless [ObjectSettings].TouchedBy says so.
//
// The parents are columns. They are written whenever the object changes or is informed, even if nothing else changed. A
// resource waits for parents that are new to it.
type ObjectWithParents interface {
	Parents() []Ref
}

// ObjectWithVersion is for types whose JSON changes in a way that older programs would misread: the version is stored with
// the object. It must be positive, the same for every value of the type, including the zero value, and rise with such a
// change. Objects that were stored before a type had a version have version 0.
//
// A worker with an older type leaves the resource to a worker that understands it. A worker with a newer type gets the
// object as it was stored, or as the controller's [Upgrader] converts it.
type ObjectWithVersion interface {
	Version() int
}

// ComparableObject is for objects that know better than a hash of their JSON whether they are equal, and which of two is
// older. Compare is called on the object that is informed, or listed, with the stored one. Its sign is that of new minus
// stored:
//
//   - negative: the object is older than the stored one. It is stale, and changes nothing. Do not return it for "differs".
//   - 0: they are equal, and the resource is left alone.
//   - positive: the object is newer, and is written.
//
// The bool reports whether the two can be compared at all. If not, the hash decides, as it does if Compare panics or the
// stored JSON does not decode. An inform reads the row before it writes, and compares again if the row changed meanwhile:
// [ObjectWithRevision] costs less. If an object has both, it is stale if either says so.
type ComparableObject interface {
	Object
	Compare(other Object) (int, bool)
}

// ObjectWithCreatedAt is for objects that know when they were created outside. Informers then continue from the latest
// creation that they have seen, instead of from the time of their last pass. The zero time means unknown; others must be in
// the years 1 to 9999.
type ObjectWithCreatedAt interface {
	CreatedAt() time.Time
}

// ObjectWithInformOpts is for objects that bring their own options. The options of an inform override them.
type ObjectWithInformOpts interface {
	InformOpts() InformOpts
}

// ObjectWithSettings is for kinds with their own settings. Settings is called once, on a zero object, when the controller
// is added.
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

	// InformSchedule is when the informer runs, in place of InformInterval: calendars or cron expressions, in a time zone,
	// with times to skip. It cannot be set together with InformInterval.
	//
	//	&delta.ScheduleSpec{CronExpressions: []string{"30 6 * * MON-FRI"}, TimeZoneName: "Europe/Berlin"}
	//
	// Defaults to nil: InformInterval decides.
	InformSchedule *ScheduleSpec

	// InformOverlap is how far before its cursor a pass of the informer begins: its After is that much earlier. So objects
	// that show up late, or differences between clocks, are not missed if they are smaller than this. Listing an object
	// again costs little. Negative: none.
	//
	// Defaults to 5 minutes.
	InformOverlap time.Duration

	// FullListingInterval is how often everything is listed, with neither After nor Cursor, on a separate schedule beside
	// the incremental passes of InformInterval. Objects that such a listing leaves out are marked deleted, as with
	// CompleteListing. The same holds for any other pass that was given neither After nor Cursor. Rows of synced resources
	// are kept for ever, as with CompleteListing. 1 second at least, in multiples of 10 milliseconds. It cannot be set
	// together with CompleteListing.
	//
	// Defaults to 0: never.
	FullListingInterval time.Duration

	// CompleteListing declares that the informer always lists everything. It gets no After and no Cursor, and objects that
	// a complete pass leaves out are marked deleted, within the bounds of MaxDeleted and MaxDeletedShare. Rows of synced
	// resources are kept for ever, unless a retention is set. An object that such a pass had marked deleted is live again
	// when it is listed again; an object that Work or [Client.Delete] deleted is not.
	CompleteListing bool

	// MaxDeleted is how many resources one pass may mark deleted in any case. If more are missing, and they are more than
	// MaxDeletedShare of all, none is marked: the pass logs an error, counts them in its result (Withheld), and applies the
	// rest. They stay withheld until somebody decides ([Client.ApproveWithheld]). A pass that named no object at all marks
	// at most one deleted, whatever MaxDeleted is, unless MaxDeletedShare is 1: an upstream that answers with an empty list
	// is more often broken than empty. Negative: none.
	//
	// Defaults to 10.
	MaxDeleted int

	// MaxDeletedShare is the share of a kind's resources, from 0 to 1, that one pass may mark deleted. With a very small
	// one, such as 1e-9, only MaxDeleted decides. With 1 a pass may delete everything, even if it named no object at all.
	//
	// Defaults to 0.25.
	MaxDeletedShare float64

	// RetryPolicy sets the backoff after a failed attempt.
	RetryPolicy RetryPolicy

	// DegradedRetryInterval is the time after which a resource that degraded because its attempts were used up is tried
	// again, or up to 5 % less: one attempt each time, until it is synced. Its row is not removed. Many such resources are
	// tried in batches. A resource that Work called hopeless ([ResourceDegrade]) is not tried again. Negative: never.
	//
	// Defaults to 1 hour.
	DegradedRetryInterval time.Duration

	// RateLimit is how many calls of Work may begin a second, in all clients together and in batches too: Postgres stores
	// when the next call may begin. If clients differ, each uses its own rate for the calls that it has reserved.
	//
	// Defaults to 0: no limit.
	RateLimit float64

	// KeyConcurrency is how many resources with the same limit key ([ObjectWithLimitKey]) may be in calls of Work or
	// Finalize at once, in all clients together: for example the concurrency that an upstream allows an account. Each
	// resource in a call of WorkBatch counts. Keys of different kinds are independent. Resources without a key are not
	// limited. A resource whose key is full waits in Postgres, and takes no slot of its kind, its namespace or a worker
	// meanwhile. If a process dies, its resources count until their claims have expired.
	//
	// The limits are those of the client of the kind that has started last. Clients that set neither KeyConcurrency nor
	// KeyRate do not check them.
	//
	// Defaults to 0: no limit.
	KeyConcurrency int

	// KeyRate is how many resources with the same limit key may be claimed a second for calls of Work or Finalize, in all
	// clients together. The calls of a tenth of a second may begin at once.
	//
	// Defaults to 0: no limit.
	KeyRate float64

	// HeartbeatTimeout is how long a worker may be silent before Temporal gives its attempt to another worker, which waits
	// until the claim on the resource has expired: a claim lasts for twice this time, and is renewed in Postgres while Work
	// runs. At least 1 second.
	//
	// Defaults to 10 seconds.
	HeartbeatTimeout time.Duration

	// TouchedBy names kinds of parents ([ObjectWithParents]) whose changes call Work again. When such a parent was synced
	// with another object than before, its children of this kind are touched in the background, as by [Client.Touch], and
	// worked after informed resources. Each child is touched once for each synced version of the parent, however often that
	// changed in between. A child is not touched if it waits for Work anyway, or if its Work has begun since the parent was
	// synced. A parent that was only worked again, because it had expired or was touched itself, touches nothing. A parent
	// whose row was removed meanwhile touches its children when it is synced again, changed or not.
	//
	// The kinds are those of the client that has started last. Only a kind whose objects have Parents can name any.
	//
	// Defaults to nil: a change of a parent does not call Work.
	TouchedBy []string

	// Log appends an entry to the log of changes for each settled step of a resource: created, updated, failed for good,
	// deleted, finalized, revived. [Client.Changes] and [Client.ConsumeChanges] read it. It costs a tenth to a quarter of
	// the speed of batches, and disk for the objects before and after, for as long as [Config].ChangeRetentionPeriod. Work
	// writes entries in clients that set it; for commands and deletions, the client of the kind that has started last
	// decides.
	//
	// Defaults to false: no history is kept.
	Log bool

	// BatchSize is how many resources share a Temporal workflow, at most 10,000. With 1 each resource has its own workflow,
	// which a person can look at. Above 1, resources are synced in batches of up to this size, which is many times faster:
	// for kinds with very many resources, and for upstreams that take many objects at once (see [BatchWorker]). If a few
	// members fail, they go on in workflows of their own.
	//
	// Defaults to 0: Delta decides. As many resources as are worked in about half a second get a workflow each; further due
	// resources are batched, up to 1000 each, and fewer if Work is slow.
	BatchSize int

	// BatchWait is how long a batch waits to be filled. Negative: not at all. At most 1 second.
	//
	// Defaults to 20 milliseconds.
	BatchWait time.Duration
}

// RetryPolicy is the backoff after a failed attempt, in Temporal's words; the number of attempts is InformOpts.MaxAttempts.
//
// Its fields are those of [deltatype.RetryPolicy]: InitialInterval, the wait after the first failure, defaults to 1
// second. BackoffCoefficient, the factor of each further wait, 1 at least, defaults to 3. MaximumInterval, the longest
// wait, is InitialInterval at least and defaults to 30 minutes. Waits are up to a tenth shorter or longer. With these
// defaults, ten attempts take 70 to 86 minutes.
type RetryPolicy = deltatype.RetryPolicy

// InformOpts are the options of one inform by a program: the last argument of [Client.Inform], InformTx, InformMany and
// [Client.Sync]. A zero field keeps the resource's value; a new resource gets the default.
type InformOpts struct {
	// Namespace is the resource's namespace. It is no part of the resource's identity, which is kind and id. Letters,
	// digits, '_', '-' and '.', at most 127 bytes.
	//
	// Defaults to [NamespaceDefault].
	Namespace string

	// MoveNamespace allows the inform to move a resource from another namespace. Otherwise such an object is refused with a
	// *[NamespaceError], because it may belong to another tenant that uses the same id.
	MoveNamespace bool

	// Metadata is a JSON object that is stored with the resource. Valid UTF-8 without NUL characters.
	//
	// Defaults to {}.
	Metadata []byte

	// MaxAttempts is how many times a sync is tried before the resource is degraded.
	//
	// Defaults to 10.
	MaxAttempts int16

	// Priority orders the resources that wait to be synced, from 1, the most urgent, to 5.
	//
	// Defaults to [PriorityLive] for an inform by a program, and to [PriorityPeriodic] for an object that an informer
	// lists.
	Priority int16

	// Force writes the object even if the stored one is newer, by its revision or by Compare: for example after the
	// upstream was restored from a backup.
	Force bool

	// SyncMetadata calls Work even if only Metadata or Tags change. By default these are written, and the resource stays as
	// it is.
	SyncMetadata bool

	// Tags group resources; they have no effect. Each is 3 to 255 characters long: letters, digits, '_' and '-', with no
	// '-' at either end. They replace the resource's tags; an empty, non-nil slice removes them.
	Tags []string
}

// withFallback returns o, with its zero fields taken from under.
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
