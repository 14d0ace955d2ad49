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
	// tailEntriesRead is how many of the latest log entries are read for the page itself, before any script runs. Their objects are read too.
	tailEntriesRead = 200
	// tailAddress is the address of the page, and tailEventsAddress that of its events, relative to all pages.
	tailAddress, tailEventsAddress = "tail", "tail-events"
)

// tailFields are the fields of an address that choose entries.
var tailFields = []string{"kind", "namespace", "id", "event", "error"}

// tailFilter chooses entries. An empty field matches all.
type tailFilter struct {
	kind, namespace, id string
	event               tailEvent
	// errorText is a part of the error, in lower case.
	errorText string
}

// tailFilterOf returns the filter in an address. ok is false if there is no such event.
func tailFilterOf(asked url.Values) (f tailFilter, ok bool) {
	f = tailFilter{
		kind: asked.Get("kind"), namespace: asked.Get("namespace"), id: asked.Get("id"), event: tailEvent(asked.Get("event")), errorText: strings.ToLower(asked.Get("error")),
	}
	return f, f.event == "" || slices.Contains(tailEvents, f.event)
}

// isMatch reports whether the filter matches an entry. It compares the error after Redact, because a filter must not reveal hidden text.
func (f *tailFilter) isMatch(e *tailEntry) bool {
	return (f.kind == "" || f.kind == e.Kind) && (f.namespace == "" || f.namespace == e.Namespace) && (f.id == "" || f.id == e.ID) &&
		(f.event == "" || f.event == e.Event) && (f.errorText == "" || strings.Contains(strings.ToLower(e.Error), f.errorText))
}

// kinds returns the kinds of the filter, as arguments of Client.Changes.
func (f *tailFilter) kinds() []string {
	if f.kind == "" {
		return nil
	}
	return []string{f.kind}
}

// isOneResource reports whether the filter names one resource. Then each change of its state is shown.
func (f *tailFilter) isOneResource() bool { return f.kind != "" && f.id != "" }

// tailPage is the page of the live tail.
type tailPage struct {
	User   string
	Asked  url.Values
	Events []tailEvent
	// Entries are ordered latest first.
	Entries []tailEntry
	// Stream is the address of the events that follow, and Self that of this page.
	Stream, Self string
	// Look is how many log entries were read for Entries.
	Look int
	// Kind describes what the tail shows of the filter's kind; empty if this process does not have its controller.
	Kind string
	// IsFollowed is set if the filter names one resource.
	IsFollowed bool
}

// showTail shows the latest entries of the log. If scripts run, the page continues with new entries.
func (h *handler) showTail(w http.ResponseWriter, r *http.Request, user string) {
	asked := chosenFields(r.URL.Query(), tailFields)
	filter, ok := tailFilterOf(asked)
	if !ok {
		h.showProblem(w, http.StatusBadRequest, "There is no such event.")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), h.config.ReadTimeout)
	defer cancel()
	// If the log is empty, the page continues with entries after now.
	after, err := h.client.ChangesEnd(ctx)
	var changes []*delta.Change
	if err == nil {
		changes, err = h.client.LatestChanges(ctx, tailEntriesRead)
	}
	if err != nil {
		h.showError(w, r, cmp.Or(ctx.Err(), err))
		return
	}
	page := tailPage{User: user, Asked: asked, Events: tailEvents, Look: tailEntriesRead, Self: tailAddress + "?" + asked.Encode(), Kind: h.describeKind(filter.kind), IsFollowed: filter.isOneResource()}
	for _, change := range changes {
		if entry := h.entryOfChange(change); filter.isMatch(&entry) {
			page.Entries = append(page.Entries, entry)
		}
	}
	if len(changes) > 0 {
		after = changes[0].Position
	}
	following := maps.Clone(asked)
	following.Set("after", string(after))
	page.Stream = tailEventsAddress + "?" + following.Encode()
	h.renderPage(w, http.StatusOK, "tail.html", page)
}

// describeKind describes what the tail shows of a kind that this process works.
func (h *handler) describeKind(kind string) string {
	if kind == "" {
		return ""
	}
	logs, known := h.hasLog(kind)
	switch {
	case !known:
		return ""
	case logs:
		return kind + " has a log (ObjectSettings.Log): all outcomes of all clients are shown, and failed attempts of this process that will be retried."
	}
	return kind + " has no log: only attempts of this process are shown."
}

// hasLog reports whether a kind has a log of changes, and whether this process knows, because it has the kind's controller.
func (h *handler) hasLog(kind string) (logs, known bool) {
	settings, err := h.client.KindSettings(kind)
	if err != nil {
		return false, false
	}
	at := slices.IndexFunc(settings, func(s delta.Setting) bool { return s.Name == "Log" })
	return at >= 0 && settings[at].Value == "true", at >= 0
}

// clockText returns a time of day in UTC, with milliseconds.
func clockText(t time.Time) string { return t.UTC().Format("15:04:05.000") }
