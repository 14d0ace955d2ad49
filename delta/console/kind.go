package console

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/wording"
)

const (
	// groupsTimeout is how long a page waits for the groups of errors, and groupsShown how many it shows if Redact is set: each group then costs one
	// read of a resource.
	groupsTimeout = 2 * time.Second
	groupsShown   = 10
	// passesShown is how many passes of the informer a page shows.
	passesShown = 30
)

// chartSpans are the spans that the charts of a kind can show, with the step of each.
var chartSpans = []chartSpan{{1, time.Minute}, {6, 5 * time.Minute}, {24, 20 * time.Minute}, {48, 40 * time.Minute}}

type chartSpan struct {
	hours int
	step  time.Duration
}

// requestedSpan returns the span in the address, or else the second one.
func requestedSpan(r *http.Request) chartSpan {
	at := slices.IndexFunc(chartSpans, func(s chartSpan) bool { return strconv.Itoa(s.hours) == r.URL.Query().Get("hours") })
	if at < 0 {
		return chartSpans[1]
	}
	return chartSpans[at]
}

// showKind shows one kind.
func (h *handler) showKind(w http.ResponseWriter, r *http.Request, user string) {
	name := r.URL.Query().Get("kind")
	f, w := h.surveyFor(w, r, name)
	if f == nil {
		return
	}
	at := slices.IndexFunc(f.Kinds, func(k delta.KindStatus) bool { return k.Kind == name })
	if at < 0 {
		h.showProblem(w, http.StatusNotFound, "There is no such kind: no client was started with it, and it has no resources.")
		return
	}
	asked := requestedSpan(r)
	ctx, cancel := context.WithTimeout(r.Context(), h.config.ReadTimeout)
	defer cancel()
	p := &commandPage{h: h, w: w, r: r, user: user, back: "kind"}
	k := &f.Kinds[at]
	shown := kindPage{
		surveyed: surveyedOf(f, user), kindLine: kindLineOf(k, f), Items: p.attentionItems(f, func(kind string) bool { return kind == name }),
		Hours: asked.hours, Shard: r.URL.Query().Get("shard"), Now: f.At,
	}
	for _, s := range chartSpans {
		shown.Spans = append(shown.Spans, s.hours)
	}
	for _, s := range outcomeSeries {
		shown.Series = append(shown.Series, [2]string{s.class, s.name})
	}
	shown.Buttons, shown.InformerButtons = p.kindButtons(k, f.Temporal)
	for i := range k.Shards {
		shown.Shards = append(shown.Shards, p.shardLineOf(&k.Shards[i], f.At))
	}
	if err := h.readCharts(ctx, &shown, name, asked); err != nil {
		h.showError(w, r, err)
		return
	}
	passes, err := h.client.InformPasses(ctx, name, shown.Shard, passesShown)
	if err != nil {
		h.showError(w, r, err)
		return
	}
	for i := range passes {
		shown.Passes = append(shown.Passes, passLineOf(&passes[i]))
	}
	shown.Groups, shown.GroupsText = h.readErrorGroups(ctx, name)
	settings, err := h.client.KindSettings(name)
	if err != nil && !errors.Is(err, delta.ErrNotFound) {
		h.showError(w, r, err)
		return
	}
	shown.Settings = settings
	for _, run := range h.informRuns.ofKind(name) {
		if step, _ := run.currentStep(); !step.Ended {
			shown.Runs = append(shown.Runs, "run?id="+run.id)
		}
	}
	h.renderPage(w, http.StatusOK, "kind.html", shown)
}

type kindPage struct {
	surveyed
	kindLine
	Items []attentionItem
	// Buttons are for the kind, InformerButtons for its informer.
	Buttons, InformerButtons []button
	// Hours is the span of the charts, Spans are all that can be chosen.
	Hours int
	Spans []int
	// Series are the CSS classes and names of the series in the chart of attempts.
	Series              [][2]string
	Attempts, Durations chart
	Rows                []stepRow
	Groups              []errorGroup
	// GroupsText describes the resources that were grouped, or why groups are missing.
	GroupsText string
	Shards     []shardLine
	// Shard is the shard whose passes are shown; empty for all.
	Shard  string
	Passes []passLine
	// Runs are the addresses of running informer runs that this process started.
	Runs     []string
	Settings []delta.Setting
	Now      time.Time
}

// kindButtons returns the buttons for a kind, and those for its informer.
func (p *commandPage) kindButtons(k *delta.KindStatus, temporal *delta.TemporalStatus) (ofKind, ofInformer []button) {
	if k.Paused || k.SnoozedUntil != nil {
		ofKind = append(ofKind, resumeKindButton(k.Kind))
	}
	if !k.Paused {
		ofKind = append(ofKind, pauseKindButton(k.Kind))
	}
	if isInformerKnown(k) {
		ofInformer = append(ofInformer, runInformerButton(k.Kind))
		if k.FullListingInterval > 0 {
			ofInformer = append(ofInformer, listAllButton(k.Kind))
		}
		if isInformerPaused(k, temporal) {
			ofInformer = append(ofInformer, resumeInformerButton(k.Kind))
		} else {
			ofInformer = append(ofInformer, pauseInformerButton(k.Kind))
		}
	}
	return p.offerButtons(ofKind...), p.offerButtons(ofInformer...)
}

// readCharts reads the outcomes of attempts.
func (h *handler) readCharts(ctx context.Context, shown *kindPage, kind string, asked chartSpan) error {
	// The current step is the last one.
	long := time.Duration(asked.hours) * time.Hour
	from := time.Now().UTC().Truncate(asked.step).Add(asked.step - long)
	figures, err := h.client.FigureSteps(ctx, kind, from, asked.step)
	if err != nil {
		return err
	}
	all := arrangeFigures(figures, from, asked.step, int(long/asked.step))
	shown.Attempts, shown.Durations, shown.Rows = all.attemptChart(), all.durationChart(), all.tableRows()
	return nil
}

// errorGroup is a group of errors as a page shows it.
type errorGroup struct {
	Text, Count string
	LastAt      *time.Time
	Examples    []exampleLine
}

type exampleLine struct{ ID, Address string }

// readErrorGroups groups errors. text describes the grouped resources, or why the groups are missing.
func (h *handler) readErrorGroups(ctx context.Context, kind string) (groups []errorGroup, text string) {
	waiting, cancel := context.WithTimeout(ctx, groupsTimeout)
	defer cancel()
	found, read, err := h.client.ErrorGroups(waiting, kind)
	switch {
	case err != nil && waiting.Err() != nil:
		return nil, "Grouping errors takes longer than " + groupsTimeout.String() + ". See the degraded resources."
	case err != nil:
		h.config.Logger.Error("delta: console: grouping errors", "kind", kind, "error", err)
		return nil, "Errors could not be read; the log of the console says why."
	case len(found) == 0:
		return nil, "No resource is degraded or waits for a retry."
	}
	text = "Of " + wording.Count(read, "resource") + " that are degraded or wait for a retry."
	if read == delta.MaxErrorsGrouped {
		text = "Of the first " + wording.Count(read, "resource") + " found that are degraded or wait for a retry."
	}
	for i := range found {
		group := errorGroup{Text: found[i].Pattern, Count: wording.Count(found[i].Count, "resource"), LastAt: &found[i].LastAt}
		if n := found[i].Degraded; n > 0 && n < found[i].Count {
			group.Count += ", " + wording.Number(n) + " of them degraded"
		} else if n == 0 {
			group.Count += ", waiting for a retry"
		}
		for _, id := range found[i].ObjectIDs {
			group.Examples = append(group.Examples, exampleLine{id, resourceAddress(kind, id)})
		}
		if h.config.Redact != nil {
			if i == groupsShown {
				break
			}
			group.Text = h.redactedError(ctx, kind, found[i].ObjectIDs[0])
		}
		groups = append(groups, group)
	}
	return groups, text
}

// redactedError returns the latest error of a resource after Redact, which works on rows, not on groups.
func (h *handler) redactedError(ctx context.Context, kind, id string) string {
	row, err := h.client.Get(ctx, kind, id)
	if err != nil {
		return "It could not be read."
	}
	if row = h.redactRow(row); len(row.Errors) == 0 {
		return "It is hidden."
	}
	return shortenText(row.Errors[len(row.Errors)-1].Error)
}

// shardLine is a shard of a kind.
type shardLine struct {
	*delta.ShardStatus
	State, LastSuccess, Lag string
	Buttons                 []button
}

func (p *commandPage) shardLineOf(s *delta.ShardStatus, now time.Time) shardLine {
	line := shardLine{ShardStatus: s, State: "runs", LastSuccess: agoText(s.LastSuccess, now), Lag: "–"}
	if s.Lag > 0 {
		line.Lag = wording.Duration(s.Lag)
	}
	kind := p.r.URL.Query().Get("kind")
	toggle := pauseShardButton(kind, s.Shard)
	switch {
	case s.GoneSince != nil:
		line.State = "gone since " + s.GoneSince.Format(time.RFC3339)
	case s.Paused:
		line.State, toggle = "paused", resumeShardButton(kind, s.Shard)
	case s.Error != "":
		line.State = "its latest pass failed"
	}
	if s.GoneSince == nil {
		line.Buttons = p.offerButtons(toggle)
	}
	if s.Withheld != nil && s.Withheld.Decision == "" {
		line.Buttons = append(line.Buttons, p.offerButtons(decisionButtons(s.Withheld)...)...)
	}
	return line
}

// passLine is a pass of an informer.
type passLine struct {
	*delta.InformPass
	Began *time.Time
	// By is the trigger that started the pass, Rare the counts that are seldom above 0; empty if there are none.
	By, Took, Rare string
	// ShardAddress is the page with the passes of the same shard; empty if the pass has none.
	ShardAddress string
}

func passLineOf(p *delta.InformPass) passLine {
	line := passLine{InformPass: p, Began: &p.StartedAt, By: p.Trigger, Took: "runs, or its worker was lost"}
	if p.FullListing {
		line.By += ", all"
	}
	if p.EndedAt != nil {
		line.Took = durationText(p.EndedAt.Sub(p.StartedAt))
	}
	if p.Shard != "" {
		line.ShardAddress = kindAddress(p.Kind) + "&shard=" + url.QueryEscape(p.Shard)
	}
	for _, rare := range []struct {
		n    int64
		what string
	}{{p.Stale, "stale"}, {p.Refused, "refused"}, {p.Unkept, "not kept"}, {p.Deleted, "deleted"}, {p.Withheld, "withheld"}} {
		if rare.n > 0 {
			if line.Rare != "" {
				line.Rare += ", "
			}
			line.Rare += wording.Number(rare.n) + " " + rare.what
		}
	}
	return line
}
