package console

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

const (
	// mostShown is how many bytes of an object are shown, and mostDeep how deep one may be that is laid out: the indents of one that is deeper
	// could be many times its size.
	mostShown = 256 << 10
	mostDeep  = 64
)

// resource shows one resource.
func (h *handler) resource(w http.ResponseWriter, r *http.Request, user string) {
	kind, id := r.URL.Query().Get("kind"), r.URL.Query().Get("id")
	ctx, cancel := context.WithTimeout(r.Context(), h.config.ReadTimeout)
	defer cancel()
	explained, err := h.client.Explain(ctx, kind, id)
	if err != nil {
		h.failed(w, r, cmp.Or(ctx.Err(), err))
		return
	}
	row := h.redacted(explained.Resource)
	page := resourcePage{
		User: user, Kind: kind, ID: id, Row: row, Reasons: redactedReasons(explained, row), At: &explained.At,
		HasNoTemporal: explained.TemporalError != nil, Object: laidOut(row.EncodedObject), Metadata: laidOut(row.Metadata),
	}
	page.Errors = slices.Clone(row.Errors)
	slices.Reverse(page.Errors)
	if h.config.TemporalUI != "" && row.WorkflowID != "" {
		page.Workflow = h.config.TemporalUI + "/workflows/" + url.PathEscape(row.WorkflowID)
	}
	for _, name := range allowed(explained.Resource.State) {
		if h.mayDo(r, Command{Name: name, User: user, Kind: kind, ObjectID: id}) {
			page.Commands = append(page.Commands, name)
		}
	}
	if len(page.Commands) > 0 {
		page.Token = formToken(w, r)
	}
	h.render(w, http.StatusOK, "resource.html", page)
}

type resourcePage struct {
	User, Kind, ID string
	Row            *deltatype.ResourceRow
	Reasons        []delta.Reason
	At             *time.Time
	HasNoTemporal  bool
	// Object and Metadata are empty where they are hidden.
	Object, Metadata string
	// Errors are the latest first.
	Errors   []deltatype.AttemptError
	Workflow string
	Commands []CommandName
	Token    string
}

// redacted is a copy of a row as it may be shown.
func (h *handler) redacted(row *deltatype.ResourceRow) *deltatype.ResourceRow {
	row = row.Clone()
	if h.config.Redact != nil {
		h.config.Redact(row)
	}
	return row
}

// redactedReasons are the reasons without the errors that Redact has changed or removed: some quote them.
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

// laidOut is JSON with a line for each member. The order of members and the digits of numbers stay as they are stored.
func laidOut(text []byte) string {
	if len(text) > mostShown {
		return string(text[:mostShown]) + fmt.Sprintf("… (%d bytes in all)", len(text))
	}
	var laid bytes.Buffer
	if depth(text) > mostDeep || json.Indent(&laid, text, "", "  ") != nil {
		return string(text)
	}
	return laid.String()
}

// depth is at least as deep as JSON is nested: brackets in texts count too.
func depth(text []byte) (deepest int) {
	deep := 0
	for _, b := range text {
		switch b {
		case '{', '[':
			deep++
			deepest = max(deepest, deep)
		case '}', ']':
			deep--
		}
	}
	return deepest
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
