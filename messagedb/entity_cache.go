package messagedb

import (
	"container/list"
	"sync"
)

// entityCache keeps the values that were used last.
type entityCache[T any] struct {
	size  int
	mu    sync.Mutex
	order *list.List // of *cachedValue, the last used first
	byID  map[string]*list.Element
}

type cachedValue[T any] struct {
	id    string
	value folded[T]
}

func newEntityCache[T any](size int) entityCache[T] {
	return entityCache[T]{size: size, order: list.New(), byID: map[string]*list.Element{}}
}

func (c *entityCache[T]) get(id string) (value folded[T], ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	found, ok := c.byID[id]
	if !ok {
		return value, false
	}
	c.order.MoveToFront(found)
	return found.Value.(*cachedValue[T]).value, true
}

// put keeps what was read in place of what was known before. If another reader has put something else there meanwhile, the one that read
// more of the stream is kept. What is there may be ahead of what was read, where the stream was replaced: so versions alone do not decide.
func (c *entityCache[T]) put(id string, read, known folded[T]) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if found, ok := c.byID[id]; ok {
		has := &found.Value.(*cachedValue[T]).value
		if unchanged := has.last == known.last && has.version == known.version; unchanged || has.version < read.version {
			*has = read
		}
		return
	}
	c.byID[id] = c.order.PushFront(&cachedValue[T]{id: id, value: read})
	if c.order.Len() > c.size {
		oldest := c.order.Back()
		c.order.Remove(oldest)
		delete(c.byID, oldest.Value.(*cachedValue[T]).id)
	}
}

// len is how many values are kept.
func (c *entityCache[T]) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.order.Len()
}
