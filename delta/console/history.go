package console

import (
	"time"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// historyRows is how many entries of the log a page has.
const historyRows = 20

// historyEntry is an entry of the log of changes as a page shows it.
type historyEntry struct {
	Type                  delta.ChangeType
	At                    *time.Time
	Generation, SyncCount int64
	// Error is empty where there was none; IsErrorHidden is set where Redact hides it.
	Error         string
	IsErrorHidden bool
	// HasObject is set for an entry with an object, IsHidden where Redact hides that, or the one before, and IsTooLarge where they are not compared.
	HasObject, IsHidden, IsTooLarge bool
	Differences                     differenceView
}

// historyEntryOf shows an entry of the log of a resource, after Redact.
func (h *handler) historyEntryOf(row *deltatype.ResourceRow, change *delta.Change) historyEntry {
	at := change.At
	entry := historyEntry{Type: change.Type, At: &at, Generation: change.Generation, SyncCount: change.SyncCount, HasObject: change.After != nil}
	if change.Error != "" {
		entry.Error = h.redactedChangeError(row, deltatype.AttemptError{At: at, Error: change.Error})
		entry.IsErrorHidden = entry.Error == ""
	}
	if !entry.HasObject {
		return entry
	}
	after := h.redactedObject(row, change.After)
	var before []byte
	if change.Before != nil {
		before = h.redactedObject(row, change.Before)
	}
	entry.IsHidden = len(after) == 0 || (change.Before != nil && len(before) == 0)
	entry.IsTooLarge = len(after) > mostCompared || len(before) > mostCompared
	if !entry.IsHidden && !entry.IsTooLarge {
		entry.Differences = differenceViewOf(before, after)
	}
	return entry
}

// redactedObject is another version of the object of a row as it may be shown; empty where it is hidden. Redact is given the row with that version.
func (h *handler) redactedObject(row *deltatype.ResourceRow, object []byte) []byte {
	version := *row
	version.EncodedObject = object
	return h.redacted(&version).EncodedObject
}

// redactedChangeError is the text of an error that the row of a resource may not have any more, as it may be shown; empty where it is hidden.
func (h *handler) redactedChangeError(row *deltatype.ResourceRow, err deltatype.AttemptError) string {
	failed := *row
	failed.Errors = []deltatype.AttemptError{err}
	if shown := h.redacted(&failed).Errors; len(shown) > 0 {
		return shown[0].Error
	}
	return ""
}
