package delta

import (
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// EventCategory says what happened.
type EventCategory string

const (
	// EventCategoryObjectSynced is a resource that was synced. Its SyncCount is 1 where the object was created outside, and
	// more where it was updated.
	EventCategoryObjectSynced EventCategory = "object_synced"
	// EventCategoryObjectFailed is an attempt that failed. The resource's State tells whether it is tried again (failed) or
	// not (degraded), or that it was an attempt of Finalize (deleted).
	EventCategoryObjectFailed EventCategory = "object_failed"
	// EventCategoryObjectDeleted is a resource that became deleted: by Work, by a complete listing, or by Client.Delete.
	EventCategoryObjectDeleted EventCategory = "object_deleted"
	// EventCategoryObjectFinalized is a deleted resource whose Finalize has succeeded.
	EventCategoryObjectFinalized EventCategory = "object_finalized"
	// EventCategoryObjectStale is an object that this client informed, and that was older than the stored one: it changed nothing. The
	// event has the newer one. Passes of informers count theirs in [InformRun].
	EventCategoryObjectStale EventCategory = "object_stale"
)

// Event is something that this client did with a resource.
type Event struct {
	// Resource is the row right after.
	Resource *deltatype.ResourceRow
	// EventCategory says what happened.
	EventCategory EventCategory
	// Timestamp is when the client saw it written.
	Timestamp time.Time
}

// SubscribeConfig configures a subscription.
type SubscribeConfig struct {
	// ChanSize is how many events the channel holds. Those that come while it is full are dropped, counted, and logged.
	//
	// Defaults to 1000.
	ChanSize int

	// Categories are those that are sent. There must be one at least: new ones may be added in later versions.
	Categories []EventCategory
}

const (
	defaultChanSize = 1000
	// logDroppedEvery is how often dropped events are logged, so that they do not flood the log.
	logDroppedEvery = 10 * time.Second
)

// Subscribe sends events of the categories over a channel: of what this client does, not of others. Sending never waits: a
// slow reader loses events, which is logged. The channel holds 1000. The function ends the subscription; so does Stop. Both close
// the channel, and on a client that was stopped it is closed from the beginning. It panics as [Client.SubscribeConfig] does.
func (c *Client) Subscribe(categories ...EventCategory) (<-chan Event, func()) {
	return c.SubscribeConfig(&SubscribeConfig{Categories: categories})
}

// SubscribeConfig is [Client.Subscribe] with more options. It panics without categories, with one that does not exist, or
// with a negative ChanSize: those are mistakes of the program.
func (c *Client) SubscribeConfig(config *SubscribeConfig) (<-chan Event, func()) {
	if config == nil || len(config.Categories) == 0 {
		panic("delta: subscribe: categories must not be empty")
	}
	if config.ChanSize < 0 {
		panic("delta: subscribe: ChanSize must not be negative")
	}
	known := []EventCategory{
		EventCategoryObjectSynced, EventCategoryObjectFailed, EventCategoryObjectDeleted, EventCategoryObjectFinalized, EventCategoryObjectStale,
	}
	for _, category := range config.Categories {
		if !slices.Contains(known, category) {
			panic("delta: subscribe: there is no category " + string(category))
		}
	}
	size := config.ChanSize
	setDefault(&size, defaultChanSize)
	return c.events.subscribe(size, config.Categories)
}

// events hands out what happens to those who subscribed.
type events struct {
	log *slog.Logger

	mu            sync.Mutex
	closed        bool
	subscriptions map[*subscription]struct{}
}

type subscription struct {
	channel    chan Event
	categories []EventCategory
	dropped    int
	logged     time.Time
}

func (e *events) subscribe(size int, categories []EventCategory) (<-chan Event, func()) {
	s := &subscription{channel: make(chan Event, size), categories: slices.Clone(categories)}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		close(s.channel)
		return s.channel, func() {}
	}
	if e.subscriptions == nil {
		e.subscriptions = map[*subscription]struct{}{}
	}
	e.subscriptions[s] = struct{}{}
	return s.channel, func() { e.cancel(s) }
}

func (e *events) cancel(s *subscription) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, there := e.subscriptions[s]; there {
		delete(e.subscriptions, s)
		e.end(s)
	}
}

// close ends all subscriptions, and those that come later at once.
func (e *events) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	for s := range e.subscriptions {
		e.end(s)
	}
	e.subscriptions = nil
}

func (e *events) end(s *subscription) {
	if s.dropped > 0 {
		e.log.Warn("a subscription ended that has lost events", "dropped", s.dropped)
	}
	close(s.channel)
}

// observe sends the event of an outcome.
func (e *events) observe(verdict activities.Verdict, read func() (*deltatype.ResourceRow, error)) {
	if !e.anybody() {
		return // as a rule: the row is not even made
	}
	row, err := read()
	if err != nil {
		e.log.Error("a row cannot be read; no event is sent", "error", err)
		return
	}
	switch verdict {
	case activities.VerdictSynced:
		e.send(EventCategoryObjectSynced, row)
	case activities.VerdictDeleted:
		e.send(EventCategoryObjectDeleted, row)
	case activities.VerdictFinalized:
		e.send(EventCategoryObjectFinalized, row)
	case activities.VerdictFailed, activities.VerdictDegraded:
		e.send(EventCategoryObjectFailed, row)
	case activities.VerdictSnoozed, activities.VerdictReleased, activities.VerdictWithheld, activities.VerdictUnreadable:
	}
}

// anybody tells whether somebody has subscribed.
func (e *events) anybody() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.subscriptions) > 0
}

func (e *events) send(category EventCategory, row *deltatype.ResourceRow) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for s := range e.subscriptions {
		if !slices.Contains(s.categories, category) {
			continue
		}
		clone := *row
		select {
		case s.channel <- Event{Resource: &clone, EventCategory: category, Timestamp: time.Now().UTC()}:
		default:
			s.dropped++
			if time.Since(s.logged) >= logDroppedEvery {
				s.logged = time.Now()
				e.log.Warn("a subscription is full: events are dropped", "dropped", s.dropped, "chan_size", cap(s.channel))
			}
		}
	}
}
