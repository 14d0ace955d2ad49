package bridge

import (
	"context"
	"errors"
	"fmt"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/messagedb"
)

// ErrorPolicy decides what a [Category] does with a stream if its messages cannot be folded into its object.
type ErrorPolicy string

// The policies.
const (
	// ErrorRefuse refuses the object ([delta.Client.Refused], `delta doctor`), leaves its resource as it is, and goes on with the other streams. The stream is tried
	// again with each of its new messages, and when a client begins to run the source, such as one with a new version of the program.
	ErrorRefuse ErrorPolicy = "refuse"
	// ErrorStop stops the source at the first such stream: it fails, which [delta.Client.Sources] shows, and tries again until the program or the store is mended.
	ErrorStop ErrorPolicy = "stop"
)

// CategoryConfig says which category of Message DB the objects of a kind are folded from. Only Client and Entity are required.
type CategoryConfig[T delta.Object] struct {
	// Client reads the messages. Its store may be in another database than Delta's. It must be the primary server's: a standby may lack what was read before.
	Client *messagedb.Client

	// Entity folds the messages of a stream into its object, and names the category. Make it with messagedb.NewEntity and the same client, and give it a
	// messagedb.Fold for each type of message. The ID of an object has to be the id of its stream, which a fold finds in the name of the message's stream. A message that changes nothing
	// of the object leads to nothing.
	Entity *messagedb.Entity[T]

	// IsGone reports whether an object is gone, such as an account that was closed: its resource is deleted, and finalized if the worker has a
	// [delta.Finalizer]. A later message may bring it back.
	//
	// Defaults to none. That a stream has no messages any more says nothing: they may have been archived.
	IsGone func(object T) bool

	// Version has all streams be folded again when it is another one than before: raise it when the folding or IsGone means something else.
	Version int

	// ErrorPolicy decides about a stream if its messages cannot be folded: one does not decode, a fold returns an error or panics, or the object has
	// another ID than its stream.
	//
	// Defaults to ErrorRefuse.
	ErrorPolicy ErrorPolicy

	// Rewind decides what happens when the store has gone back behind the position, because it was emptied or restored from a backup:
	// with messagedb.RewindStop the source fails, and with messagedb.RewindRestart it begins again at the first message. If a stream is gone, its resource stays as it is.
	//
	// Defaults to messagedb.RewindStop.
	Rewind messagedb.RewindPolicy

	// BatchSize is how many messages are read, and written as one page, at most. 1 to 10000.
	//
	// Defaults to 1000.
	BatchSize int

	// Polling is how it polls, and Notify lets writes of clients that notify wake it; see [messagedb.SubscriptionOptions].
	//
	// Polling defaults to that of Client, and Notify to false.
	Polling messagedb.PollingStrategy
	Notify  bool
}

// maxBatchSize bounds what is held in memory.
const maxBatchSize = 10_000

// WithDefaults returns a copy with every field set that was left at zero.
func (c CategoryConfig[T]) WithDefaults() CategoryConfig[T] {
	if c.IsGone == nil {
		c.IsGone = func(T) bool { return false }
	}
	if c.ErrorPolicy == "" {
		c.ErrorPolicy = ErrorRefuse
	}
	if c.Rewind == "" {
		c.Rewind = messagedb.RewindStop
	}
	if c.BatchSize == 0 {
		c.BatchSize = pageSize
	}
	return c
}

func (c CategoryConfig[T]) validate() error {
	switch {
	case c.Client == nil:
		return newInvalidError("Client", "nil", "must be the client of the store")
	case c.Entity == nil:
		return newInvalidError("Entity", "nil", "must say how messages are folded: make it with messagedb.NewEntity")
	case c.ErrorPolicy != ErrorRefuse && c.ErrorPolicy != ErrorStop:
		return newInvalidError("ErrorPolicy", c.ErrorPolicy, "must be ErrorRefuse or ErrorStop, or empty for ErrorRefuse")
	case c.Rewind != messagedb.RewindStop && c.Rewind != messagedb.RewindRestart:
		return newInvalidError("Rewind", c.Rewind, "must be messagedb.RewindStop or messagedb.RewindRestart, or empty for RewindStop")
	case c.BatchSize < 1 || c.BatchSize > maxBatchSize:
		return newInvalidError("BatchSize", c.BatchSize, "must be 1 to 10000 messages, or 0 for the default of 1000")
	}
	return nil
}

// Category has the objects of a kind be what the messages of a Message DB category fold into, one for each stream, and panics where [CategorySafely] returns an error.
//
// The worker is a controller without an informer, as for [Table].
//
//   - Whenever a stream has new messages, the object that all its messages make is informed. What changes several times at once may be worked once, as it is then.
//   - The position is written in the transaction of the inform, and an object is folded from its stream, rather than from what was informed before. So each message
//     counts exactly once, whatever crashes or is taken over by another client between.
//   - One client of all that are started runs it: see [delta.Source].
func Category[T delta.Object](controllers *delta.Controllers, worker delta.Worker[T], config CategoryConfig[T]) {
	if err := CategorySafely(controllers, worker, config); err != nil {
		panic(err)
	}
}

// CategorySafely is [Category], and returns an error where [delta.AddControllerSafely] or [delta.AddSourceSafely] would, where the worker lists objects, or for a
// configuration that breaks a rule ([*ConfigError]).
func CategorySafely[T delta.Object](controllers *delta.Controllers, worker delta.Worker[T], config CategoryConfig[T]) error {
	config = config.WithDefaults()
	if err := config.validate(); err != nil {
		return fmt.Errorf("bridge: category: %w", err)
	}
	if worker == nil {
		return errors.New("bridge: category: the worker is nil")
	}
	stream, err := config.Entity.Stream("0")
	if err != nil {
		return fmt.Errorf("bridge: category: %w", err)
	}
	if err := delta.AddControllerSafely(controllers, delta.Controller[T](workerOnly[T]{Worker: worker})); err != nil {
		return err
	}
	return delta.AddSourceSafely[T](controllers, &categorySource[T]{config: config, category: stream.Category()})
}

// categorySource is a category as a source.
type categorySource[T delta.Object] struct {
	config   CategoryConfig[T]
	category string
}

// Name names the category.
func (s *categorySource[T]) Name() string { return "category " + s.category }

// Run follows the category until ctx ends.
func (s *categorySource[T]) Run(ctx context.Context, feed *delta.Feed) error {
	r, err := s.openRun(ctx, feed)
	if err != nil {
		return err
	}
	for {
		err := r.followCategory(ctx)
		if !errors.As(err, new(*messagedb.RewoundError)) || s.config.Rewind != messagedb.RewindRestart {
			return err
		}
		if err := r.restartReading(ctx, "the store has gone back: "+err.Error()); err != nil {
			return err
		}
	}
}
