package delta

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/workflow"
)

// Config configures a [Client]. Its zero value makes a client that only informs. No duration may be longer than 100 years.
type Config struct {
	// Controllers are the controllers of the kinds that the client works. A client without controllers can inform every
	// kind, but cannot start. With controllers, informing a kind that is not among them is an error.
	Controllers *Controllers

	// Namespaces configures namespaces by name. Start writes it to the database, where it applies to every client: the last
	// client that starts decides. Only MaxWorkers stays in this client. Settings of [Client.SetNamespace] override all of
	// it. Needs Controllers.
	Namespaces map[string]NamespaceConfig

	// Kinds overrides settings of kinds for this environment, such as a lower Parallelism in staging. Each field that is
	// set here, those of RetryPolicy too, replaces the one that the kind's own Settings returned. A zero field leaves the
	// kind's setting, so a CompleteListing cannot be switched off here. A kind that Controllers does not have is refused.
	Kinds map[string]ObjectSettings

	// Temporal is the connection to Temporal. It stays the caller's: Stop does not close it. Give it [TemporalLogger],
	// because the SDK logs each failed attempt at level error otherwise.
	//
	// Defaults to a connection that Start makes, and Stop closes, from the Temporal SDK's environment configuration
	// (TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, TLS and API keys, or a profile in temporal.toml).
	Temporal client.Client

	// TemporalOptions changes the options of the connection that the client makes, after the environment configuration was
	// read and before it connects: interceptors, a MetricsHandler, a data converter with a codec, credentials. It is called
	// whenever the client connects, and by NewClient to find its ContextPropagators if the field ContextPropagators is nil.
	// Start can be tried again, so make outside of it anything that may exist only once. If the environment configuration
	// cannot be read, NewClient calls it with empty options and does not fail, because informs need no Temporal; Start
	// returns the error. It must leave Namespace as it is, which TemporalNamespace sets, and must not empty HostPort. It
	// must not be set together with Temporal, whose options are the caller's.
	//
	// Defaults to nil: the options are those of the environment configuration.
	TemporalOptions func(*client.Options)

	// Logger is the client's logger.
	//
	// Defaults to zap, at level warn and above, to standard output.
	Logger *slog.Logger

	// ErrorHandler is called after the failure of an attempt, or of a pass of an informer, was written: use it to report
	// errors elsewhere. If a worker was lost, the client that takes over its attempt or pass makes the call. Calls come one
	// by one on a separate goroutine, so no attempt waits for them. When 1000 failures, or 32 MiB of them, are queued,
	// further ones are dropped, and counted in the log and by Telemetry. Stop waits a second for the queue. A panic is
	// logged. A pass also fails if its shards cannot be named, or if its run is refused, such as for an unknown shard. An
	// attempt that failed after its resource had gone on without it is a Failure with IsSuperseded.
	//
	// Defaults to nil: failures are in the log, on the row, and in the events.
	ErrorHandler func(ctx context.Context, failure Failure)

	// Middleware is called around each call of a controller's Work, WorkBatch and Finalize, and around each listing. The
	// first one is outermost.
	Middleware []Middleware

	// Telemetry receives the client's measurements, and makes spans of informs, passes and calls of controllers: see the
	// module deltaotel. Its spans are outside of Middleware. It is called from no transaction but the caller's of
	// [Client.InformTx].
	//
	// Defaults to nil: nothing is measured.
	Telemetry Telemetry

	// CountResourcesInterval is how often one client, for all clients, counts resources by kind, namespace and state for
	// Telemetry. A count reads the whole table: about 2 seconds for ten million rows. Only the MaxCountedNamespaces pairs
	// of kind and namespace with the most resources are counted separately. At least 15 seconds; negative: never.
	//
	// Defaults to 5 minutes.
	CountResourcesInterval time.Duration

	// ContextPropagators carry values from the context of an inform to Work and Finalize, as the propagators of a Temporal
	// client carry them to activities. Each inform calls Inject, and Work's context comes from Extract, with the headers
	// that the generation's inform has set: 16 KiB at most, in a separate column that is no part of the object. A
	// generation made by an expiry or a command has none. A WorkBatch gets the headers if all of its resources have the
	// same ones, and none otherwise. An error, or a panic, fails the inform, or the attempt.
	//
	// Defaults to those that TemporalOptions sets when NewClient calls it; an empty slice that is not nil means none. The
	// propagators of Config.Temporal cannot be read from it: give the same ones here.
	ContextPropagators []workflow.ContextPropagator

	// WorkflowIDPrefix begins the ids of all workflows, schedules and task queues, so that several installations can share
	// a Temporal namespace. The first client that starts fixes it for the database. Letters, digits, '_', '-' and '.', at
	// most 127 bytes.
	//
	// Defaults to "delta".
	WorkflowIDPrefix string

	// TemporalNamespace is the namespace in Temporal. If the field Temporal is set, it must be the namespace of that
	// client, which cannot be read from it: search attributes are looked up under this name.
	//
	// Defaults to that of the environment configuration, or "default".
	TemporalNamespace string

	// TaskQueue is the task queue of the worker on which the client's controllers are registered with [Client.Register].
	// Valid UTF-8 without control characters, at most 1000 bytes. Clients of different kinds need different task queues,
	// because any worker that polls one may get a task of any of its kinds. A client that only sends commands for a kind
	// names it too. Running workflows stay on the task queue that they were started on: when it changes, have the old one
	// polled, or terminate them.
	//
	// Defaults to none: Start runs a worker for each kind, on task queues that it names.
	TaskQueue string

	// SharedWorker makes Start run one worker for all kinds, on TaskQueue, which must be set, instead of two workers a
	// kind. A client keeps 12 polls of Temporal open for each kind (8 without an informer), and 32 in all with
	// SharedWorker: a Temporal namespace limits polls. All clients that name the task queue need the same kinds, as with
	// [Client.Register]; Start refuses others. The kinds share one queue of tasks, so a busy kind may delay others.
	// [Client.Register] is not used then. As there, the worker runs any pass that Temporal gives it, even with
	// DisableInformers.
	//
	// Defaults to false: a worker for each kind's resources, and one for its informer.
	SharedWorker bool

	// WorkerVersion makes the workers that Start runs a version of a Temporal worker deployment: Temporal gives them tasks
	// once their version is current, or ramping. Workflows of resources, batches and sources always go on with the current
	// version (auto-upgrade), because they live as long as their resources. Passes do too, unless PinPasses is set. While no
	// version of the deployment is current, all tasks wait: the client logs that at level warn, and the doctor says so, with
	// the command that mends it. Needs a Temporal server with worker deployments (1.28 or later). A worker of the caller's
	// ([Client.Register]) has its own options.
	//
	// Defaults to none: any worker gets tasks.
	WorkerVersion WorkerVersion

	// PinPasses makes each run of an informer end on the version on which it began. Keep the workers of an old version until
	// its runs have ended: a run whose version has no workers waits, and no other run of its kind begins meanwhile. Needs
	// WorkerVersion.
	//
	// Defaults to false: a run goes on with the current version.
	PinPasses bool

	// HashObjectIDs keeps object ids out of Temporal: workflows are named by a salted hash instead, which is HashedID in
	// [deltatype.ResourceRow]. Errors of Work and of informers are kept out too. Names of kinds, namespaces and shards are
	// not: docs/temporal.md lists everything that Temporal stores in clear.
	//
	// All clients of a database must agree, because a resource would have two workflows otherwise: the first client that
	// starts decides, and Start refuses others. To change it, stop all clients, terminate the workflows, and run UPDATE
	// delta_installation SET hash_object_ids = NULL.
	HashObjectIDs bool

	// ObjectCodec encodes objects before they are stored, such as by encryption, and decodes them when this client reads
	// them. Kinds, ids, namespaces, shards, limit keys, parents, tags, metadata, cursors and texts of errors are stored as
	// they are: docs/security.md lists the columns. Temporal stores no objects, except in a user's signal `inform`, for which
	// a codec of Temporal's is. Needs ObjectHashKey.
	//
	// All clients of a database must have the codec, because one without it can neither work encoded objects nor keep
	// others encoded: after the first client with a codec, Start and informs of clients without one fail. Objects that are
	// stored as they are can be read, and are encoded when they change, or by [Client.ReencodeObjects].
	//
	// Defaults to nil: objects are stored as JSON.
	ObjectCodec ObjectCodec

	// ObjectHashKey is a secret, of 32 bytes at least, with which the hashes of objects are made if ObjectCodec is set: a
	// plain hash would let readers of the table try likely objects. It is another key than the codec's, is the same in all
	// clients, and stays when those change, because another key changes every hash, and every object would be synced again.
	ObjectHashKey []byte

	// ResourceWorkTimeout bounds one call of Work, if the controller's ResourceTimeout returns 0. -1 means no bound.
	//
	// Defaults to 1 minute.
	ResourceWorkTimeout time.Duration

	// ControllerInformTimeout bounds one pass of an informer, if the controller's InformTimeout returns 0. -1 means no
	// bound.
	//
	// Defaults to 1 minute.
	ControllerInformTimeout time.Duration

	// DisableInformers makes this client run no informers, and leave their schedules and the informer settings of other
	// clients as they are: for tests, and for clients that only work. RunInform still requests a run, which waits for
	// another client. A worker of the user's on which the client is registered ([Client.Register]) still runs the passes
	// that Temporal gives it. Start warns of kinds with an informer for which no client that runs informers has started
	// yet.
	//
	// Defaults to false.
	DisableInformers bool

	// ResourceInformInterval is how often informers run, if the kind's InformInterval is 0: 1 second at least, in multiples
	// of 10 milliseconds. Negative: never. If clients differ, the one that started last decides.
	//
	// Defaults to 1 hour.
	ResourceInformInterval time.Duration

	// ResourceInformJitter is the longest random delay of a pass by an interval of whole seconds, so that kinds with equal
	// intervals do not all list at once. Negative: none. An InformSchedule has its own Jitter. If clients differ, the one
	// that started last decides.
	//
	// Defaults to a tenth of the interval, and to 30 seconds at most.
	ResourceInformJitter time.Duration

	// DispatchPollInterval is how often a client asks Postgres for due resources of a kind without a notification, give or
	// take half. It finds, for example, the informs of other clients behind a pooler that does not support LISTEN. At least
	// 10 milliseconds, at most 1 hour. Each client asks once for each kind.
	//
	// Defaults to 5 seconds.
	DispatchPollInterval time.Duration

	// MaintenanceJobInterval is how often a client checks whether a Temporal namespace was wiped, or restored, and must be
	// filled again, and whether the database was restored. Every five of these intervals, and after each change of its
	// settings, one of the clients checks that Temporal still has the schedules of a kind.
	//
	// Defaults to 1 minute.
	MaintenanceJobInterval time.Duration

	// ResourceCleanerTimeout bounds each statement of maintenance.
	//
	// Defaults to 30 seconds.
	ResourceCleanerTimeout time.Duration

	// ResourceCleanerInterval has no effect. It is here for ports from Delta on River, whose cleaner looks for rows to
	// remove at that interval; here each row has the time of its removal. Zero or positive.
	ResourceCleanerInterval time.Duration

	// StuckScheduledThreshold has no effect. It is here for ports from Delta on River, which may lose the job of a
	// scheduled resource; here such a row is leased again when its lease has expired, after a minute. Zero or positive.
	StuckScheduledThreshold time.Duration

	// SyncedResourceRetentionPeriod is how long a synced resource is kept before its row is removed, in namespaces without
	// an expiry. Negative: for ever.
	//
	// Defaults to 24 hours, and to for ever for kinds with CompleteListing or a FullListingInterval. Those need the rows:
	// an object that is no longer listed is found by its row, and a listed object without a row would be synced as if it
	// were new.
	SyncedResourceRetentionPeriod time.Duration

	// DegradedResourceRetentionPeriod is how long a degraded resource is kept before its row is removed. Negative: for
	// ever.
	//
	// Defaults to 24 hours.
	DegradedResourceRetentionPeriod time.Duration

	// DeletedResourceRetentionPeriod is how long a deleted resource is kept before its row is removed. Negative: for ever.
	// If informers still list an object that Work or [Client.Delete] deleted, the period, or a tenth less, counts from its
	// latest listing; in a kind with CompleteListing or a FullListingInterval the row also stays until such a listing has
	// left the object out. An object that is listed after its row was removed counts as new. So if listings are only
	// incremental, the period must be longer than the time until an object is listed again: they may name an object only
	// when it changes.
	//
	// Defaults to 24 hours.
	DeletedResourceRetentionPeriod time.Duration

	// ChangeRetentionPeriod is how long entries of the log of changes ([ObjectSettings].Log) are kept. They are removed by
	// days, so up to a day later. If clients differ, the shortest period counts.
	//
	// Defaults to 7 days.
	ChangeRetentionPeriod time.Duration

	// MaxChangeRetentionPeriod is how long entries are kept that a consumer ([Client.ConsumeChanges]) has not handled. A
	// slower consumer gets a *[ChangePositionError]. ChangeRetentionPeriod at least.
	//
	// Defaults to 30 days, or ChangeRetentionPeriod if that is longer.
	MaxChangeRetentionPeriod time.Duration
}

const (
	defaultPrefix              = "delta"
	defaultTimeout             = time.Minute
	defaultInformInterval      = time.Hour
	defaultRetention           = 24 * time.Hour
	defaultMaintenanceInterval = time.Minute
	defaultCleanerTimeout      = 30 * time.Second
	defaultChangeRetention     = 7 * 24 * time.Hour
	defaultMaxChangeRetention  = 30 * 24 * time.Hour
	maxMaxWorkers              = 10_000
	minDispatchPoll            = 10 * time.Millisecond
	maxDispatchPoll            = time.Hour
)

// WithDefaults returns a copy with defaults for all zero fields, except Controllers and the fields of Temporal.
func (c Config) WithDefaults() Config {
	if c.Logger == nil {
		c.Logger = defaultLogger()
	}
	c.Middleware, c.ContextPropagators = slices.Clone(c.Middleware), slices.Clone(c.ContextPropagators)
	setDefault(&c.WorkflowIDPrefix, defaultPrefix)
	setDefault(&c.ResourceWorkTimeout, defaultTimeout)
	setDefault(&c.ControllerInformTimeout, defaultTimeout)
	setDefault(&c.ResourceInformInterval, defaultInformInterval)
	setDefault(&c.DispatchPollInterval, dispatchPoll)
	setDefault(&c.CountResourcesInterval, countEvery)
	setDefault(&c.MaintenanceJobInterval, defaultMaintenanceInterval)
	setDefault(&c.ResourceCleanerTimeout, defaultCleanerTimeout)
	setDefault(&c.SyncedResourceRetentionPeriod, defaultRetention)
	setDefault(&c.DegradedResourceRetentionPeriod, defaultRetention)
	setDefault(&c.DeletedResourceRetentionPeriod, defaultRetention)
	setDefault(&c.ChangeRetentionPeriod, defaultChangeRetention)
	setDefault(&c.MaxChangeRetentionPeriod, max(defaultMaxChangeRetention, c.ChangeRetentionPeriod))

	namespaces := maps.Clone(c.Namespaces)
	for name, n := range namespaces {
		setDefault(&n.SyncedResourceRetentionPeriod, c.SyncedResourceRetentionPeriod)
		setDefault(&n.DegradedResourceRetentionPeriod, c.DegradedResourceRetentionPeriod)
		setDefault(&n.DeletedResourceRetentionPeriod, c.DeletedResourceRetentionPeriod)
		namespaces[name] = n
	}
	c.Namespaces = namespaces
	return c
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
