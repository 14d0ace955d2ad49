package delta

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"reflect"
)

// Lister lists with an iterator the objects that exist outside. It is optional. If a controller also has an [Informer]'s
// Inform, List is used, because its errors cannot get lost. A controller that embeds [ListerDefaults] needs no Inform.
type Lister[T Object] interface {
	// List yields the objects that the options ask for. A non-nil error fails the pass: the cursor stays, nothing is marked
	// deleted, and the object beside the error is ignored. The pass is complete if the iterator returns without an error,
	// and the context has not ended. The iterator must stop when yield returns false, and when the context ends.
	List(ctx context.Context, options *InformOptions) iter.Seq2[T, error]
}

// ListerDefaults can be embedded in a controller with a List (see [Lister]): it implements [Informer], with the client's
// timeout. Adding a controller that embeds it without a List of the right signature is an error.
type ListerDefaults[T Object] struct{ InformerDefaults[T] }

// Inform is not called for controllers with a List. If a decorator without Unwrap hides the List, the pass fails.
func (ListerDefaults[T]) Inform(context.Context, *InformOptions) (<-chan T, error) {
	return nil, errors.New("Inform was called on a controller that embeds delta.ListerDefaults, so its List cannot be seen: " +
		"give the type that wraps the controller a method Unwrap() any, which returns the controller")
}

func (ListerDefaults[T]) needsLister() {}

// NoInformer can be embedded in a controller of a kind that lists nothing: there is no schedule, and [Client.RunInform] is
// refused. An Inform of the controller is not called.
type NoInformer[T Object] struct{ ListerDefaults[T] }

func (NoInformer[T]) hasNoInformer() {}

// maxUnwraps bounds a chain of decorators, in case one returns itself.
const maxUnwraps = 100

// findInterface finds an optional interface on a controller. A decorator that embeds a Controller hides its other methods,
// so if the outer type lacks the interface and has a method Unwrap() any, the search continues with its result.
func findInterface[I any](controller any) (found I, ok bool) {
	for range maxUnwraps {
		if found, ok = controller.(I); ok {
			return found, true
		}
		outer, wraps := controller.(interface{ Unwrap() any })
		if !wraps {
			break
		}
		controller = outer.Unwrap()
	}
	return found, false
}

// checkLister returns the Lister of a controller, or nothing for one that lists nothing. Neither is set if Inform lists.
func checkLister[T Object](controller Controller[T]) (lister Lister[T], nothing bool, err error) {
	lister, lists := findInterface[Lister[T]](controller)
	if without, ok := findInterface[interface{ hasNoInformer() }](controller); ok {
		if lists {
			return nil, false, fmt.Errorf("%T embeds delta.NoInformer, and %T has a List: a kind that lists nothing has none. Embed delta.ListerDefaults instead, "+
				"or remove List", without, lister)
		}
		return nil, true, nil
	}
	if lists {
		return lister, false, nil
	}
	if needs, ok := findInterface[interface{ needsLister() }](controller); ok {
		return nil, false, fmt.Errorf("%T embeds delta.ListerDefaults, so it must have a method List(context.Context, *delta.InformOptions) %s; %s. "+
			"A controller that has an Inform instead embeds delta.InformerDefaults", needs, reflect.TypeFor[iter.Seq2[T, error]](), describeList(needs))
	}
	return nil, false, nil
}

// describeList describes the List of a controller that has not the right one.
func describeList(controller any) string {
	t := reflect.TypeOf(controller)
	if method, ok := t.MethodByName("List"); ok {
		return fmt.Sprintf("its List is %s", reflect.ValueOf(controller).Method(method.Index).Type())
	}
	if _, ok := reflect.PointerTo(t).MethodByName("List"); ok {
		return fmt.Sprintf("its List has a pointer receiver: add a *%s", t)
	}
	return "it has none"
}
