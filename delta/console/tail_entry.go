package console

import (
	"strconv"
	"time"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/wording"
)

// tailEvent is the type of an entry of the tail.
type tailEvent string

// The events that are not in the log.
const (
	// tailRetry is a failed attempt that will be retried.
	tailRetry tailEvent = "retry"
	// tailState is a change of state of the one resource that the filter names.
	tailState tailEvent = "state"
)

// tailEvents are all events that can be chosen.
var tailEvents = []tailEvent{
	tailEvent(delta.ChangeCreated), tailEvent(delta.ChangeUpdated), tailEvent(delta.ChangeFailed), tailEvent(delta.ChangeDeleted),
	tailEvent(delta.ChangeFinalized), tailEvent(delta.ChangeRevived), tailRetry, tailState,
}

// tailEntry is a line of the tail.
type tailEntry struct {
	At                           time.Time
	Event                        tailEvent
	Kind, ID, Namespace, Address string
	// State is the state of the resource if the entry is about it; empty otherwise.
	State deltatype.ResourceState
	// Detail has further facts, Error the first line of the error, after Redact.
	Detail, Error string
	// Note is a sentence that replaces all other fields.
	Note string

	// position is the entry's position in the log; empty if it is not from the log.
	position delta.ChangePosition
	// isHidden is set for an entry that only reports how far the log was read.
	isHidden bool
}

// Clock returns the time of day of the entry.
func (e tailEntry) Clock() string { return clockText(e.At) }

// Class returns the CSS class of the event.
func (e tailEntry) Class() string {
	switch e.Event {
	case tailEvent(delta.ChangeFailed), tailRetry:
		return "failed"
	case tailEvent(delta.ChangeCreated), tailEvent(delta.ChangeUpdated):
		return "synced"
	case tailState:
		return string(e.State)
	}
	return ""
}

// entryOfRow returns an entry about a row, after Redact.
func (h *handler) entryOfRow(event tailEvent, at time.Time, row *deltatype.ResourceRow) tailEntry {
	entry := tailEntry{At: at, Event: event, Kind: row.ObjectKind, ID: row.ObjectID, Namespace: row.Namespace, Address: resourceAddress(row.ObjectKind, row.ObjectID), State: row.State}
	entry.Detail = "generation " + strconv.FormatInt(row.Generation, 10)
	if isFailing := event == tailEvent(delta.ChangeFailed) || event == tailRetry || event == tailState; !isFailing {
		return entry
	}
	if shown := h.redactRow(row); len(shown.Errors) > 0 && row.State != deltatype.ResourceStateSynced {
		entry.Error = shortenText(shown.Errors[len(shown.Errors)-1].Error)
	}
	return entry
}

// entryOfChange returns an entry for a change. Redact gets a row with the data of the change.
func (h *handler) entryOfChange(c *delta.Change) tailEntry {
	row := &deltatype.ResourceRow{
		ID: c.ResourceID, ObjectKind: c.Kind, ObjectID: c.ObjectID, Namespace: c.Namespace, Generation: c.Generation, SyncCount: c.SyncCount, EncodedObject: c.After,
	}
	if c.Error != "" {
		row.Errors = []deltatype.AttemptError{{At: c.At, Error: c.Error}}
	}
	entry := h.entryOfRow(tailEvent(c.Type), c.At, row)
	if shown := h.redactRow(row); len(shown.Errors) > 0 { // a deletion may have one too
		entry.Error = shortenText(shown.Errors[0].Error)
	}
	entry.position = c.Position
	return entry
}

// entryOfEvent returns an entry for an event of this process's client. ok is false if the log has the same entry, or will have it.
func (h *handler) entryOfEvent(e *delta.Event, logs bool) (entry tailEntry, ok bool) {
	event := tailEvent("")
	isRetried := false
	switch e.EventCategory {
	case delta.EventCategoryObjectSynced:
		if event = tailEvent(delta.ChangeUpdated); e.Resource.SyncCount == 1 {
			event = tailEvent(delta.ChangeCreated)
		}
	case delta.EventCategoryObjectFailed:
		if event = tailEvent(delta.ChangeFailed); e.Resource.State != deltatype.ResourceStateDegraded {
			event, isRetried = tailRetry, true
		}
	case delta.EventCategoryObjectDeleted:
		event = tailEvent(delta.ChangeDeleted)
	case delta.EventCategoryObjectFinalized:
		event = tailEvent(delta.ChangeFinalized)
	case delta.EventCategoryObjectStale, delta.EventCategoryObjectSkipped:
	}
	if event == "" || logs && !isRetried {
		return entry, false
	}
	entry = h.entryOfRow(event, e.Timestamp, e.Resource)
	if e.Duration > 0 {
		entry.Detail += ", took " + e.Duration.Round(time.Millisecond).String()
	}
	if isRetried {
		entry.Detail += ", attempt " + strconv.Itoa(e.Resource.Attempt) + " of " + strconv.Itoa(e.Resource.MaxAttempts)
	}
	entry.Detail += ", seen by this process"
	return entry, true
}

// newNote returns an entry that is a sentence.
func newNote(text string) tailEntry { return tailEntry{At: time.Now(), Note: text} }

// droppedNote returns an entry that says how many entries are not shown.
func droppedNote(n int) tailEntry {
	return newNote(wording.Number(n) + " more entries came at once, and are not shown.")
}
