package delta

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
)

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
