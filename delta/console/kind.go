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
	// groupsWait is how long a page waits for the groups of errors, and groupsAsked how many it shows where Redact hides
	// errors: each is read by itself then.
	groupsWait  = 2 * time.Second
	groupsShown = 10
	// passesShown is how many passes of the informer a page has.
	passesShown = 30
)

// spans are the times that the charts of a kind can show, by hours, and their steps.
var spans = []span{{1, time.Minute}, {6, 5 * time.Minute}, {24, 20 * time.Minute}, {48, 40 * time.Minute}}

type span struct {
	hours int
	step  time.Duration
}

// spanFor is the one that a request asks for, and the second otherwise.
func spanFor(r *http.Request) span {
	at := slices.IndexFunc(spans, func(s span) bool { return strconv.Itoa(s.hours) == r.URL.Query().Get("hours") })
	if at < 0 {
		return spans[1]
	}
	return spans[at]
}

// kind shows one kind.
func (h *handler) kind(w http.ResponseWriter, r *http.Request, user string) {
	name := r.URL.Query().Get("kind")
	f, w := h.surveyFor(w, r, name)
	if f == nil {
		return
	}
	at := slices.IndexFunc(f.Kinds, func(k delta.KindStatus) bool { return k.Kind == name })
	if at < 0 {
		h.problem(w, http.StatusNotFound, "There is no such kind: no client was started with it, and it has no resources.")
		return
	}
	asked := spanFor(r)
	ctx, cancel := context.WithTimeout(r.Context(), h.config.ReadTimeout)
	defer cancel()
	p := &page{h: h, w: w, r: r, user: user, back: "kind"}
	k := &f.Kinds[at]
	shown := kindPage{
		surveyed: surveyedOf(f, user), kindLine: lineOf(k, f), Items: p.attention(f, func(kind string) bool { return kind == name }),
		Hours: asked.hours, Shard: r.URL.Query().Get("shard"), Now: f.At,
	}
	for _, s := range spans {
		shown.Spans = append(shown.Spans, s.hours)
	}
	for _, s := range series {
		shown.Series = append(shown.Series, [2]string{s.class, s.name})
	}
	shown.Buttons, shown.InformerButtons = p.kindButtons(k, f.Temporal)
	for i := range k.Shards {
		shown.Shards = append(shown.Shards, p.shardOf(&k.Shards[i], f.At))
	}
	if err := h.readCharts(ctx, &shown, name, asked); err != nil {
		h.failed(w, r, err)
		return
	}
	passes, err := h.client.InformPasses(ctx, name, shown.Shard, passesShown)
	if err != nil {
		h.failed(w, r, err)
		return
	}
	for i := range passes {
		shown.Passes = append(shown.Passes, passOf(&passes[i]))
	}
	shown.Groups, shown.GroupsText = h.errorGroups(ctx, name)
	settings, err := h.client.KindSettings(name)
	if err != nil && !errors.Is(err, delta.ErrNotFound) {
		h.failed(w, r, err)
		return
	}
	shown.Settings = settings
	for _, run := range h.runs.ofKind(name) {
		if step, _ := run.now(); !step.Ended {
			shown.Runs = append(shown.Runs, "run?id="+run.id)
		}
	}
	h.render(w, http.StatusOK, "kind.html", shown)
}

type kindPage struct {
	surveyed
	kindLine
	Items []item
	// Buttons are for the kind, InformerButtons for its informer.
	Buttons, InformerButtons []button
	// Hours is the span of the charts, Spans those that there are.
	Hours int
	Spans []int
	// Series are the classes and the names of what the chart of attempts shows.
	Series              [][2]string
	Attempts, Durations chart
	Rows                []stepRow
	Groups              []errorGroup
	// GroupsText describes the resources that Groups were made of, or why they are missing.
	GroupsText string
	Shards     []shardLine
	// Shard is that of which the passes are; empty for all.
	Shard  string
	Passes []passLine
	// Runs are the pages of runs that were asked for here and go on.
	Runs     []string
	Settings []delta.Setting
	Now      time.Time
}

// kindButtons are those for a kind, and those for its informer.
func (p *page) kindButtons(k *delta.KindStatus, temporal *delta.TemporalStatus) (ofKind, ofInformer []button) {
	if k.Paused || k.SnoozedUntil != nil {
		ofKind = append(ofKind, resumeKind(k.Kind))
	}
	if !k.Paused {
		ofKind = append(ofKind, pauseKind(k.Kind))
	}
	if isInformerKnown(k) {
		ofInformer = append(ofInformer, runInformer(k.Kind))
		if k.FullListingInterval > 0 {
			ofInformer = append(ofInformer, runFullListing(k.Kind))
		}
		if isInformerPaused(k, temporal) {
			ofInformer = append(ofInformer, resumeInformer(k.Kind))
		} else {
			ofInformer = append(ofInformer, pauseInformer(k.Kind))
		}
	}
	return p.offer(ofKind...), p.offer(ofInformer...)
}

// readCharts reads what became of attempts.
func (h *handler) readCharts(ctx context.Context, shown *kindPage, kind string, asked span) error {
	// The step that goes on is the last.
	long := time.Duration(asked.hours) * time.Hour
	from := time.Now().UTC().Truncate(asked.step).Add(asked.step - long)
	figures, err := h.client.FigureSteps(ctx, kind, from, asked.step)
	if err != nil {
		return err
	}
	all := arrange(figures, from, asked.step, int(long/asked.step))
	shown.Attempts, shown.Durations, shown.Rows = all.attempts(), all.durations(), all.rows()
	return nil
}

// errorGroup is a group of errors as a page shows it.
type errorGroup struct {
	Text, Count string
	LastAt      *time.Time
	Examples    []exampleLine
}

type exampleLine struct{ ID, Address string }

// errorGroups groups errors. Its text describes the resources that they are of, or why that cannot be said in time.
func (h *handler) errorGroups(ctx context.Context, kind string) (groups []errorGroup, text string) {
	waiting, cancel := context.WithTimeout(ctx, groupsWait)
	defer cancel()
	found, read, err := h.client.ErrorGroups(waiting, kind)
	switch {
	case err != nil && waiting.Err() != nil:
		return nil, "Grouping them takes longer than " + groupsWait.String() + ". See the resources that are degraded."
	case err != nil:
		h.config.Logger.Error("delta: console: grouping errors", "kind", kind, "error", err)
		return nil, "They could not be read; the log of the console says why."
	case len(found) == 0:
		return nil, "No resource is degraded, or waits to be tried again."
	}
	text = "Of " + wording.Count(read, "resource") + " that are degraded or wait to be tried again."
	if read == delta.MaxErrorsGrouped {
		text = "Of the first " + wording.Count(read, "resource") + " that were found degraded, or waiting to be tried again."
	}
	for i := range found {
		group := errorGroup{Text: found[i].Pattern, Count: wording.Count(found[i].Count, "resource"), LastAt: &found[i].LastAt}
		if n := found[i].Degraded; n > 0 && n < found[i].Count {
			group.Count += ", " + wording.Number(n) + " of them degraded"
		} else if n == 0 {
			group.Count += ", to be tried again"
		}
		for _, id := range found[i].ObjectIDs {
			group.Examples = append(group.Examples, exampleLine{id, addressOf(kind, id)})
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

// redactedError is the latest error of a resource as it may be shown: Redact knows rows, and not groups.
func (h *handler) redactedError(ctx context.Context, kind, id string) string {
	row, err := h.client.Get(ctx, kind, id)
	if err != nil {
		return "It could not be read."
	}
	if row = h.redacted(row); len(row.Errors) == 0 {
		return "It is hidden."
	}
	return shortened(row.Errors[len(row.Errors)-1].Error)
}

// shardLine is a shard of a kind.
type shardLine struct {
	*delta.ShardStatus
	State, LastSuccess, Lag string
	Buttons                 []button
}

func (p *page) shardOf(s *delta.ShardStatus, now time.Time) shardLine {
	line := shardLine{ShardStatus: s, State: "runs", LastSuccess: agoOf(s.LastSuccess, now), Lag: "–"}
	if s.Lag > 0 {
		line.Lag = wording.Duration(s.Lag)
	}
	kind := p.r.URL.Query().Get("kind")
	toggle := pauseShard(kind, s.Shard)
	switch {
	case s.GoneSince != nil:
		line.State = "gone since " + s.GoneSince.Format(time.RFC3339)
	case s.Paused:
		line.State, toggle = "paused", resumeShard(kind, s.Shard)
	case s.Error != "":
		line.State = "its latest pass failed"
	}
	if s.GoneSince == nil {
		line.Buttons = p.offer(toggle)
	}
	if s.Withheld != nil && s.Withheld.Decision == "" {
		line.Buttons = append(line.Buttons, p.offer(decide(s.Withheld)...)...)
	}
	return line
}

// passLine is a pass of an informer.
type passLine struct {
	*delta.InformPass
	Began *time.Time
	// By is the trigger that started it, Rare has the counts that are seldom above 0; empty where there are none.
	By, Took, Rare string
	// ShardAddress is the page with the passes of its shard; empty where it has none.
	ShardAddress string
}

func passOf(p *delta.InformPass) passLine {
	line := passLine{InformPass: p, Began: &p.StartedAt, By: p.Trigger, Took: "runs, or its worker was lost"}
	if p.FullListing {
		line.By += ", all"
	}
	if p.EndedAt != nil {
		line.Took = took(p.EndedAt.Sub(p.StartedAt))
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
