package delta

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"time"

	"github.com/chariot-giving/delta/activities"
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

// Controllers is the set of controllers of a client. It is not safe for concurrent use: fill it before it is given to
// [NewClient], which copies it.
type Controllers struct {
	byKind map[string]registered
}

// NewControllers returns an empty set.
func NewControllers() *Controllers {
	return &Controllers{byKind: map[string]registered{}}
}

// AddController adds the controller of a type of object, and panics if [AddControllerSafely] returns an error.
func AddController[T Object](controllers *Controllers, controller Controller[T]) {
	if err := AddControllerSafely(controllers, controller); err != nil {
		panic(err)
	}
}

// AddControllerSafely adds the controller of a type of object. It returns an error if the kind already has one, if the kind
// or its settings break a rule, if T is an interface, if the controller embeds [ListerDefaults] without a List of the right
// signature, or if it is a [Sharder] whose objects do not implement [ObjectWithShard].
func AddControllerSafely[T Object](controllers *Controllers, controller Controller[T]) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("delta: adding a controller for %s: Kind and Settings must work on a zero object, but panic: %v",
				reflect.TypeFor[T](), v)
		}
	}()
	if controllers == nil || controllers.byKind == nil {
		return errors.New("delta: controllers is nil: make it with NewControllers")
	}
	if v := reflect.ValueOf(controller); !v.IsValid() || (v.Kind() == reflect.Pointer && v.IsNil()) {
		return fmt.Errorf("delta: the controller for %s is nil", reflect.TypeFor[T]())
	}
	zero, err := zeroObject[T]()
	if err != nil {
		return fmt.Errorf("delta: %w", err)
	}
	kind := zero.Kind()
	if err := checkName("kind", kind); err != nil {
		return fmt.Errorf("delta: controller for %s: %w", reflect.TypeFor[T](), err)
	}
	if there, ok := controllers.byKind[kind]; ok {
		return fmt.Errorf("delta: kind %q has a controller already (for %s)", kind, there.objectType)
	}
	if err := checkMethods(zero); err != nil {
		return fmt.Errorf("delta: controller for kind %q: %w", kind, err)
	}
	own := settingsOf(zero)
	settings, err := own.withDefaults()
	if err != nil {
		return fmt.Errorf("delta: controller for kind %q: %w", kind, err)
	}
	version, err := versionOf(zero)
	if err != nil {
		return fmt.Errorf("delta: controller for kind %q: %w", kind, err)
	}
	lister, nothing, err := checkLister(controller)
	if err != nil {
		return fmt.Errorf("delta: controller for kind %q: %w", kind, err)
	}
	sharder, err := checkSharder(controller, nothing)
	if err != nil {
		return fmt.Errorf("delta: controller for kind %q: %w", kind, err)
	}
	hasParents := reflect.TypeFor[T]().Implements(reflect.TypeFor[ObjectWithParents]())
	if err := settings.checkTouchedBy(hasParents); err != nil {
		return fmt.Errorf("delta: controller for kind %q: %w", kind, err)
	}
	adapter := &controllerAdapter[T]{controller: controller, lister: lister, listsNothing: nothing, sharder: sharder, kind: kind, version: version}
	controllers.byKind[kind] = registered{
		handler:    adapter,
		decode:     adapter.decodeObject,
		own:        own,
		settings:   settings,
		objectType: reflect.TypeFor[T](),
		hasParents: hasParents,
	}
	return nil
}

// comparesAsOriginal has the Compare of every release of Delta on River.
type comparesAsOriginal interface{ Compare(other Object) int }

// optionalMethods are the optional methods of an object. Shard is left to checkSharder: without a Sharder it means nothing.
var optionalMethods = []struct {
	name string
	of   reflect.Type
}{
	{"Compare", reflect.TypeFor[ComparableObject]()},
	{"CreatedAt", reflect.TypeFor[ObjectWithCreatedAt]()},
	{"InformOpts", reflect.TypeFor[ObjectWithInformOpts]()},
	{"LimitKey", reflect.TypeFor[ObjectWithLimitKey]()},
	{"Parents", reflect.TypeFor[ObjectWithParents]()},
	{"Revision", reflect.TypeFor[ObjectWithRevision]()},
	{"Settings", reflect.TypeFor[ObjectWithSettings]()},
	{"Version", reflect.TypeFor[ObjectWithVersion]()},
}

// checkMethods refuses optional methods of an object that have the right name, but would be ignored.
func checkMethods(object Object) error {
	t := reflect.TypeOf(object)
	both := t // a pointer has the methods of both receivers
	if t.Kind() != reflect.Pointer {
		both = reflect.PointerTo(t)
	}
	if both.Implements(reflect.TypeFor[comparesAsOriginal]()) {
		return inputError("Compare", t, "returns int alone, as in the original: make it Compare(other delta.Object) (int, bool), "+
			"with the sign of new minus stored, and false where the two cannot be compared")
	}
	for _, method := range optionalMethods {
		if both.Implements(method.of) && !t.Implements(method.of) {
			return inputError(method.name, t, "has a pointer receiver, but the controller's objects are values: give it a value receiver")
		}
	}
	return nil
}

// registered is one controller with its type erased.
type registered struct {
	handler handler
	// decode decodes a stored object, as the controller does.
	decode decoder
	// own has the settings that the kind itself returns; settings has those in force.
	own, settings ObjectSettings
	objectType    reflect.Type
	// hasParents reports whether objects of the kind may have parents.
	hasParents bool
	// sources feed the kind, by name; nil for none.
	sources map[string]Source
}

const (
	maxParallelism         = 10_000
	maxBatchSize           = 10_000
	maxBatchWait           = time.Second
	minInformInterval      = time.Second // Temporal's
	defaultBatchWait       = 20 * time.Millisecond
	defaultInformOverlap   = 5 * time.Minute
	defaultMaxDeleted      = 10
	defaultMaxDeletedShare = 0.25
	defaultDegradedRetry   = time.Hour
)

// settingsOf returns the settings that a kind itself returns.
func settingsOf(object Object) (s ObjectSettings) {
	if with, ok := object.(ObjectWithSettings); ok {
		s = with.Settings()
	}
	return s
}

// withFallback returns s, with its zero fields taken from under.
func (s ObjectSettings) withFallback(under ObjectSettings) ObjectSettings {
	setFields(reflect.ValueOf(&under).Elem(), reflect.ValueOf(s))
	return under
}

// setFields copies the non-zero fields of a struct to another, and recursively those of structs in it.
func setFields(to, from reflect.Value) {
	for i := range from.NumField() {
		switch field := from.Field(i); {
		case field.Kind() == reflect.Struct:
			setFields(to.Field(i), field)
		case !field.IsZero():
			to.Field(i).Set(field)
		}
	}
}

const (
	// maxKeyConcurrency bounds the rows that Postgres counts for each lease. minKeyRate and maxKeyRate bound the rates that
	// Postgres can express as times.
	maxKeyConcurrency = 10_000
	minKeyRate        = 1e-5
	maxKeyRate        = 1e5
)

// keyLimits reports whether calls are limited by keys.
func (s ObjectSettings) keyLimits() activities.KeyLimits {
	return activities.KeyLimits{Limited: s.KeyConcurrency > 0 || s.KeyRate > 0, Rated: s.KeyRate > 0}
}

// withDefaults checks settings, and returns them with every field set.
func (s ObjectSettings) withDefaults() (ObjectSettings, error) {
	// Each is written so that NaN breaks it.
	for _, rule := range []struct {
		field string
		value any
		holds bool
		rule  string
	}{
		{"Parallelism", s.Parallelism, s.Parallelism >= 0 && s.Parallelism <= maxParallelism, fmt.Sprintf("must be between 1 and %d (or 0, for the default of 1)", maxParallelism)},
		{"BatchSize", s.BatchSize, s.BatchSize >= 0 && s.BatchSize <= maxBatchSize, fmt.Sprintf("must be between 0 and %d", maxBatchSize)},
		{"BatchWait", s.BatchWait, s.BatchWait <= maxBatchWait, fmt.Sprintf("must be at most %s", maxBatchWait)},
		{"MaxDeletedShare", s.MaxDeletedShare, s.MaxDeletedShare >= 0 && s.MaxDeletedShare <= 1, "must be between 0 and 1 (0 is the default of 0.25)"},
		{"RateLimit", s.RateLimit, s.RateLimit >= 0 && s.RateLimit <= math.MaxFloat64, "must be positive, or 0 for no limit"},
		{"KeyConcurrency", s.KeyConcurrency, s.KeyConcurrency >= 0 && s.KeyConcurrency <= maxKeyConcurrency, fmt.Sprintf("must be between 1 and %d, or 0 for no limit", maxKeyConcurrency)},
		{"KeyRate", s.KeyRate, s.KeyRate == 0 || (s.KeyRate >= minKeyRate && s.KeyRate <= maxKeyRate), fmt.Sprintf("must be between %g and %g, or 0 for no limit", minKeyRate, maxKeyRate)},
		{"HeartbeatTimeout", s.HeartbeatTimeout, s.HeartbeatTimeout == 0 || s.HeartbeatTimeout >= time.Second, "must be at least 1s (or 0, for the default of 10s)"},
		{"InformInterval", s.InformInterval, s.InformInterval <= 0 || s.InformInterval >= minInformInterval, "must be at least 1s, negative for never, or 0 for the client's"},
		{"FullListingInterval", s.FullListingInterval, s.FullListingInterval == 0 || s.FullListingInterval >= minInformInterval, "must be at least 1s, or 0 for never"},
		{"FullListingInterval", s.FullListingInterval, s.FullListingInterval == 0 || !s.CompleteListing, "must not be set together with CompleteListing, which lists everything each time"},
		{"RetryPolicy.InitialInterval", s.RetryPolicy.InitialInterval, s.RetryPolicy.InitialInterval >= 0, "must not be negative"},
		{"RetryPolicy.MaximumInterval", s.RetryPolicy.MaximumInterval, s.RetryPolicy.MaximumInterval >= 0, "must not be negative"},
		{"RetryPolicy.BackoffCoefficient", s.RetryPolicy.BackoffCoefficient, s.RetryPolicy.BackoffCoefficient == 0 || s.RetryPolicy.BackoffCoefficient >= 1, "must be at least 1 (or 0, for the default of 3)"},
	} {
		if !rule.holds {
			return s, inputError(rule.field, rule.value, "%s", rule.rule)
		}
		if d, ok := rule.value.(time.Duration); ok {
			if err := checkDuration(rule.field, d); err != nil {
				return s, err
			}
		}
	}
	for field, d := range map[string]time.Duration{"InformOverlap": s.InformOverlap, "DegradedRetryInterval": s.DegradedRetryInterval} {
		if err := checkDuration(field, d); err != nil {
			return s, err
		}
	}
	if err := checkInterval("InformInterval", s.InformInterval); err != nil {
		return s, err
	}
	if err := checkInterval("FullListingInterval", s.FullListingInterval); err != nil {
		return s, err
	}
	if s.InformSchedule != nil {
		if s.InformInterval != 0 {
			return s, inputError("InformInterval", s.InformInterval, "must not be set together with InformSchedule")
		}
		spec, err := canonicalSpec("InformSchedule", *s.InformSchedule)
		if err != nil {
			return s, err
		}
		s.InformSchedule = spec
	}
	setDefault(&s.Parallelism, 1)
	setDefault(&s.BatchWait, defaultBatchWait)
	setDefault(&s.InformOverlap, defaultInformOverlap)
	setDefault(&s.DegradedRetryInterval, defaultDegradedRetry)
	setDefault(&s.MaxDeleted, defaultMaxDeleted)
	setDefault(&s.MaxDeletedShare, defaultMaxDeletedShare)
	s.InformOverlap = max(s.InformOverlap, 0)
	s.MaxDeleted = max(s.MaxDeleted, 0)
	return s, nil
}

// checkTouchedBy checks TouchedBy. hasParents reports whether objects of the kind may have parents.
func (s ObjectSettings) checkTouchedBy(hasParents bool) error {
	if len(s.TouchedBy) > 0 && !hasParents {
		return inputError("TouchedBy", s.TouchedBy, "must be empty: objects of the kind have no Parents (ObjectWithParents)")
	}
	for i, kind := range s.TouchedBy {
		if err := checkName("TouchedBy", kind); err != nil {
			return err
		}
		if slices.Contains(s.TouchedBy[:i], kind) {
			return inputError("TouchedBy", kind, "must name each kind once")
		}
	}
	return nil
}

// zeroObject makes a value of T that methods can be called on: for a pointer type, a pointer to a zero value.
func zeroObject[T Object]() (object T, err error) {
	switch t := reflect.TypeFor[T](); t.Kind() {
	case reflect.Interface:
		return object, fmt.Errorf("%s is an interface: name the object's own type", t)
	case reflect.Pointer:
		return reflect.New(t.Elem()).Interface().(T), nil
	default:
		return object, nil
	}
}

// findKind returns the controller of a kind.
func (c *Controllers) findKind(kind string) (registered, bool) {
	if c == nil {
		return registered{}, false
	}
	found, ok := c.byKind[kind]
	return found, ok
}

// withSettings returns a copy in which the settings of a configuration override the kinds' own.
func (c *Controllers) withSettings(kinds map[string]ObjectSettings) (*Controllers, error) {
	var copied *Controllers
	if c != nil {
		copied = &Controllers{byKind: maps.Clone(c.byKind)}
	}
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		field := fmt.Sprintf("Config.Kinds[%q]", kind)
		found, ok := copied.findKind(kind)
		if !ok {
			return nil, inputError(field, kind, "must be a kind that Config.Controllers has: there are %q", copied.kindNames())
		}
		var err error
		if found.settings, err = kinds[kind].withFallback(found.own).withDefaults(); err == nil {
			err = found.settings.checkTouchedBy(found.hasParents)
		}
		if err != nil {
			if input := new(InputError); errors.As(err, &input) {
				input.Field = field + "." + input.Field
			}
			return nil, err
		}
		copied.byKind[kind] = found
	}
	return copied, nil
}

// kindNames returns the kinds that have a controller, sorted.
func (c *Controllers) kindNames() []string {
	if c == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(c.byKind))
}
