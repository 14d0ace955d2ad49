package console

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/wording"
	"github.com/chariot-giving/delta/messagedb"
)

// maxCategories is how many categories of a message store a page names.
const maxCategories = 200

// streamsPage shows the readers of streams and their lag. Each part is read by itself, so that one unreadable part does not hide the others.
type streamsPage struct {
	User string
	At   *time.Time
	// Self is the address of the page, which a script reloads, and Every is the interval.
	Self, Every string

	// Log is nil if it cannot be read; then LogProblem has the reason. The other parts have such a field too.
	Log            *delta.ChangeLogStatus
	LogProblem     string
	Consumers      []consumerLine
	Sources        []sourceLine
	SourcesProblem string
	Slots          []slotLine
	SlotsProblem   string
	StreamURL      string
	Store          storePart
}

// consumerLine is a consumer of the log of changes.
type consumerLine struct {
	delta.ChangeConsumerStatus
	// State describes its state, Class is the CSS class, and SavedAgo says when its position was saved.
	State, Class, SavedAgo string
}

// sourceLine is a source of a kind.
type sourceLine struct {
	delta.SourceStatus
	Lag, Behind, SeenAgo string
}

// slotLine is a replication slot.
type slotLine struct {
	cdc.Slot
	// State names the process that reads the slot. IsBad is set if the server has removed WAL that the slot needs, or may remove it soon.
	State string
	IsBad bool
	// Lag is how long the last confirmed change had waited, Safe how much WAL may still be written before the slot is lost.
	Lag, Safe string
}

// storePart is a message store.
type storePart struct {
	// Problem is the reason why there is nothing to show; empty if there is something.
	Problem string
	Readers []readerLine
	// Unread are categories without a saved position; IsMore is set if there are more categories than were read.
	Unread []string
	IsMore bool
}

// readerLine is a consumer of a category.
type readerLine struct {
	messagedb.ConsumerPosition
	Name, Oldest, SavedAgo string
}

// showStreams shows the consumers of the log of changes, the sources of kinds, the replication slots, and the consumers of the message store.
func (h *handler) showStreams(w http.ResponseWriter, r *http.Request, user string) {
	ctx, cancel := context.WithTimeout(r.Context(), h.config.ReadTimeout)
	defer cancel()
	began := time.Now()
	page := streamsPage{User: user, At: &began, Self: "streams", StreamURL: h.config.StreamURL}
	h.readLogReaders(ctx, &page)
	h.readSources(ctx, &page)
	h.readSlots(ctx, &page)
	h.readStore(ctx, &page.Store)
	page.Every = refreshTrigger(time.Since(began))
	h.renderPage(w, http.StatusOK, "streams.html", page)
}

// describeUnreadable explains in words why a part could not be read. Errors of the database go to the log, because they may name its host and role.
func (h *handler) describeUnreadable(ctx context.Context, what string, err error) string {
	switch {
	case errors.Is(err, delta.ErrNoSchema):
		return "Delta's schema is missing: see Doctor."
	case ctx.Err() != nil:
		return fmt.Sprintf("The database needed longer than %s for this page (ReadTimeout).", h.config.ReadTimeout)
	}
	h.config.Logger.Warn("delta: console: a part of the page of streams could not be read", "part", what, "error", err)
	return "It could not be read; the log of the console says why."
}

func (h *handler) readLogReaders(ctx context.Context, page *streamsPage) {
	status, err := h.client.ChangeLog(ctx)
	if err != nil {
		page.LogProblem = h.describeUnreadable(ctx, "log of changes", err)
		return
	}
	page.Log = status
	for _, one := range status.Consumers {
		line := consumerLine{ChangeConsumerStatus: one, State: "runs", Class: "synced", SavedAgo: wording.When(&one.SavedAt, *page.At)}
		switch {
		case one.IsLost:
			line.State, line.Class = "lost: entries after its position are gone", "degraded"
		case !one.IsRunning:
			line.State, line.Class = "no process has it", "failed"
		}
		page.Consumers = append(page.Consumers, line)
	}
}

func (h *handler) readSources(ctx context.Context, page *streamsPage) {
	all, err := h.client.Sources(ctx)
	if err != nil {
		page.SourcesProblem = h.describeUnreadable(ctx, "sources", err)
		return
	}
	for _, one := range all {
		line := sourceLine{SourceStatus: one, Lag: "–", Behind: "–", SeenAgo: wording.When(&one.SeenAt, *page.At)}
		if one.Lag != nil {
			line.Lag = wording.Duration(*one.Lag)
		}
		switch {
		case one.BehindBytes != nil:
			line.Behind = wording.Size(*one.BehindBytes)
		case one.BehindMessages != nil:
			line.Behind = wording.Count(*one.BehindMessages, "message")
		}
		page.Sources = append(page.Sources, line)
	}
}

func (h *handler) readSlots(ctx context.Context, page *streamsPage) {
	all, err := cdc.Slots(ctx, h.client.Pool())
	if err != nil {
		page.SlotsProblem = h.describeUnreadable(ctx, "slots", err)
		return
	}
	for _, one := range all {
		line := slotLine{Slot: one, State: "nothing reads it", Lag: "–", Safe: "no limit", IsBad: one.Status == "lost" || one.Status == "unreserved"}
		if one.Active {
			line.State = fmt.Sprintf("read by process %d", one.PID)
		} else if one.InactiveTime != nil {
			line.State += " for " + wording.Duration(*one.InactiveTime)
		}
		if one.LagTime != nil {
			line.Lag = wording.Interval(*one.LagTime)
		}
		switch {
		case one.Status == "lost":
			line.Safe = "no WAL is kept"
		case one.SafeWALBytes != nil:
			line.Safe = wording.Size(max(*one.SafeWALBytes, 0))
		}
		page.Slots = append(page.Slots, line)
	}
}

// readStore reads the consumers and categories of the message store.
func (h *handler) readStore(ctx context.Context, part *storePart) {
	store, err := h.config.MessageStore, error(nil)
	missing := "Config.MessageStore has no message store: there is none in its schema."
	if store == nil {
		missing = "There is no message store in this database, schema " + messagedb.DefaultSchema + ". Config.MessageStore names one elsewhere."
		store, err = messagedb.NewClient(h.client.Pool(), &messagedb.Config{Logger: h.config.Logger})
	}
	if err == nil {
		_, err = store.Version(ctx)
	}
	if errors.As(err, new(*messagedb.NotInstalledError)) {
		part.Problem = missing
		return
	}
	var positions []messagedb.ConsumerPosition
	var categories []string
	if err == nil {
		positions, err = store.ConsumerPositions(ctx, "")
	}
	if err == nil {
		categories, err = store.Categories(ctx)
	}
	if err != nil {
		part.Problem = h.describeUnreadable(ctx, "message store", err)
		return
	}
	now := time.Now()
	isRead := map[string]bool{}
	for i := range positions {
		one := &positions[i]
		isRead[one.Category] = true
		line := readerLine{ConsumerPosition: *one, Name: one.Identifier, Oldest: "–", SavedAgo: wording.When(&one.SavedAt, now)}
		if line.Name == "" {
			line.Name = "–"
		}
		if one.Group != nil {
			line.Name += fmt.Sprintf(", member %d of %d", one.Group.Member, one.Group.Size)
		}
		if one.Lag.Messages > 0 {
			line.Oldest = wording.Duration(one.Lag.Age)
		}
		part.Readers = append(part.Readers, line)
	}
	for _, category := range categories {
		if isRead[category] || isPositionCategory(category) {
			continue
		}
		if part.IsMore = len(part.Unread) == maxCategories; part.IsMore {
			break
		}
		part.Unread = append(part.Unread, category)
	}
}

// isPositionCategory reports whether consumers save their positions in a category.
func isPositionCategory(category string) bool {
	return slices.Contains(messagedb.StreamName(category).Types(), "position")
}
