package console

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/wording"
)

// surveyed describes the survey that a page shows.
type surveyed struct {
	User string
	At   *time.Time
	Took string
}

func surveyedOf(f *surveyResult, user string) surveyed {
	return surveyed{User: user, At: &f.At, Took: durationText(f.took)}
}

// surveyFor returns the survey for a page with a title, and the writer for the page. It returns nil if there is no survey yet; then it has answered.
func (h *handler) surveyFor(w http.ResponseWriter, r *http.Request, title string) (*surveyResult, http.ResponseWriter) {
	ctx, cancel := context.WithTimeout(r.Context(), h.config.ReadTimeout)
	defer cancel()
	f, w, err := readForPage(h, w, r, title, func() (*surveyResult, error) { return h.survey.awaitResult(ctx) })
	if err == nil {
		return f, w
	}
	if r.Context().Err() == nil {
		h.showProblem(w, http.StatusServiceUnavailable, "The first survey of the installation takes longer than "+h.config.ReadTimeout.String()+
			" (ReadTimeout). It continues: load the page again in a moment.")
	}
	return nil, w
}

// showOverview shows what needs attention, and the state of each kind.
func (h *handler) showOverview(w http.ResponseWriter, r *http.Request, user string) {
	f, w := h.surveyFor(w, r, "Overview")
	if f == nil {
		return
	}
	p := &commandPage{h: h, w: w, r: r, user: user, back: "overview"}
	shown := overviewPage{
		surveyed: surveyedOf(f, user), Items: p.attentionItems(f, func(string) bool { return true }), HasNoTemporal: f.Temporal == nil, HasNoFigures: f.figuresError != nil,
	}
	for _, check := range f.Checks {
		if check.State == delta.CheckOK {
			shown.Good++
		}
	}
	for i := range f.Kinds {
		shown.Kinds = append(shown.Kinds, kindLineOf(&f.Kinds[i], f))
	}
	h.renderPage(w, http.StatusOK, "overview.html", shown)
}

type overviewPage struct {
	surveyed
	Items []attentionItem
	// Good is how many checks found nothing wrong.
	Good                        int
	Kinds                       []kindLine
	HasNoTemporal, HasNoFigures bool
}

// kindLine is a kind in the overview.
type kindLine struct {
	*delta.KindStatus
	// Total is how many resources the kind has, in words.
	Total  string
	States []stateCount
	// Rate, Failed (the share of attempts that did not succeed) and P95 are of the last hour; empty if no attempt ended.
	Rate, Failed, P95 string
	Chart             chart
	// Every is how often the informer runs, NextRun its next run, and Workers how many poll: "?" if Temporal did not answer.
	Every, LastSuccess, NextRun, Workers string
	IsInformerPaused                     bool
}

// countText returns a number of resources of a kind, marked as an estimate if it is one.
func countText(k *delta.KindStatus, n int64) string {
	if k.IsEstimated {
		return wording.Estimate(n)
	}
	return wording.Number(n)
}

// agoText returns how long ago a time was, or "never" for nil.
func agoText(t *time.Time, now time.Time) string {
	if t == nil {
		return "never"
	}
	return wording.When(t, now)
}

type stateCount struct {
	State          deltatype.ResourceState
	Count, Address string
}

func kindLineOf(k *delta.KindStatus, f *surveyResult) kindLine {
	now := f.At
	line := kindLine{
		KindStatus: k, Total: countText(k, countResources(k)), Every: intervalText(k), LastSuccess: agoText(k.LastSuccess, now), NextRun: "?", Workers: "?",
		IsInformerPaused: isInformerPaused(k, f.Temporal),
		Chart:            arrangeFigures(f.steps[k.Kind], f.from, overviewStep, int(overviewSpan/overviewStep)).attemptChart(),
	}
	for _, state := range deltatype.ResourceStates() {
		if n := k.Counts[state]; n > 0 {
			line.States = append(line.States, stateCount{state, countText(k, n), listAddress(k.Kind, state)})
		}
	}
	if hour, ok := f.hour[k.Kind]; ok {
		line.Rate, line.Failed, line.P95 = rateOf(&hour, time.Hour)
	}
	if f.Temporal != nil && f.Temporal.Kinds[k.Kind].Error == nil {
		there := f.Temporal.Kinds[k.Kind]
		line.Workers = wording.Number(len(there.Workers))
		line.NextRun = "–"
		if there.Schedule != nil && there.Schedule.NextRun != nil {
			line.NextRun = wording.When(there.Schedule.NextRun, now)
		}
	}
	if line.IsInformerPaused {
		line.NextRun = "paused"
	}
	return line
}

// rateOf returns how many attempts ended a minute, the share of them that failed, and how long 95 of 100 calls took at most.
func rateOf(f *delta.Figure, span time.Duration) (rate, failed, p95 string) {
	_, all := attemptsOf(f)
	if all == 0 {
		return "", "", ""
	}
	perMinute := float64(all) / span.Minutes()
	rate = wording.Number(int64(perMinute+0.5)) + " a minute"
	if perMinute < 1 {
		rate = wording.Number(all) + " an hour"
	}
	bad := f.Attempts[delta.OutcomeFailed] + f.Attempts[delta.OutcomeDegraded] + f.Attempts[delta.OutcomeUndecodable]
	return rate, percentText(bad, all), durationText(f.P95)
}

// percentText returns a share; "under 1 %" for a small one that is not zero.
func percentText(part, all int64) string {
	switch share := part * 100 / all; {
	case part == 0:
		return "0 %"
	case share == 0:
		return "under 1 %"
	default:
		return wording.Number(share) + " %"
	}
}

// intervalText returns how often the informer of a kind runs.
func intervalText(k *delta.KindStatus) string {
	text := ""
	switch {
	case k.ListsNothing:
		return "lists nothing"
	case k.InformSchedule != nil:
		text = "by calendar"
	case k.InformInterval == 0:
		return "–"
	case k.InformInterval < 0:
		text = "never by itself"
	default:
		text = "every " + wording.Interval(k.InformInterval)
	}
	if k.FullListingInterval > 0 {
		text += ", all every " + wording.Interval(k.FullListingInterval)
	}
	return text
}

// listAddress returns the address of the resources of a kind, in a state or in any, relative to all pages.
func listAddress(kind string, state deltatype.ResourceState) string {
	values := url.Values{"kind": {kind}}
	if state != "" {
		values.Set("state", string(state))
	}
	return "resources?" + values.Encode()
}

// showDoctor shows all checks.
func (h *handler) showDoctor(w http.ResponseWriter, r *http.Request, user string) {
	f, w := h.surveyFor(w, r, "Doctor")
	if f == nil {
		return
	}
	p := &commandPage{h: h, w: w, r: r, user: user, back: "doctor"}
	shown := doctorPage{surveyed: surveyedOf(f, user)}
	for _, check := range f.Checks {
		switch check.State {
		case delta.CheckOK:
			shown.Good++
		case delta.CheckWarning:
			shown.Warnings++
		case delta.CheckFailure:
			shown.Failures++
		case delta.CheckSkipped:
			shown.Skipped++
		}
		shown.Items = append(shown.Items, p.checkItem(check, f))
	}
	h.renderPage(w, http.StatusOK, "doctor.html", shown)
}

type doctorPage struct {
	surveyed
	Good, Warnings, Failures, Skipped int
	Items                             []attentionItem
}
