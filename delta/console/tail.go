package console

import (
	"cmp"
	"context"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/chariot-giving/delta/delta"
)

const (
	// tailLook is how many of the latest entries of the log a page without scripts chooses from. Objects are read with them.
	tailLook = 200
	// tailPage is the address of the page, and tailStream that of its events, relative to all pages.
	tailPage, tailStream = "tail", "tail-events"
)

// tailFields are the fields of addresses that choose entries.
var tailFields = []string{"kind", "namespace", "id", "event", "error"}

// tailFilter chooses entries. What is empty chooses all.
type tailFilter struct {
	kind, namespace, id string
	event               tailEvent
	// errorText is a part of the error, in lower case.
	errorText string
}

// tailFilterOf is the filter that an address asks for; not ok where there is no such event.
func tailFilterOf(asked url.Values) (f tailFilter, ok bool) {
	f = tailFilter{
		kind: asked.Get("kind"), namespace: asked.Get("namespace"), id: asked.Get("id"), event: tailEvent(asked.Get("event")), errorText: strings.ToLower(asked.Get("error")),
	}
	return f, f.event == "" || slices.Contains(tailEvents, f.event)
}

// wants reports whether an entry is chosen. It looks at the error that is shown, as Redact has left it: a filter must not find out what is hidden.
func (f *tailFilter) wants(e *tailEntry) bool {
	return (f.kind == "" || f.kind == e.Kind) && (f.namespace == "" || f.namespace == e.Namespace) && (f.id == "" || f.id == e.ID) &&
		(f.event == "" || f.event == e.Event) && (f.errorText == "" || strings.Contains(strings.ToLower(e.Error), f.errorText))
}

// kinds are those of the filter, as readers of the log take them.
func (f *tailFilter) kinds() []string {
	if f.kind == "" {
		return nil
	}
	return []string{f.kind}
}

// followed reports whether the filter names one resource, of which each change of state is shown.
func (f *tailFilter) followed() bool { return f.kind != "" && f.id != "" }

// tailShown is the page of the live tail.
type tailShown struct {
	User   string
	Asked  url.Values
	Events []tailEvent
	// Entries are the latest first.
	Entries []tailEntry
	// Stream is the address of what comes after them, and Self that of this page.
	Stream, Self string
	// Look is how many entries they were chosen from.
	Look int
	// Kind says what is shown of the kind that the filter names; empty where this process does not know.
	Kind string
	// IsFollowed is set where the filter names one resource.
	IsFollowed bool
}

// tail shows the latest entries of the log. Where scripts run, the page goes on with what comes.
func (h *handler) tail(w http.ResponseWriter, r *http.Request, user string) {
	asked := chosenFields(r.URL.Query(), tailFields)
	filter, ok := tailFilterOf(asked)
	if !ok {
		h.problem(w, http.StatusBadRequest, "There is no such event.")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), h.config.ReadTimeout)
	defer cancel()
	// Where the log is empty, the page goes on with what comes after now.
	after, err := h.client.ChangesEnd(ctx)
	var changes []*delta.Change
	if err == nil {
		changes, err = h.client.LatestChanges(ctx, tailLook)
	}
	if err != nil {
		h.failed(w, r, cmp.Or(ctx.Err(), err))
		return
	}
	page := tailShown{User: user, Asked: asked, Events: tailEvents, Look: tailLook, Self: tailPage + "?" + asked.Encode(), Kind: h.kindInTail(filter.kind), IsFollowed: filter.followed()}
	for _, change := range changes {
		if entry := h.entryOfChange(change); filter.wants(&entry) {
			page.Entries = append(page.Entries, entry)
		}
	}
	if len(changes) > 0 {
		after = changes[0].Position
	}
	following := maps.Clone(asked)
	following.Set("after", string(after))
	page.Stream = tailStream + "?" + following.Encode()
	h.render(w, http.StatusOK, "tail.html", page)
}

// kindInTail says what the tail has of a kind that this process works.
func (h *handler) kindInTail(kind string) string {
	if kind == "" {
		return ""
	}
	logs, known := h.logs(kind)
	switch {
	case !known:
		return ""
	case logs:
		return kind + " has a log (ObjectSettings.Log): each step that settles is shown, of all clients, and of attempts that are tried again those of this process."
	}
	return kind + " has no log: attempts of this process are shown, and of other processes nothing."
}

// logs reports whether a kind has a log of changes, where this process has its controller.
func (h *handler) logs(kind string) (logs, known bool) {
	settings, err := h.client.KindSettings(kind)
	if err != nil {
		return false, false
	}
	at := slices.IndexFunc(settings, func(s delta.Setting) bool { return s.Name == "Log" })
	return at >= 0 && settings[at].Value == "true", at >= 0
}

// clock is a time of day in UTC, with milliseconds.
func clock(t time.Time) string { return t.UTC().Format("15:04:05.000") }
