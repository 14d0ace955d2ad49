package delta

import (
	"context"

	"golang.org/x/sync/semaphore"
)

// namespaceLimits bound concurrent Work by namespace, across kinds.
type namespaceLimits map[string]namespaceLimit

type namespaceLimit struct {
	*semaphore.Weighted
	// free gives one place back.
	free func()
}

func newNamespaceLimits(namespaces map[string]NamespaceConfig) namespaceLimits {
	limits := namespaceLimits{}
	for name, n := range namespaces {
		places := semaphore.NewWeighted(int64(n.MaxWorkers))
		limits[name] = namespaceLimit{places, func() { places.Release(1) }}
	}
	return limits
}

// Acquire waits for a place in a namespace; one that is not configured has no bound.
func (l namespaceLimits) Acquire(ctx context.Context, namespace string) (release func(), err error) {
	limit, ok := l[namespace]
	if !ok {
		return func() {}, nil
	}
	if err := limit.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	return limit.free, nil
}
