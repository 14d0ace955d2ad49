package console

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/wording"
)

const (
	// pageRows is how many resources a page lists.
	pageRows = 50
	// estimateTimeout is how long a list waits to hear how many resources match. It is shown without that otherwise.
	estimateTimeout = 2 * time.Second
)

// order is one that a list can be in: a field of its address has its name.
type order struct {
	Name, Text   string
	sort         delta.Sort
	isDescending bool
}

// orders are those of the form; the first is that of an address without one.
var orders = []order{
	{"made", "made, oldest first", delta.SortMade, false},
	{"newest", "made, newest first", delta.SortMade, true},
	{"changed", "changed, latest first", delta.SortChanged, true},
	{"unchanged", "changed, longest ago first", delta.SortChanged, false},
	{"due", "due, soonest first", delta.SortDue, false},
	{"due-last", "due, latest first", delta.SortDue, true},
	{"error", "by error", delta.SortError, false},
}

// orderOf is the order that an address asks for; nil where there is no such.
func orderOf(asked url.Values) *order {
	name := cmp.Or(asked.Get("sort"), orders[0].Name)
	if i := slices.IndexFunc(orders, func(o order) bool { return o.Name == name }); i >= 0 {
		return &orders[i]
	}
	return nil
}

// list shows the resources that match the fields of the address.
func (h *handler) list(w http.ResponseWriter, r *http.Request, user string) {
	asked := r.URL.Query()
	filter, err := h.filterOf(asked)
	order := orderOf(asked)
	switch {
	case err != nil:
		h.problem(w, http.StatusBadRequest, err.Error())
		return
	case order == nil:
		h.problem(w, http.StatusBadRequest, "There is no such order.")
		return
	case order.sort == delta.SortError && h.config.Redact != nil:
		h.problem(w, http.StatusBadRequest, errorsHidden)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), h.config.ReadTimeout)
	defer cancel()
	began := time.Now()
	listed, w, err := readForPage(h, w, r, "Resources", func() (*delta.SortedRows, error) {
		return h.client.ListSorted(ctx, filter, delta.SortedPage{Sort: order.sort, Descending: order.isDescending, Cursor: asked.Get("cursor"), Limit: pageRows})
	})
	if err != nil {
		h.failed(w, r, cmp.Or(ctx.Err(), err))
		return
	}
	matches := matching(delta.Estimate{Count: int64(len(listed.Rows)), IsExact: true})
	if isAll := asked.Get("cursor") == "" && listed.Next == ""; !isAll {
		matches = h.matches(ctx, r, filter)
	}
	now := time.Now()
	page := listPage{
		User: user, Asked: asked, States: deltatype.ResourceStates(), Lines: h.lines(listed.Rows), Matches: matches, Commands: h.bulkAllowed(r, user, asked, filter),
		Orders: orders, Order: order, ErrorsHidden: h.config.Redact != nil, Self: "?" + asked.Encode(), Every: liveEvery(now.Sub(began)),
	}
	if listed.Next != "" {
		page.Next = pageAt(asked, listed.Next)
	}
	if listed.Previous != "" {
		page.Previous = pageAt(asked, listed.Previous)
	}
	if asked.Get("cursor") != "" {
		page.First = pageAt(asked, "")
	}
	for i := range page.Lines {
		page.Lines[i].Note = note(page.Lines[i].Row, filter.Late, order.sort, now)
	}
	h.render(w, http.StatusOK, "list.html", page)
}

type listPage struct {
	User   string
	Asked  url.Values
	States []deltatype.ResourceState
	Lines  []listLine
	// Matches says how many resources match; empty where that is not known.
	Matches string
	// Commands are those for all that match.
	Commands []bulkLink
	Orders   []order
	Order    *order
	// ErrorsHidden is set where errors cannot be searched.
	ErrorsHidden bool
	// Self is the address of this page, which a script loads again, and Every how often.
	Self, Every string
	// Next, Previous and First are the addresses of other pages; empty where there is none.
	Next, Previous, First string
}

// pageAt is the address of another page of the same list; the first one where the cursor is empty.
func pageAt(asked url.Values, cursor string) string {
	fields := fieldsOf(asked)
	if sort := asked.Get("sort"); sort != "" {
		fields.Set("sort", sort)
	}
	if cursor != "" {
		fields.Set("cursor", cursor)
	}
	return resourcesPage + "?" + fields.Encode()
}

// matches says how many resources match. It says nothing where that takes too long: the list has been read, and is shown.
func (h *handler) matches(ctx context.Context, r *http.Request, filter delta.Filter) string {
	ctx, cancel := context.WithTimeout(ctx, estimateTimeout)
	defer cancel()
	estimate, err := h.client.EstimateCount(ctx, filter)
	if err != nil {
		if ctx.Err() == nil {
			h.config.Logger.Error("delta: console: estimating how many resources match", "path", r.URL.Path, "error", err)
		}
		return ""
	}
	return matching(estimate)
}

// matching is an estimate in words.
func matching(estimate delta.Estimate) string {
	switch {
	case estimate.IsExact && estimate.Count == 1:
		return "1 resource matches."
	case estimate.IsExact:
		return wording.Count(estimate.Count, "resource") + " match."
	case estimate.IsLeast:
		return wording.Count(estimate.Count, "resource") + " or more match."
	}
	return "About " + roughly(estimate.Count) + " resources match: an estimate of the database, which has not counted them."
}

// roughly is a number as it is said of an estimate, with two digits that count.
func roughly(n int64) string {
	if n >= 999_500 {
		return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(n)/1e6), ".0") + " million"
	}
	for unit := int64(1); ; unit *= 10 {
		if n < 100*unit {
			return wording.Number((n + unit/2) / unit * unit)
		}
	}
}

// note is the time beside a resource in a list that is about times.
func note(row *deltatype.ResourceRow, isLate bool, sort delta.Sort, now time.Time) string {
	switch {
	case (isLate || sort == delta.SortDue) && row.DueAt != nil && row.DueAt.Before(now):
		return "due since " + when(row.DueAt) + " (" + wording.When(row.DueAt, now) + ")"
	case sort == delta.SortDue && row.DueAt != nil:
		return "due " + wording.When(row.DueAt, now)
	case (isLate || sort == delta.SortDue) && row.ClaimedUntil != nil:
		return "claimed until " + when(row.ClaimedUntil) + " (" + wording.When(row.ClaimedUntil, now) + ")"
	case sort == delta.SortChanged:
		changed := row.GenerationAt
		for _, at := range []*time.Time{row.AttemptedAt, row.SyncedAt} {
			if at != nil && at.After(changed) {
				changed = *at
			}
		}
		return "changed " + wording.When(&changed, now)
	}
	return ""
}

type listLine struct {
	Kind, ID, Address, Error string
	// Note is the time that the list is about; empty in others.
	Note string
	Row  *deltatype.ResourceRow
}

// lines are rows as lists show them.
func (h *handler) lines(rows []*deltatype.ResourceRow) (all []listLine) {
	for _, row := range rows {
		line := listLine{Kind: row.ObjectKind, ID: row.ObjectID, Address: addressOf(row.ObjectKind, row.ObjectID), Row: h.redacted(row)}
		if n := len(line.Row.Errors); n > 0 {
			line.Error = shortened(line.Row.Errors[n-1].Error)
		}
		all = append(all, line)
	}
	return all
}
