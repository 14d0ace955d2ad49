package messagedb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
)

// DefaultCacheSize is how many values an [Entity] keeps in memory.
const DefaultCacheSize = 1000

// EntityConfig configures an [Entity], which folds the streams of a category into values. Category is required.
type EntityConfig[T any] struct {
	// Category is the category of the streams.
	Category string
	// New makes the value of a stream without messages. Default: the zero value of T.
	New func() T
	// Fold is called with messages of types that [Fold] was not called for. Default: they are passed over.
	Fold func(value *T, m *Message) error
	// Clone copies a value, so that what a caller does with it does not change the one in the cache. Default: the method Clone() T of T; else
	// values are assigned, which is refused for types with pointers, slices, maps or the like, as these would be shared.
	Clone func(value T) T
	// CacheSize is how many values are kept in memory: those that were used last. -1 keeps none, and needs no Clone.
	// Default: [DefaultCacheSize].
	CacheSize int
	// SnapshotInterval is after how many messages since the last snapshot another one is written, as JSON, when a value is read. All of
	// T must be exported and marshalled. A snapshot is read into the zero value of T, not that of New: what "omitempty" left out is zero then.
	// Default: 0, never.
	SnapshotInterval int
	// SnapshotVersion must be changed whenever T or the folding changes its meaning: snapshots of another version are not used. Default: 0.
	SnapshotVersion int
	// BatchSize is the most messages that one round trip reads. Default: [DefaultBatchSize].
	BatchSize int
	// Logger logs snapshots that could not be used or written, and streams that were replaced. Default: [slog.Default].
	Logger *slog.Logger
}

// WithDefaults returns the configuration with its defaults filled in.
func (c EntityConfig[T]) WithDefaults() EntityConfig[T] {
	if c.New == nil {
		c.New = func() (zero T) { return zero }
	}
	if c.Clone == nil {
		if _, ok := any(*new(T)).(interface{ Clone() T }); ok {
			c.Clone = func(value T) T { return any(value).(interface{ Clone() T }).Clone() }
		}
	}
	if c.CacheSize == 0 {
		c.CacheSize = DefaultCacheSize
	}
	if c.BatchSize == 0 {
		c.BatchSize = DefaultBatchSize
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

func (c EntityConfig[T]) validate() error {
	if err := validCategory(FieldCategory, c.Category); err != nil {
		return err
	}
	switch {
	case c.CacheSize < -1:
		return newInvalidError(FieldCacheSize, c.CacheSize, "must be positive, -1 for no cache, or 0 for the default of 1000")
	case c.SnapshotInterval < 0:
		return newInvalidError(FieldSnapshotInterval, c.SnapshotInterval, "must be positive, or 0 for no snapshots")
	case c.BatchSize < 1:
		return newInvalidError(FieldBatchSize, c.BatchSize, "must be positive, or 0 for the default of 1000")
	}
	if c.CacheSize > 0 && c.Clone == nil {
		if shared := sharedPart[T](); shared != "" {
			return newInvalidError(FieldClone, "nil", "must be a function, because the cache would share "+shared+" with callers; or set CacheSize to -1")
		}
	}
	if c.SnapshotInterval > 0 {
		if lost := unmarshalledPart[T](); lost != "" {
			return newInvalidError(FieldSnapshotInterval, c.SnapshotInterval, "must be 0, because a snapshot in JSON would lose "+lost)
		}
	}
	return nil
}

// Entity folds the streams of a category into values, one for each stream. It keeps the values, and reads only the messages after them.
// It is safe for concurrent use.
type Entity[T any] struct {
	store  Store
	config EntityConfig[T]
	cache  entityCache[T]

	mu     sync.RWMutex
	routes map[string]func(value *T, m *Message) error
	bad    error // what Fold was given that cannot be
}

// NewEntity makes an entity of a store: of a [Client], or of a [Memory] in tests. Register how messages are folded with [Fold]. It returns
// an [*InvalidError] for an invalid configuration, and for a client of [Client.InTx], too: the cache would keep what the transaction may take back. To write
// in a transaction what depends on a value, read the value first, and write with its version as the expected one.
func NewEntity[T any](store Store, config EntityConfig[T]) (*Entity[T], error) {
	if client, ok := store.(*Client); ok && (client == nil || client.tx != nil || client.db == nil) {
		return nil, newInvalidError(FieldStore, "a client of InTx", "must be the client of the pool")
	}
	if store == nil {
		return nil, newInvalidError(FieldStore, "nil", "must be a client or a memory store")
	}
	full := config.WithDefaults()
	if err := full.validate(); err != nil {
		return nil, err
	}
	return &Entity[T]{
		store: store, config: full, cache: newEntityCache[T](full.CacheSize), routes: map[string]func(*T, *Message) error{},
	}, nil
}

// Fold registers how one message type changes the value of its stream; the data comes as a D. It must depend on nothing but the value and the
// message, and may be called again for the same message. Call it before [Entity.Get], which returns an [*InvalidError] if the type is
// empty or is registered already, or if fold is nil.
func Fold[T, D any](e *Entity[T], messageType string, fold func(value *T, data D, m *Message) error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case messageType == "":
		e.bad = newInvalidError(FieldType, "", "must not be empty")
	case fold == nil:
		e.bad = newInvalidError(FieldHandler, "nil", "must be a function")
	case e.routes[messageType] != nil:
		e.bad = newInvalidError(FieldType, messageType, "must not have two functions")
	}
	e.routes[messageType] = func(value *T, m *Message) error {
		data, err := Decode[D](m)
		if err != nil {
			return err
		}
		return fold(value, data, m)
	}
}

// Stream is the stream of an id, which may be a compound one.
func (e *Entity[T]) Stream(id string) (StreamName, error) {
	return ParseStreamName(e.config.Category + StreamNameSeparator + id)
}

// Get reads the value of an id as it is now, and the version of its stream: [NoStreamVersion] and the value of New where there are no
// messages. Give the version to [Client.Write] as the expected one, and the write fails with a [*VersionConflictError] if something else was
// written meanwhile. The value is the caller's own.
//
// A message that cannot be folded gives a [*HandlerError]: nothing is skipped, since a value without it would be wrong.
func (e *Entity[T]) Get(ctx context.Context, id string) (value T, version int64, err error) {
	var none T
	stream, err := e.Stream(id)
	if err != nil {
		return none, 0, err
	}
	if err := e.checkUsable(); err != nil {
		return none, 0, err
	}
	known, err := e.loadKnown(ctx, id, stream)
	if err != nil {
		return none, 0, err
	}
	read, err := e.readOn(ctx, stream, known)
	if err != nil {
		return none, 0, err
	}
	value, version = e.storeRead(ctx, id, stream, read, known)
	return value, version, nil
}

// loadKnown returns the value as it was read before, from the cache or from the newest snapshot.
func (e *Entity[T]) loadKnown(ctx context.Context, id string, stream StreamName) (folded[T], error) {
	if known, cached := e.cache.get(id); cached {
		return known, nil
	}
	return e.loadSnapshot(ctx, stream)
}

// storeRead puts the value that was read into the cache, in place of known, and into a snapshot if one is due. It returns a copy for the caller.
func (e *Entity[T]) storeRead(ctx context.Context, id string, stream StreamName, read, known folded[T]) (value T, version int64) {
	e.takeSnapshot(ctx, stream, &read)
	if e.config.CacheSize > 0 {
		e.cache.put(id, read, known)
	}
	return e.cloneValue(read.value), read.version
}

func (e *Entity[T]) checkUsable() error {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if e.bad == nil && len(e.routes) == 0 && e.config.Fold == nil {
		return newInvalidError(FieldHandler, "none", "there must be one: call Fold or set EntityConfig.Fold")
	}
	return e.bad
}

// cloneValue copies a value that is shared with the cache.
func (e *Entity[T]) cloneValue(value T) T {
	if e.config.CacheSize > 0 && e.config.Clone != nil {
		return e.config.Clone(value)
	}
	return value
}

// folded is a value, and how far the stream was read for it. It is never changed, but replaced.
type folded[T any] struct {
	value    T
	version  int64  // of the stream, NoStreamVersion before the first message
	last     string // the id of the message at that version
	snapshot int64  // the version that the newest snapshot has, NoStreamVersion if there is none
}

func (e *Entity[T]) newFolded() folded[T] {
	return folded[T]{value: e.config.New(), version: NoStreamVersion, snapshot: NoStreamVersion}
}

// errReplaced reports that a stream has another message where the last known one was.
var errReplaced = errors.New("the stream was replaced")

// findBegin returns the position of the last known message. It is read again, to check that the stream is still the same.
func (f folded[T]) findBegin() int64 { return max(f.version, 0) }

// readOn folds the messages after the known value. It starts again from an empty value if the stream was replaced.
func (e *Entity[T]) readOn(ctx context.Context, stream StreamName, known folded[T]) (folded[T], error) {
	read, err := e.foldFrom(ctx, stream, known)
	return e.unlessReplaced(ctx, stream, known, read, err)
}

// unlessReplaced returns the value that was read, or if reading failed because the stream was replaced, the value of the whole stream.
func (e *Entity[T]) unlessReplaced(ctx context.Context, stream StreamName, known, read folded[T], err error) (folded[T], error) {
	if !errors.Is(err, errReplaced) {
		return read, err
	}
	e.config.Logger.Warn("messagedb: a stream is not the one that was read before, and is folded from its beginning: was the store restored?",
		"stream", stream, "version", known.version, "message", known.last)
	return e.foldFrom(ctx, stream, e.newFolded())
}

// foldFrom reads the stream from the last message that is known, and folds what comes behind it.
func (e *Entity[T]) foldFrom(ctx context.Context, stream StreamName, known folded[T]) (folded[T], error) {
	messages, err := e.store.ReadStream(ctx, stream, StreamOptions{From: known.findBegin(), BatchSize: e.config.BatchSize})
	if err != nil {
		return known, err
	}
	return e.foldRead(ctx, stream, known, messages, e.config.BatchSize)
}

// foldRead folds messages that were read from the last known one on. If the batch was full, it reads on.
func (e *Entity[T]) foldRead(ctx context.Context, stream StreamName, known folded[T], messages []*Message, size int) (folded[T], error) {
	if !known.isContinuedBy(messages) {
		return known, errReplaced
	}
	result, shared := known, true // the value may be in the cache
	for {
		for _, m := range messages {
			if m.Position <= known.version {
				continue
			}
			if shared {
				result.value, shared = e.cloneValue(result.value), false
			}
			if err := e.foldOne(&result.value, m); err != nil {
				return known, err
			}
			result.version, result.last = m.Position, m.ID
		}
		if len(messages) < size {
			return result, nil
		}
		size = e.config.BatchSize
		var err error
		messages, err = e.store.ReadStream(ctx, stream, StreamOptions{From: messages[len(messages)-1].Position + 1, BatchSize: size})
		if err != nil {
			return known, err
		}
	}
}

// isContinuedBy reports whether messages that were read from the known version on are of the stream that was read before. They are not if
// another message is in the place of the last one, or if there is none: the store was restored from a backup, or the stream was emptied and
// begun again. Where only later ones are left, the known ones were archived, and what was made of them counts.
func (f folded[T]) isContinuedBy(messages []*Message) bool {
	if f.version == NoStreamVersion {
		return true
	}
	return len(messages) > 0 && (messages[0].Position > f.version || messages[0].ID == f.last)
}

// foldOne folds a message, and turns a panic into an error.
func (e *Entity[T]) foldOne(value *T, m *Message) error {
	e.mu.RLock()
	fold := e.routes[m.Type]
	e.mu.RUnlock()
	if fold == nil {
		fold = e.config.Fold
	}
	if fold == nil {
		return nil
	}
	if err := callRecovering(context.Background(), func(context.Context, *Message) error { return fold(value, m) }, m); err != nil {
		return &HandlerError{Message: m, Attempts: 1, Err: fmt.Errorf("folding into %T: %w", *value, err)}
	}
	return nil
}
