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
	// EventCategoryObjectSkipped is an object that this client informed, and that was as it is stored: it was left alone. Passes of informers
	// count theirs as unchanged.
	EventCategoryObjectSkipped EventCategory = "object_skipped"
)

// Event is something that this client did with a resource.
type Event struct {
	// Resource is the row right after. It is the subscriber's own.
	Resource *deltatype.ResourceRow
	// EventCategory says what happened.
	EventCategory EventCategory
	// Timestamp is when the client saw it written.
	Timestamp time.Time
	// Duration is how long Work or Finalize took, or WorkBatch for all of its resources together; 0 where none was called.
	Duration time.Duration
	// Wait is for how long the attempt had been due when it was claimed; 0 where there was none.
	Wait time.Duration
	// Err is the error of the attempt, as Work has returned it, or a *[PanicError]; nil where it succeeded.
	Err error
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
//
// For what has to happen, of all clients, there is the log of changes: [Client.Changes], [Client.ConsumeChanges].
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
		EventCategoryObjectSkipped,
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
	// telemetry counts what was dropped; nil for none.
	telemetry *telemetry

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
	return s.channel, func() { e.cancelSubscription(s) }
}

func (e *events) cancelSubscription(s *subscription) {
	e.mu.Lock()
	_, there := e.subscriptions[s]
	delete(e.subscriptions, s)
	if there {
		close(s.channel)
	}
	dropped := s.dropped
	e.mu.Unlock()
	if there {
		e.warnLost(dropped)
	}
}

// close ends all subscriptions, and those that come later at once.
func (e *events) close() {
	e.mu.Lock()
	ended := e.subscriptions
	e.closed, e.subscriptions = true, nil
	for s := range ended {
		close(s.channel)
	}
	e.mu.Unlock()
	for s := range ended { // nothing writes to them any longer
		e.warnLost(s.dropped)
	}
}

// warnLost logs that a subscription has ended that has lost events.
func (e *events) warnLost(dropped int) {
	if dropped > 0 {
		e.log.Warn("a subscription ended that has lost events", "dropped", dropped)
	}
}

// categoryOf is the category of an attempt; empty where it is no event.
func categoryOf(verdict activities.Verdict) EventCategory {
	switch verdict {
	case activities.VerdictSynced:
		return EventCategoryObjectSynced
	case activities.VerdictDeleted:
		return EventCategoryObjectDeleted
	case activities.VerdictFinalized:
		return EventCategoryObjectFinalized
	case activities.VerdictFailed, activities.VerdictDegraded:
		return EventCategoryObjectFailed
	case activities.VerdictSnoozed, activities.VerdictReleased, activities.VerdictWithheld, activities.VerdictUnreadable:
	}
	return ""
}

// wantsCategory reports whether a subscription has the category.
func (e *events) wantsCategory(category EventCategory) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for s := range e.subscriptions {
		if slices.Contains(s.categories, category) {
			return true
		}
	}
	return false
}

// publishRow sends an event without more than its resource and its category.
func (e *events) publishRow(category EventCategory, row *deltatype.ResourceRow) {
	e.publish(Event{EventCategory: category, Resource: row})
}

// publish hands an event to the subscriptions. What it says of those that are full is said after the lock is released: the Logger and Telemetry are
// user code, which may be slow, or come back to the client.
func (e *events) publish(event Event) {
	event.Timestamp = time.Now().UTC()
	dropped, full := e.deliverEvent(event)
	if dropped > 0 {
		e.telemetry.recordDropped("events", dropped)
	}
	for _, f := range full {
		e.log.Warn("a subscription is full: events are dropped", "dropped", f.dropped, "chan_size", f.size)
	}
}

// fullSubscription is a subscription of which it is to be logged how many events it has lost.
type fullSubscription struct{ dropped, size int }

// deliverEvent sends an event to the subscriptions that want it, and returns how many of them were full, and those that are to be logged.
func (e *events) deliverEvent(event Event) (dropped int, full []fullSubscription) {
	row := event.Resource
	e.mu.Lock()
	defer e.mu.Unlock()
	for s := range e.subscriptions {
		if !slices.Contains(s.categories, event.EventCategory) {
			continue
		}
		event.Resource = row.Clone()
		select {
		case s.channel <- event:
			continue
		default:
		}
		dropped++
		s.dropped++
		if time.Since(s.logged) >= logDroppedEvery {
			s.logged = time.Now()
			full = append(full, fullSubscription{s.dropped, cap(s.channel)})
		}
	}
	return dropped, full
}
