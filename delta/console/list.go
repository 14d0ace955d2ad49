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
	// estimateTimeout is how long a list waits for the number of matches. After it, the list is shown without the number.
	estimateTimeout = 2 * time.Second
)

// order is an order of a list; Name is its value in an address.
type order struct {
	Name, Text   string
	sort         delta.Sort
	isDescending bool
}

// orders are the orders that the form offers. The first is the default.
var orderController = []order{
	{"created", "created, oldest first", delta.SortCreated, false},
	{"newest", "created, newest first", delta.SortCreated, true},
	{"changed", "changed, latest first", delta.SortChanged, true},
	{"unchanged", "changed, longest ago first", delta.SortChanged, false},
	{"due", "due, soonest first", delta.SortDue, false},
	{"due-last", "due, latest first", delta.SortDue, true},
	{"error", "by error", delta.SortError, false},
}

// requestedOrder returns the order in an address, or nil if there is no such order.
func requestedOrder(asked url.Values) *order {
	name := cmp.Or(asked.Get("sort"), orderController[0].Name)
	if i := slices.IndexFunc(orderController, func(o order) bool { return o.Name == name }); i >= 0 {
		return &orderController[i]
	}
	return nil
}

// showResources lists the resources that match the fields of the address.
func (h *handler) showResources(w http.ResponseWriter, r *http.Request, user string) {
	asked := r.URL.Query()
	filter, err := h.allowedFilter(asked)
	order := requestedOrder(asked)
	switch {
	case err != nil:
		h.showProblem(w, http.StatusBadRequest, err.Error())
		return
	case order == nil:
		h.showProblem(w, http.StatusBadRequest, "There is no such order.")
		return
	case order.sort == delta.SortError && h.config.Redact != nil:
		h.showProblem(w, http.StatusBadRequest, errorsHiddenText)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), h.config.ReadTimeout)
	defer cancel()
	began := time.Now()
	listed, w, err := readForPage(h, w, r, "Resources", func() (*delta.SortedRows, error) {
		return h.client.ListSorted(ctx, filter, delta.SortedPage{Sort: order.sort, Descending: order.isDescending, Cursor: asked.Get("cursor"), Limit: pageRows})
	})
	if err != nil {
		h.showError(w, r, cmp.Or(ctx.Err(), err))
		return
	}
	matches := matchesText(delta.Estimate{Count: int64(len(listed.Rows)), IsExact: true})
	if isAll := asked.Get("cursor") == "" && listed.Next == ""; !isAll {
		matches = h.countMatches(ctx, r, filter)
	}
	now := time.Now()
	page := listPage{
		User: user, Asked: asked, States: deltatype.ResourceStates(), Lines: h.listLines(listed.Rows), Matches: matches, Commands: h.allowedBulkLinks(r, user, asked, filter),
		Orders: orderController, Order: order, ErrorsHidden: h.config.Redact != nil, Self: "?" + asked.Encode(), Every: refreshTrigger(now.Sub(began)),
	}
	if listed.Next != "" {
		page.Next = listPageAddress(asked, listed.Next)
	}
	if listed.Previous != "" {
		page.Previous = listPageAddress(asked, listed.Previous)
	}
	if asked.Get("cursor") != "" {
		page.First = listPageAddress(asked, "")
	}
	for i := range page.Lines {
		page.Lines[i].Note = timeNote(page.Lines[i].Row, filter.Late, order.sort, now)
	}
	h.renderPage(w, http.StatusOK, "list.html", page)
}

type listPage struct {
	User   string
	Asked  url.Values
	States []deltatype.ResourceState
	Lines  []listLine
	// Matches describes how many resources match; empty if that is not known.
	Matches string
	// Commands are the bulk commands for all matches.
	Commands []bulkLink
	Orders   []order
	Order    *order
	// ErrorsHidden is set if errors cannot be searched.
	ErrorsHidden bool
	// Self is the address of this page, which a script reloads, and Every is the interval.
	Self, Every string
	// Next, Previous and First are the addresses of other pages; empty if there is none.
	Next, Previous, First string
}

// listPageAddress returns the address of another page of the same list; the first one if the cursor is empty.
func listPageAddress(asked url.Values, cursor string) string {
	fields := filterValues(asked)
	if sort := asked.Get("sort"); sort != "" {
		fields.Set("sort", sort)
	}
	if cursor != "" {
		fields.Set("cursor", cursor)
	}
	return resourcesAddress + "?" + fields.Encode()
}

// countMatches describes how many resources match, or returns empty if counting takes too long: the list is shown without it.
func (h *handler) countMatches(ctx context.Context, r *http.Request, filter delta.Filter) string {
	ctx, cancel := context.WithTimeout(ctx, estimateTimeout)
	defer cancel()
	estimate, err := h.client.EstimateCount(ctx, filter)
	if err != nil {
		if ctx.Err() == nil {
			h.config.Logger.Error("delta: console: estimating how many resources match", "path", r.URL.Path, "error", err)
		}
		return ""
	}
	return matchesText(estimate)
}

// matchesText returns an estimate in words.
func matchesText(estimate delta.Estimate) string {
	switch {
	case estimate.IsExact && estimate.Count == 1:
		return "1 resource matches."
	case estimate.IsExact:
		return wording.Count(estimate.Count, "resource") + " match."
	case estimate.IsLowerBound:
		return wording.Count(estimate.Count, "resource") + " or more match."
	}
	return "About " + roundEstimate(estimate.Count) + " resources match, by an estimate of the database."
}

// roundEstimate returns an estimated number with two significant digits.
func roundEstimate(n int64) string {
	if n >= 999_500 {
		return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(n)/1e6), ".0") + " million"
	}
	for unit := int64(1); ; unit *= 10 {
		if n < 100*unit {
			return wording.Number((n + unit/2) / unit * unit)
		}
	}
}

// timeNote returns the time beside a resource in a list that is about times.
func timeNote(row *deltatype.ResourceRow, isLate bool, sort delta.Sort, now time.Time) string {
	switch {
	case (isLate || sort == delta.SortDue) && row.DueAt != nil && row.DueAt.Before(now):
		return "due since " + timeText(row.DueAt) + " (" + wording.When(row.DueAt, now) + ")"
	case sort == delta.SortDue && row.DueAt != nil:
		return "due " + wording.When(row.DueAt, now)
	case (isLate || sort == delta.SortDue) && row.ClaimedUntil != nil:
		return "claimed until " + timeText(row.ClaimedUntil) + " (" + wording.When(row.ClaimedUntil, now) + ")"
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
	// Note is the time that the list is about; empty in other lists.
	Note string
	Row  *deltatype.ResourceRow
}

// listLines returns rows as lists show them.
func (h *handler) listLines(rows []*deltatype.ResourceRow) (all []listLine) {
	for _, row := range rows {
		line := listLine{Kind: row.ObjectKind, ID: row.ObjectID, Address: resourceAddress(row.ObjectKind, row.ObjectID), Row: h.redactRow(row)}
		if n := len(line.Row.Errors); n > 0 {
			line.Error = shortenText(line.Row.Errors[n-1].Error)
		}
		all = append(all, line)
	}
	return all
}
