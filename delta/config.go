package delta

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/workflow"
)

// Config configures a [Client]. Its zero value is a client that only informs. No duration is longer than 100 years.
type Config struct {
	// Controllers are what the client works with. A client without them can inform, but not start. With them, informing
	// a kind that is not among them is an error.
	Controllers *Controllers

	// Namespaces configures namespaces by name. What is set here is written to the database at Start and holds for every
	// client: the last one that starts decides. MaxWorkers is not: it holds in this client. What [Client.SetNamespace] has set goes before it.
	// Needs Controllers.
	Namespaces map[string]NamespaceConfig

	// Kinds has settings of kinds for this environment, such as a lower Parallelism in staging: each field that is set takes the place of the one
	// that the kind's own Settings returned, and those of RetryPolicy each by itself. A field at zero leaves the kind its own, so a
	// CompleteListing cannot be switched off here. A kind that Controllers does not have is refused.
	Kinds map[string]ObjectSettings

	// Temporal is the connection to Temporal. It stays the caller's: Stop does not close it. Give it [TemporalLogger], or the SDK logs each failed
	// attempt at level error.
	//
	// Defaults to a connection that Start makes, and Stop closes, from the Temporal SDK's environment configuration
	// (TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, TLS and API keys, or a profile in temporal.toml).
	Temporal client.Client

	// TemporalOptions changes the options of the connection that the client makes, after the environment configuration and before it
	// connects: interceptors, a MetricsHandler, a data converter with a codec, credentials. It is called by NewClient, for its ContextPropagators
	// where those below are nil, and whenever the client connects, since Start can be tried again: make what may exist only once outside of it. NewClient
	// does not fail where the environment configuration cannot be read, because informs need no Temporal: the function gets options without it then, and
	// Start returns the error. It must leave Namespace as it is, which TemporalNamespace sets, and HostPort not empty. It must not be set together with Temporal, whose options
	// are the caller's.
	//
	// Defaults to none: the options are those of the environment configuration.
	TemporalOptions func(*client.Options)

	// Logger is where the client logs.
	//
	// Defaults to zap, at level warn and above, to standard output.
	Logger *slog.Logger

	// ErrorHandler is called after an attempt, or a pass of an informer, has failed and that was written: to report it elsewhere. That of an attempt or
	// a pass whose worker was lost comes from the client that takes it up again. Calls come one by one, on a goroutine of their own, so no attempt waits for them; where 1000 wait, or 32 MiB of them, more are dropped, and
	// counted in the log and by Telemetry. Stop waits a second for what is left. A panic is logged. A pass whose shards could not be named has failed, too,
	// and so has a run that is refused, such as of a shard that there is not. An attempt that failed after its resource had gone on without it is
	// a Failure with IsSuperseded.
	//
	// Defaults to nil: failures are in the log, on the row, and in the events.
	ErrorHandler func(ctx context.Context, failure Failure)

	// Middleware is called around every call of a controller's Work, WorkBatch and Finalize, and around every listing, the first one outermost.
	Middleware []Middleware

	// Telemetry takes in what the client measures, and makes spans of informs, of passes and of calls of controllers: see the module deltaotel. Its
	// spans are outside of Middleware. It is not called from any transaction but the caller's of [Client.InformTx].
	//
	// Defaults to nil: nothing is measured.
	Telemetry Telemetry

	// CountResourcesInterval is how often resources are counted by kind, namespace and state for Telemetry, by one client for all. That reads the
	// whole table: 2 seconds or so for ten million rows. Of the pairs of a kind and a namespace the MaxCountedNamespaces with the most resources are
	// counted by themselves. At least 15 seconds; negative: never.
	//
	// Defaults to 5 minutes.
	CountResourcesInterval time.Duration

	// ContextPropagators have values of the context of an inform reach Work and Finalize, as those that are given to a Temporal client have them
	// reach activities. Inject is called by each inform, and Extract before Work, with what the inform of the generation has set: 16 KiB at most, in
	// a column of its own, which is no part of the object. A generation of an expiry or a command carries nothing. A WorkBatch gets the headers that
	// all of its resources have alike, or none. An error, or a panic, fails the inform, or the attempt.
	//
	// Defaults to those that TemporalOptions sets, as NewClient finds them; a slice that is empty and not nil is for none. Those of Temporal cannot be
	// read off a client: give the same here.
	ContextPropagators []workflow.ContextPropagator

	// WorkflowIDPrefix begins the ids of all workflows, schedules and task queues, so that several installations can
	// share a Temporal namespace. The first client that starts fixes it for the database. Letters, digits, '_', '-' and
	// '.', at most 127 bytes.
	//
	// Defaults to "delta".
	WorkflowIDPrefix string

	// TemporalNamespace is the namespace in Temporal. Where the field Temporal is set it has to be that client's, which does not
	// tell it: search attributes are asked for under this name.
	//
	// Defaults to that of the environment configuration, or "default".
	TemporalNamespace string

	// TaskQueue is the task queue of the worker that the client's controllers are registered on with [Client.Register]. Valid
	// UTF-8 without control characters, at most 1000 bytes. Clients of different kinds need different ones: whichever worker polls
	// it is given what is to be done of any kind. A client that only asks for something of a kind names it too. Workflows that
	// run stay on the task queue that they were started on: where it changes, have the old one polled, or terminate them.
	//
	// Defaults to none: Start runs workers of its own, on task queues of their own.
	TaskQueue string

	// SharedWorker has Start run one worker for all kinds, on TaskQueue, which has to be set, instead of two a kind. A client keeps 12 polls
	// of Temporal open for each kind (8 where it has no informer), and with SharedWorker 32 in all: a Temporal namespace has a limit of polls.
	// All clients that name the task queue need the same kinds, as with [Client.Register]: Start refuses others. Kinds share one queue of
	// tasks, so a kind that has many to do may hold up others. [Client.Register] is not used then. As there, DisableInformers does not keep the
	// worker from passes that Temporal gives it.
	//
	// Defaults to false: a worker for each kind's resources, and one for its informer.
	SharedWorker bool

	// HashObjectIDs keeps object ids from Temporal: its workflows are named by a salted hash instead, which
	// [deltatype.ResourceRow] has as HashedID. Errors of Work and of informers are kept from it too. Names of kinds, namespaces and shards are not:
	// docs/temporal.md says what else is there in clear.
	//
	// All clients of a database must agree, or a resource would have two workflows: the first that starts decides, and Start refuses
	// others. To change it, stop all clients, terminate the
	// workflows, and run UPDATE delta_installation SET hash_object_ids = NULL.
	HashObjectIDs bool

	// ResourceWorkTimeout bounds one call of Work, where the controller's ResourceTimeout does not say. -1 means no
	// bound.
	//
	// Defaults to 1 minute.
	ResourceWorkTimeout time.Duration

	// ControllerInformTimeout bounds one pass of an informer, where the controller's InformTimeout does not say. -1
	// means no bound.
	//
	// Defaults to 1 minute.
	ControllerInformTimeout time.Duration

	// DisableInformers has this client run no informers and leave their schedules, and what other clients have set for them, as they are:
	// for tests, and for clients that only work. RunInform still asks for a run, which waits for another client. A worker of the
	// user's own that the client is registered on ([Client.Register]) does run the passes that Temporal gives it. Start warns of kinds that
	// have an informer, and with which no client has started yet that runs them.
	//
	// Defaults to false.
	DisableInformers bool

	// ResourceInformInterval is how often informers run, where the kind's InformInterval does not say: 1 second at least, in multiples of
	// 10 milliseconds. Negative: never. Of clients that differ in it the one that started last decides.
	//
	// Defaults to 1 hour.
	ResourceInformInterval time.Duration

	// ResourceInformJitter is the longest random delay of a pass that an interval of whole seconds asks for, so that kinds with equal intervals do
	// not all list at once. Negative: none. An InformSchedule has a Jitter of its own. Of clients that differ in it the one that started
	// last decides.
	//
	// Defaults to a tenth of the interval, and to 30 seconds at most.
	ResourceInformJitter time.Duration

	// DispatchPollInterval is how often a client asks Postgres for due resources of a kind that no notification named, give or take half: what
	// other clients inform behind a pooler that keeps LISTEN from working, say. At least 10 milliseconds, at most 1 hour. Each client asks
	// once for each kind.
	//
	// Defaults to 5 seconds.
	DispatchPollInterval time.Duration

	// MaintenanceJobInterval is how often a client looks whether Temporal still has its schedules, and whether a Temporal
	// namespace that was wiped has to be filled again.
	//
	// Defaults to 1 minute.
	MaintenanceJobInterval time.Duration

	// ResourceCleanerTimeout bounds each statement of that.
	//
	// Defaults to 30 seconds.
	ResourceCleanerTimeout time.Duration

	// ResourceCleanerInterval has no effect. It is here for ports from Delta on River, whose cleaner looks for rows to remove at that interval;
	// here each row has the time at which it is removed. Zero or positive.
	ResourceCleanerInterval time.Duration

	// StuckScheduledThreshold has no effect. It is here for ports from Delta on River, which may lose the job of a scheduled resource; here
	// such a row is leased again when its lease has passed, after a minute. Zero or positive.
	StuckScheduledThreshold time.Duration

	// SyncedResourceRetentionPeriod is how long a synced resource is kept before its row is removed, in namespaces
	// without an expiry. Negative: for ever.
	//
	// Defaults to 24 hours, and to for ever for kinds with CompleteListing or a FullListingInterval: what is no longer listed is found by its row, and what is
	// listed without one would be synced as if it were new.
	SyncedResourceRetentionPeriod time.Duration

	// DegradedResourceRetentionPeriod is how long a degraded resource is kept before its row is removed. Negative: for
	// ever.
	//
	// Defaults to 24 hours.
	DegradedResourceRetentionPeriod time.Duration

	// DeletedResourceRetentionPeriod is how long a deleted resource is kept before its row is removed. Negative: for
	// ever. What Work or [Client.Delete] deleted and informers still list is kept for that long, or a tenth less, after it was listed last, and, in a kind
	// with CompleteListing or a FullListingInterval, until such a listing has left it out. An object that is listed after its row was removed is
	// new: where listings are incremental only, the period is to be longer than it takes until an object is listed once more. They may
	// name an object only when it changes.
	//
	// Defaults to 24 hours.
	DeletedResourceRetentionPeriod time.Duration

	// ChangeRetentionPeriod is how long entries of the log of changes ([ObjectSettings].Log) are kept. They are removed by days, so up to a day later. Of
	// clients that differ in it the shortest counts.
	//
	// Defaults to 7 days.
	ChangeRetentionPeriod time.Duration

	// MaxChangeRetentionPeriod is how long entries are kept that a consumer ([Client.ConsumeChanges]) has not handled. One that is slower than this gets a
	// *[ChangePositionError]. ChangeRetentionPeriod at least.
	//
	// Defaults to 30 days, or ChangeRetentionPeriod where that is longer.
	MaxChangeRetentionPeriod time.Duration
}

// NamespaceConfig configures a namespace; the zero value leaves everything to defaults. A change by [Config].Namespaces applies the next time a
// resource is synced or its timer fires, and does not wake what is kept for ever, as after a negative retention. [Client.SetNamespace] changes a
// namespace while clients run, wakes what rests, and goes before Config.
type NamespaceConfig struct {
	// MaxWorkers is how many calls of Work run at once in this client for resources of the namespace, of all kinds
	// together. At most 10,000.
	//
	// Defaults to 0: no bound but the Parallelism of the kinds.
	MaxWorkers int

	// RateLimit is how many calls of Work may begin a second for resources of the namespace, of all kinds and all clients together: Postgres has
	// the time at which the next one may. A call that waits for it keeps no slot of its kind.
	//
	// Defaults to 0: no limit.
	RateLimit float64

	// ResourceExpiry is how long after it was synced a resource expires and is synced again, or up to 5 % less: the share differs between
	// resources, or batches, so that those synced together do not expire together. It cannot be set together with
	// SyncedResourceRetentionPeriod.
	//
	// Defaults to 0: never.
	ResourceExpiry time.Duration

	// SyncedResourceRetentionPeriod is how long a synced resource is kept before its row is removed. Negative: for ever.
	//
	// Defaults to the client's. If that is not set either, it differs by kind, as said there.
	SyncedResourceRetentionPeriod time.Duration

	// DegradedResourceRetentionPeriod is how long a degraded resource is kept before its row is removed. Negative: for
	// ever.
	//
	// Defaults to the client's.
	DegradedResourceRetentionPeriod time.Duration

	// DeletedResourceRetentionPeriod is how long a deleted resource is kept before its row is removed. Negative: for
	// ever.
	//
	// Defaults to the client's.
	DeletedResourceRetentionPeriod time.Duration
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

// WithDefaults returns a copy with every field set that was left at zero, but those of Temporal, and Controllers.
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

// syncedRetentions are the retentions of synced resources that a user has set, before defaults.
type syncedRetentions struct {
	client     bool
	namespaces map[string]bool
}

func (c *Config) syncedRetentions() syncedRetentions {
	set := syncedRetentions{client: c.SyncedResourceRetentionPeriod != 0, namespaces: map[string]bool{}}
	for name, n := range c.Namespaces {
		set.namespaces[name] = set.client || n.SyncedResourceRetentionPeriod != 0
	}
	return set
}

// postgresInterval makes a duration one that Postgres keeps the sign of: an interval has microseconds, and -1 would become 0.
func postgresInterval(d time.Duration) time.Duration {
	switch {
	case d < 0:
		return -time.Second
	case d > 0:
		return max(d, time.Microsecond)
	}
	return 0
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// validate checks what the user wrote, before defaults.
func (c Config) validate() error {
	if c.WorkflowIDPrefix != "" {
		if err := checkName("Config.WorkflowIDPrefix", c.WorkflowIDPrefix); err != nil {
			return err
		}
	}
	if err := checkTaskQueue(c.TaskQueue); err != nil {
		return err
	}
	for i, middleware := range c.Middleware {
		if middleware == nil {
			return inputError(fmt.Sprintf("Config.Middleware[%d]", i), nil, "must not be nil")
		}
	}
	switch {
	case c.TemporalOptions != nil && c.Temporal != nil:
		return inputError("Config.TemporalOptions", "a function", "must not be set together with Config.Temporal: give the options to that client as it is dialled")
	case c.SharedWorker && c.TaskQueue == "":
		return inputError("Config.SharedWorker", true, "needs Config.TaskQueue, the name of the task queue that all kinds share")
	case c.CountResourcesInterval > 0 && c.CountResourcesInterval < measureEvery:
		return inputError("Config.CountResourcesInterval", c.CountResourcesInterval, "must be at least %s, negative for never, or 0 for the default", measureEvery)
	case c.DispatchPollInterval != 0 && (c.DispatchPollInterval < minDispatchPoll || c.DispatchPollInterval > maxDispatchPoll):
		return inputError("Config.DispatchPollInterval", c.DispatchPollInterval, "must be between %s and %s, or 0 for the default", minDispatchPoll, maxDispatchPoll)
	}
	const anything = math.MinInt64
	for _, d := range []struct {
		field        string
		value, least time.Duration
		rule         string
	}{
		{"ResourceWorkTimeout", c.ResourceWorkTimeout, -1, "must be positive, 0 for the default, or -1 for no bound"},
		{"ControllerInformTimeout", c.ControllerInformTimeout, -1, "must be positive, 0 for the default, or -1 for no bound"},
		{"MaintenanceJobInterval", c.MaintenanceJobInterval, 0, "must be positive, or 0 for the default"},
		{"ResourceCleanerTimeout", c.ResourceCleanerTimeout, 0, "must be positive, or 0 for the default"},
		{"ChangeRetentionPeriod", c.ChangeRetentionPeriod, 0, "must be positive, or 0 for the default"},
		{"MaxChangeRetentionPeriod", c.MaxChangeRetentionPeriod, 0, "must be positive, or 0 for the default"},
		{"ResourceCleanerInterval", c.ResourceCleanerInterval, 0, "must be positive, or 0: it has no effect"},
		{"StuckScheduledThreshold", c.StuckScheduledThreshold, 0, "must be positive, or 0: it has no effect"},
		{"ResourceInformJitter", c.ResourceInformJitter, anything, ""},
		{"CountResourcesInterval", c.CountResourcesInterval, anything, ""},
		{"ResourceInformInterval", c.ResourceInformInterval, anything, ""},
		{"SyncedResourceRetentionPeriod", c.SyncedResourceRetentionPeriod, anything, ""},
		{"DegradedResourceRetentionPeriod", c.DegradedResourceRetentionPeriod, anything, ""},
		{"DeletedResourceRetentionPeriod", c.DeletedResourceRetentionPeriod, anything, ""},
	} {
		if d.value < d.least {
			return inputError("Config."+d.field, d.value, "%s", d.rule)
		}
		if err := checkDuration("Config."+d.field, d.value); err != nil {
			return err
		}
	}
	if most, keep := c.MaxChangeRetentionPeriod, cmp.Or(c.ChangeRetentionPeriod, defaultChangeRetention); most > 0 && most < keep {
		return inputError("Config.MaxChangeRetentionPeriod", most, "must be at least ChangeRetentionPeriod, which is %s", keep)
	}
	if d := c.ResourceInformInterval; d > 0 && d < minInformInterval {
		return inputError("Config.ResourceInformInterval", d, "must be at least %s, negative for never, or 0 for the default", minInformInterval)
	}
	if err := checkInterval("Config.ResourceInformInterval", c.ResourceInformInterval); err != nil {
		return err
	}
	if len(c.Namespaces) > 0 && len(c.Controllers.kindNames()) == 0 {
		return errors.New("Config.Namespaces needs Config.Controllers: a client without controllers only informs")
	}
	for name, n := range c.Namespaces {
		field := fmt.Sprintf("Config.Namespaces[%q]", name)
		if err := checkName(field, name); err != nil {
			return err
		}
		if err := n.validate(field); err != nil {
			return err
		}
	}
	return nil
}

// validate checks the settings of a namespace that a field names.
func (n NamespaceConfig) validate(field string) error {
	if n.MaxWorkers < 0 || n.MaxWorkers > maxMaxWorkers {
		return inputError(field+".MaxWorkers", n.MaxWorkers, "must be between 1 and %d (or 0, for no bound)", maxMaxWorkers)
	}
	if !(n.RateLimit >= 0 && n.RateLimit <= math.MaxFloat64) { // NaN breaks it
		return inputError(field+".RateLimit", n.RateLimit, "must be positive, or 0 for no limit")
	}
	if n.ResourceExpiry < 0 {
		return inputError(field+".ResourceExpiry", n.ResourceExpiry, "must be positive, or 0 for never")
	}
	if n.ResourceExpiry > 0 && n.SyncedResourceRetentionPeriod != 0 {
		return inputError(field+".SyncedResourceRetentionPeriod", n.SyncedResourceRetentionPeriod,
			"must not be set together with ResourceExpiry (%s): a resource that expires is synced again, not removed", n.ResourceExpiry)
	}
	for period, d := range map[string]time.Duration{
		"ResourceExpiry": n.ResourceExpiry, "SyncedResourceRetentionPeriod": n.SyncedResourceRetentionPeriod,
		"DegradedResourceRetentionPeriod": n.DegradedResourceRetentionPeriod, "DeletedResourceRetentionPeriod": n.DeletedResourceRetentionPeriod,
	} {
		if err := checkDuration(field+"."+period, d); err != nil {
			return err
		}
	}
	return nil
}
