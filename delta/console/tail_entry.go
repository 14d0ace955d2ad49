package console

import (
	"strconv"
	"time"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/wording"
)

// tailEvent says what an entry of the tail is about.
type tailEvent string

// The events beside those of the log.
const (
	// tailRetry is a failed attempt that is tried again.
	tailRetry tailEvent = "retry"
	// tailState is a change of state of the one resource that the filter names.
	tailState tailEvent = "state"
)

// tailEvents are all that may be chosen.
var tailEvents = []tailEvent{
	tailEvent(delta.ChangeCreated), tailEvent(delta.ChangeUpdated), tailEvent(delta.ChangeFailed), tailEvent(delta.ChangeDeleted),
	tailEvent(delta.ChangeFinalized), tailEvent(delta.ChangeRevived), tailRetry, tailState,
}

// tailEntry is a line of the tail.
type tailEntry struct {
	At                           time.Time
	Event                        tailEvent
	Kind, ID, Namespace, Address string
	// State is that of the resource where the entry is about that; empty otherwise.
	State deltatype.ResourceState
	// Detail is what else there is to say, Error the first line of the error, as it may be shown.
	Detail, Error string
	// Note is a sentence in place of all of these.
	Note string

	// position is where the log goes on behind the entry; empty for one that is not of the log.
	position delta.ChangePosition
	// isHidden is set for one that only says how far the log was read.
	isHidden bool
}

// Clock is its time of day.
func (e tailEntry) Clock() string { return clock(e.At) }

// Class is the class of the event in the stylesheet.
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

// entryOfRow is an entry about a row, as it may be shown.
func (h *handler) entryOfRow(event tailEvent, at time.Time, row *deltatype.ResourceRow) tailEntry {
	entry := tailEntry{At: at, Event: event, Kind: row.ObjectKind, ID: row.ObjectID, Namespace: row.Namespace, Address: addressOf(row.ObjectKind, row.ObjectID), State: row.State}
	entry.Detail = "generation " + strconv.FormatInt(row.Generation, 10)
	if isFailing := event == tailEvent(delta.ChangeFailed) || event == tailRetry || event == tailState; !isFailing {
		return entry
	}
	if shown := h.redacted(row); len(shown.Errors) > 0 && row.State != deltatype.ResourceStateSynced {
		entry.Error = shortened(shown.Errors[len(shown.Errors)-1].Error)
	}
	return entry
}

// entryOfChange is an entry of the log. Redact is given a row that has what the entry has.
func (h *handler) entryOfChange(c *delta.Change) tailEntry {
	row := &deltatype.ResourceRow{
		ID: c.ResourceID, ObjectKind: c.Kind, ObjectID: c.ObjectID, Namespace: c.Namespace, Generation: c.Generation, SyncCount: c.SyncCount, EncodedObject: c.After,
	}
	if c.Error != "" {
		row.Errors = []deltatype.AttemptError{{At: c.At, Error: c.Error}}
	}
	entry := h.entryOfRow(tailEvent(c.Type), c.At, row)
	if shown := h.redacted(row); len(shown.Errors) > 0 { // a deletion may have one, too
		entry.Error = shortened(shown.Errors[0].Error)
	}
	entry.position = c.Position
	return entry
}

// entryOfEvent is an entry about what the client of this process has done; not ok where the log has it, or will have.
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
		entry.Detail += ", try " + strconv.Itoa(e.Resource.Attempt) + " of " + strconv.Itoa(e.Resource.MaxAttempts)
	}
	entry.Detail += ", seen by this process"
	return entry, true
}

// noteOf is an entry that is a sentence.
func noteOf(text string) tailEntry { return tailEntry{At: time.Now(), Note: text} }

// noteOfDropped says how many entries are not shown.
func noteOfDropped(n int) tailEntry {
	return noteOf(wording.Number(n) + " more came at once, and are not shown.")
}
