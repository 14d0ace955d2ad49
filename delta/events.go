package delta

import (
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// EventCategory is the kind of an [Event].
type EventCategory string

const (
	// EventCategoryObjectSynced is a resource that was synced. Its SyncCount is 1 for the first sync, and more for later
	// ones.
	EventCategoryObjectSynced EventCategory = "object_synced"
	// EventCategoryObjectFailed is an attempt that failed. The resource's State is failed if it is tried again, degraded if
	// it is not, and deleted if it was an attempt of Finalize.
	EventCategoryObjectFailed EventCategory = "object_failed"
	// EventCategoryObjectDeleted is a resource that became deleted: by Work, by a complete listing, or by Client.Delete.
	EventCategoryObjectDeleted EventCategory = "object_deleted"
	// EventCategoryObjectFinalized is a deleted resource whose Finalize has succeeded.
	EventCategoryObjectFinalized EventCategory = "object_finalized"
	// EventCategoryObjectStale is an object that this client informed and that was older than the stored one, so nothing
	// changed. The event has the newer one. Passes of informers count theirs in [InformRun].
	EventCategoryObjectStale EventCategory = "object_stale"
	// EventCategoryObjectSkipped is an object that this client informed and that equals the stored one, so nothing changed.
	// Passes of informers count theirs as unchanged.
	EventCategoryObjectSkipped EventCategory = "object_skipped"
)

// Event is something that this client did with a resource.
type Event struct {
	// Resource is a copy of the row right after, for this subscriber.
	Resource *deltatype.ResourceRow
	// EventCategory is the kind of the event.
	EventCategory EventCategory
	// Timestamp is when the client had written it.
	Timestamp time.Time
	// Duration is how long Work or Finalize took, or WorkBatch for all of its resources together; 0 if none was called.
	Duration time.Duration
	// Wait is how long the attempt had been due when it was claimed; 0 if there was none.
	Wait time.Duration
	// Err is the error of the attempt, as Work has returned it, or a *[PanicError]; nil if it succeeded.
	Err error
}

// SubscribeConfig configures a subscription.
type SubscribeConfig struct {
	// ChanSize is how many events the channel holds. Events that come while it is full are dropped, counted, and logged.
	//
	// Defaults to 1000.
	ChanSize int

	// Categories are the categories to send, at least one: later versions may add new ones.
	Categories []EventCategory
}

const (
	defaultChanSize = 1000
	// logDroppedEvery is how often dropped events are logged, so that they do not flood the log.
	logDroppedEvery = 10 * time.Second
)

// Subscribe sends events of the categories over a channel: those of this client, not of others. Sending never waits: a slow
// reader loses events, which is logged. The channel holds 1000 events. The function ends the subscription; so does Stop.
// Both close the channel, and a client that was stopped returns a closed one. It panics as [Client.SubscribeConfig] does.
//
// To get all changes, of all clients, without loss, use the log of changes: [Client.Changes], [Client.ConsumeChanges].
func (c *Client) Subscribe(categories ...EventCategory) (<-chan Event, func()) {
	return c.SubscribeConfig(&SubscribeConfig{Categories: categories})
}

// SubscribeConfig is [Client.Subscribe] with more options. It panics without categories, with one that does not exist, or
// with a negative ChanSize, because those are programming errors.
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

// events sends events to subscriptions.
type events struct {
	log *slog.Logger
	// telemetry counts dropped events; nil for none.
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

// close ends all subscriptions; later ones are closed from the beginning.
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

// warnLost logs that a subscription that has lost events ended.
func (e *events) warnLost(dropped int) {
	if dropped > 0 {
		e.log.Warn("a subscription ended that has lost events", "dropped", dropped)
	}
}

// categoryOf returns the category of an attempt; empty if it is no event.
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
	case activities.VerdictSnoozed, activities.VerdictReleased, activities.VerdictWithheld, activities.VerdictUndecodable:
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

// publishRow sends an event that has only a resource and a category.
func (e *events) publishRow(category EventCategory, row *deltatype.ResourceRow) {
	e.publish(Event{EventCategory: category, Resource: row})
}

// publish sends an event to the subscriptions. It logs full subscriptions after the lock is released, because the Logger
// and Telemetry are user code, which may be slow, or call the client.
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

// fullSubscription is a subscription whose lost events are to be logged.
type fullSubscription struct{ dropped, size int }

// deliverEvent sends an event to the subscriptions of its category. It returns how many of them were full, and those that
// are to be logged.
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
