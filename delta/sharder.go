package delta

import (
	"context"
	"fmt"
	"reflect"
	"runtime/debug"
	"slices"
)

// maxShards bounds the shards of a kind, because a run's history in Temporal has all of them.
const maxShards = 1000

// checkSharder returns the Sharder of a controller; nil if the kind is listed as a whole.
func checkSharder[T Object](controller Controller[T], listsNothing bool) (Sharder, error) {
	sharder, ok := findInterface[Sharder](controller)
	if !ok {
		return nil, nil //nolint:nilnil // there is none
	}
	if listsNothing {
		return nil, fmt.Errorf("%T has Shards, and the controller embeds delta.NoInformer: a kind that lists nothing has no shards", sharder)
	}
	t := reflect.TypeFor[T]()
	if t.Implements(reflect.TypeFor[ObjectWithShard]()) {
		return sharder, nil
	}
	rule := "must have a method Shard() string, since its controller names shards: only then is known which listing can find an object gone"
	if t.Kind() != reflect.Pointer && reflect.PointerTo(t).Implements(reflect.TypeFor[ObjectWithShard]()) {
		rule = "has a Shard with a pointer receiver, but the controller's objects are values: give it a value receiver"
	}
	return nil, inputError("Shard", t, "%s", rule)
}

func (a *controllerAdapter[T]) NamesShards() bool { return a.sharder != nil }

func (a *controllerAdapter[T]) Shards(ctx context.Context) (shards []string, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		}
	}()
	named, err := a.sharder.Shards(ctx)
	if err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx) // the shards may be incomplete
	}
	for i, shard := range named {
		if err := checkShard(fmt.Sprintf("Shards[%d]", i), shard); err != nil {
			return nil, err
		}
	}
	named = slices.Compact(slices.Sorted(slices.Values(named)))
	if len(named) > maxShards {
		return nil, inputError("Shards", len(named), "must be at most %d", maxShards)
	}
	return named, nil
}

// checkShard refuses invalid names of shards.
func checkShard(field, shard string) error {
	if shard == "" {
		return inputError(field, shard, "must not be empty")
	}
	return checkKey(field, shard)
}

// checkListedIn refuses an object that returns another shard than the listed one, because only the listing of that shard knows
// whether the object exists.
func (a *controllerAdapter[T]) checkListedIn(listed, said string) error {
	if a.sharder == nil || listed == said {
		return nil
	}
	return inputError("Shard", said, "must be that of the listing that names the object, %q", listed)
}
