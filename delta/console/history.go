package console

import (
	"time"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// historyRows is how many entries of the log a page shows.
const historyRows = 20

// historyEntry is an entry of the log of changes as a page shows it.
type historyEntry struct {
	Type                  delta.ChangeType
	At                    *time.Time
	Generation, SyncCount int64
	// Error is empty if there was none; IsErrorHidden is set if Redact hides it.
	Error         string
	IsErrorHidden bool
	// HasObject is set for an entry with an object, IsHidden if Redact hides this object or the previous one, IsEncoded if the console's client does not decode
	// one of them, and IsTooLarge if they are too large to compare.
	HasObject, IsHidden, IsEncoded, IsTooLarge bool
	Differences                                differenceView
}

// historyEntryOf returns an entry of the log of a resource, after Redact.
func (h *handler) historyEntryOf(row *deltatype.ResourceRow, change *delta.Change) historyEntry {
	at := change.At
	entry := historyEntry{Type: change.Type, At: &at, Generation: change.Generation, SyncCount: change.SyncCount, HasObject: change.After != nil}
	if change.Error != "" {
		entry.Error = h.redactChangeError(row, deltatype.AttemptError{At: at, Error: change.Error})
		entry.IsErrorHidden = entry.Error == ""
	}
	if !entry.HasObject {
		return entry
	}
	after := h.redactObject(row, change.After)
	var before []byte
	if change.Before != nil {
		before = h.redactObject(row, change.Before)
	}
	entry.IsHidden = len(after) == 0 || (change.Before != nil && len(before) == 0)
	entry.IsEncoded = deltatype.IsEncoded(after) || deltatype.IsEncoded(before)
	entry.IsTooLarge = len(after) > maxComparedBytes || len(before) > maxComparedBytes
	if !entry.IsHidden && !entry.IsEncoded && !entry.IsTooLarge {
		entry.Differences = differenceViewOf(before, after)
	}
	return entry
}

// redactObject returns another version of a row's object after Redact, which gets the row with that version; empty if it is hidden.
func (h *handler) redactObject(row *deltatype.ResourceRow, object []byte) []byte {
	version := *row
	version.EncodedObject = object
	return h.redactRow(&version).EncodedObject
}

// redactChangeError returns the text of an error from the log of changes after Redact, which gets the row with that error; empty if it is hidden.
func (h *handler) redactChangeError(row *deltatype.ResourceRow, err deltatype.AttemptError) string {
	failed := *row
	failed.Errors = []deltatype.AttemptError{err}
	if shown := h.redactRow(&failed).Errors; len(shown) > 0 {
		return shown[0].Error
	}
	return ""
}
