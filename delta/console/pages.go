package console

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// pageRows is how many resources a page lists.
const pageRows = 50

// list shows the resources that match the fields of the address.
func (h *handler) list(w http.ResponseWriter, r *http.Request, user string) {
	asked := r.URL.Query()
	filter, err := filterOf(asked)
	if err != nil {
		h.problem(w, http.StatusBadRequest, err.Error())
		return
	}
	after, err := strconv.ParseInt(cmp.Or(asked.Get("after"), "0"), 10, 64)
	if err != nil || after < 0 {
		h.problem(w, http.StatusBadRequest, "The place to go on from is not a number.")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), h.config.ReadTimeout)
	defer cancel()
	began := time.Now()
	rows, err := h.client.List(ctx, filter, delta.Page{After: after, Limit: pageRows})
	if err != nil {
		h.failed(w, r, cmp.Or(ctx.Err(), err))
		return
	}
	page := listPage{
		User: user, Asked: asked, States: deltatype.ResourceStates(), Lines: h.lines(rows), Commands: h.bulkAllowed(r, user, asked, filter),
		Self: "?" + asked.Encode(), Every: liveEvery(time.Since(began)),
	}
	if len(rows) == pageRows {
		next := fieldsOf(asked)
		next.Set("after", strconv.FormatInt(rows[len(rows)-1].ID, 10))
		page.Next = "?" + next.Encode()
	}
	h.render(w, http.StatusOK, "list.html", page)
}

type listPage struct {
	User   string
	Asked  url.Values
	States []deltatype.ResourceState
	Lines  []listLine
	// Commands are those for all that match.
	Commands []bulkLink
	// Self is the address of this page, which a script loads again, and Every how often.
	Self, Every string
	// Next is the address of the next page; empty on the last.
	Next string
}

type listLine struct {
	Kind, ID, Address, Error string
	Row                      *deltatype.ResourceRow
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

// redacted is a copy of a row as it may be shown.
func (h *handler) redacted(row *deltatype.ResourceRow) *deltatype.ResourceRow {
	row = row.Clone()
	if h.config.Redact != nil {
		h.config.Redact(row)
	}
	return row
}

// shortened is the first line of a text, 200 characters at most.
func shortened(text string) string {
	line, _, isLong := strings.Cut(text, "\n")
	if runes := []rune(line); len(runes) > 200 {
		line, isLong = string(runes[:200]), true
	}
	if isLong {
		line += " …"
	}
	return line
}

// visible shows characters that have no picture, or change the order of those beside them, as escapes: an id could look like
// another one.
func visible(text string) string {
	var b strings.Builder
	for _, r := range text {
		if r != '\n' && r != '\t' && (unicode.Is(unicode.Cc, r) || unicode.Is(unicode.Cf, r)) {
			fmt.Fprintf(&b, `\u%04x`, r)
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// when is a time in UTC.
func when(t *time.Time) string {
	if t == nil {
		return "–"
	}
	return t.UTC().Format("2006-01-02 15:04:05 UTC")
}
