package console

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// maxRelated is how many resources of each relation a page names.
const maxRelated = 20

// showResource shows one resource.
func (h *handler) showResource(w http.ResponseWriter, r *http.Request, user string) {
	kind, id := r.URL.Query().Get("kind"), r.URL.Query().Get("id")
	before, err := strconv.ParseInt(cmp.Or(r.URL.Query().Get("before"), "0"), 10, 64)
	if err != nil {
		h.showProblem(w, http.StatusBadRequest, "The field before is not a number.")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), h.config.ReadTimeout)
	defer cancel()
	read, err := h.readResource(ctx, kind, id, before)
	if err != nil {
		h.showError(w, r, cmp.Or(ctx.Err(), err))
		return
	}
	page := h.resourcePageOf(read)
	page.User, page.Kind, page.ID, page.IsLatest = user, kind, id, before == 0
	page.Self = resourceAddress(kind, id)
	page.Whole = "object?" + url.Values{"kind": {kind}, "id": {id}}.Encode()
	for _, name := range allowedCommands(read.explained.Resource.State) {
		if h.isAuthorized(r, Command{Name: name, User: user, Kind: kind, ObjectID: id}) {
			page.Commands = append(page.Commands, name)
		}
	}
	if len(page.Commands) > 0 {
		page.Token = formToken(w, r)
	}
	h.renderPage(w, http.StatusOK, "resource.html", page)
}

// resourceRead has all data of the page of a resource.
type resourceRead struct {
	explained *delta.Explanation
	previous  *delta.PreviousObject
	changes   []*delta.Change
	related   *delta.RelatedResources
}

func (h *handler) readResource(ctx context.Context, kind, id string, before int64) (read resourceRead, err error) {
	if read.explained, err = h.client.Explain(ctx, kind, id); err != nil {
		return read, err
	}
	if read.previous, err = h.client.PreviousObject(ctx, kind, id); err != nil {
		return read, err
	}
	if read.changes, err = h.client.ResourceChanges(ctx, kind, id, before, historyRows); err != nil {
		return read, err
	}
	read.related, err = h.client.RelatedResources(ctx, kind, id, maxRelated)
	return read, err
}

type resourcePage struct {
	User, Kind, ID string
	Row            *deltatype.ResourceRow
	Reasons        []delta.Reason
	At             *time.Time
	HasNoTemporal  bool
	Object         objectView
	// Metadata is empty if it is hidden.
	Metadata string
	// Self is the address of this page, without a position in the history, and Whole the address of the object as JSON.
	Self, Whole string
	// IsLogged is set if the kind has a log of changes, and IsLatest if History begins with the latest entry. Older is the address of the page with
	// earlier entries; empty if there are none.
	IsLogged, IsLatest bool
	History            []historyEntry
	Older              string
	Related            []relatedView
	// Errors are ordered latest first.
	Errors   []deltatype.AttemptError
	Workflow string
	Commands []CommandName
	Token    string
}

// resourcePageOf returns the page of a resource, after Redact.
func (h *handler) resourcePageOf(read resourceRead) resourcePage {
	stored := read.explained.Resource
	row := h.redactRow(stored)
	page := resourcePage{
		Row: row, Reasons: redactedReasons(read.explained, row), At: &read.explained.At, HasNoTemporal: read.explained.TemporalError != nil,
		Object: h.objectViewOf(stored, row, read.previous), Metadata: indentJSON(row.Metadata),
		IsLogged: read.previous.IsLogged, Related: relatedViews(row, read.related),
	}
	for _, change := range read.changes {
		page.History = append(page.History, h.historyEntryOf(stored, change))
	}
	if n := len(read.changes); n == historyRows {
		page.Older = resourceAddress(stored.ObjectKind, stored.ObjectID) + "&before=" + strconv.FormatInt(read.changes[n-1].ID, 10) + "#history"
	}
	page.Errors = slices.Clone(row.Errors)
	slices.Reverse(page.Errors)
	if h.config.TemporalUI != "" && row.WorkflowID != "" {
		page.Workflow = h.config.TemporalUI + "/workflows/" + url.PathEscape(row.WorkflowID)
	}
	return page
}

// serveObject answers with the whole object of a resource, as JSON.
func (h *handler) serveObject(w http.ResponseWriter, r *http.Request, _ string) {
	ctx, cancel := context.WithTimeout(r.Context(), h.config.ReadTimeout)
	defer cancel()
	row, err := h.client.Get(ctx, r.URL.Query().Get("kind"), r.URL.Query().Get("id"))
	if err != nil {
		h.showError(w, r, cmp.Or(ctx.Err(), err))
		return
	}
	text := h.redactRow(row).EncodedObject
	if len(text) == 0 {
		h.showProblem(w, http.StatusNotFound, "The object is hidden.")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(text)
}

// relatedView is a relation, and the resources that have it.
type relatedView struct {
	Title, None string
	Resources   []relatedLine
	HasMore     bool
}

type relatedLine struct {
	Kind, ID, Address string
	// State is empty for a parent that does not exist.
	State deltatype.ResourceState
	// Waits describes in words which resource waits for which; empty if none does.
	Waits string
}

// relatedViews returns the relations that the resource can have.
func relatedViews(row *deltatype.ResourceRow, related *delta.RelatedResources) (all []relatedView) {
	for _, relation := range []struct {
		title, none, waits string
		set                delta.RelatedSet
		isNamed            bool
	}{
		{"Parents", "", "has to be synced first", related.Parents, false},
		{"Children", "", "waits for this one", related.Children, false},
		{"Others with the limit key " + row.LimitKey + " that have a slot", "No other has one.", "", related.KeyHolders, row.LimitKey != ""},
		{"Others with that limit key that wait for a slot", "No other does.", "", related.KeyWaiters, row.LimitKey != ""},
		{"Others in its batch, of those that were leased last", "", "", related.BatchMembers, false},
	} {
		if !relation.isNamed && len(relation.set.Resources) == 0 {
			continue
		}
		view := relatedView{Title: relation.title, None: relation.none, HasMore: relation.set.HasMore}
		for _, one := range relation.set.Resources {
			line := relatedLine{Kind: one.Kind, ID: one.ObjectID, Address: resourceAddress(one.Kind, one.ObjectID), State: one.State}
			if one.IsAwaited {
				line.Waits = relation.waits
			}
			view.Resources = append(view.Resources, line)
		}
		all = append(all, view)
	}
	return all
}

// redactedReasons returns the reasons without errors that Redact has changed or removed, because some reasons quote errors.
func redactedReasons(explained *delta.Explanation, shown *deltatype.ResourceRow) []delta.Reason {
	reasons := slices.Clone(explained.Reasons)
	for _, hidden := range explained.Resource.Errors {
		if hidden.Error == "" || slices.ContainsFunc(shown.Errors, func(e deltatype.AttemptError) bool { return e.Error == hidden.Error }) {
			continue
		}
		for i := range reasons {
			if strings.Contains(reasons[i].Text, hidden.Error) {
				reasons[i].Text = string(reasons[i].Code) + " (its error is hidden)"
			}
		}
	}
	return reasons
}
