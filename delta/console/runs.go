package console

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/wording"
)

const (
	// mostRuns is how many runs of informers are remembered, the latest.
	mostRuns = 100
	// runTimeout is how long one is watched. It goes on in Temporal after that.
	runTimeout = 24 * time.Hour
	// runQuiet is how often a page that shows a run says something even where nothing has changed, so that no proxy takes it for dead.
	runQuiet = 10 * time.Second
)

// runs are the runs of informers that were asked for here. Those of other processes are in the history of passes.
type runs struct {
	client *delta.Client
	logger *slog.Logger

	mu  sync.Mutex
	all []*informRun
}

// informRun is one of them.
type informRun struct {
	id, kind  string
	startedAt time.Time

	mu       sync.Mutex
	progress delta.InformProgress
	// changed is closed when there is something new, and replaced.
	changed chan struct{}
	// ended is set at the end, err where that was a failure.
	ended bool
	err   error
}

// start has a kind's informer run, and returns once Temporal has it. It is watched until it ends.
func (s *runs) start(kind string, all bool, log *slog.Logger) (*informRun, error) {
	run := &informRun{id: rand.Text(), kind: kind, startedAt: time.Now(), changed: make(chan struct{})}
	ctx, cancel := context.WithTimeout(context.Background(), runTimeout)
	began, ended := make(chan struct{}), make(chan error, 1)
	var once sync.Once
	go func() {
		defer cancel()
		result, err := s.client.WatchInform(ctx, delta.ScheduleInformParams{ResourceKind: kind, FullListing: all, RunForeground: true}, nil, func(p delta.InformProgress) {
			run.report(p)
			once.Do(func() { close(began) })
		})
		ended <- err
		run.end(result, err)
		if err != nil {
			log.Warn("delta: console: run of an informer failed", "error", err)
			return
		}
		log.Info("delta: console: run of an informer ended", "listed", result.Listed, "deleted", result.Deleted)
	}()
	select {
	case <-began:
	case err := <-ended:
		if err != nil {
			return nil, err
		}
	case <-time.After(commandTimeout):
		cancel()
		return nil, context.DeadlineExceeded
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, run)
	s.all = s.all[max(0, len(s.all)-mostRuns):]
	return run, nil
}

// find returns a run; nil where there is none.
func (s *runs) find(id string) *informRun {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, run := range s.all {
		if run.id == id {
			return run
		}
	}
	return nil
}

// ofKind are the runs of a kind, the latest first.
func (s *runs) ofKind(kind string) (all []*informRun) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.all) - 1; i >= 0; i-- {
		if s.all[i].kind == kind {
			all = append(all, s.all[i])
		}
	}
	return all
}

func (r *informRun) report(p delta.InformProgress) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p == r.progress {
		return
	}
	r.progress = p
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *informRun) end(result *delta.InformRun, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if result != nil {
		r.progress.InformRun = *result
	}
	r.ended, r.err = true, err
	close(r.changed)
	r.changed = make(chan struct{})
}

// runStep is how a run stands, in the words of the page.
type runStep struct {
	Text, Failure string
	// Done and Of are for a bar; Of is 0 where nobody knows how much there is.
	Done, Of    int
	Ended, Good bool
}

// now is how it stands, and what is closed when that has changed.
func (r *informRun) now() (runStep, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.progress
	step := runStep{Failure: p.LastFailure, Ended: r.ended, Good: r.ended && r.err == nil}
	switch {
	case r.ended && r.err != nil:
		step.Text, step.Failure = "It failed after "+wording.Count(p.Listed, "object")+" listed.", r.err.Error()
	case r.ended:
		step.Text = "Done: " + resultText(&p.InformRun) + "."
		step.Done, step.Of = 1, 1
	case p.Settling:
		step.Done, step.Of = max(p.Listed-p.Unsettled, 0), p.Listed
		step.Text = wording.Number(step.Done) + " of " + wording.Number(step.Of) + " settled."
	default:
		step.Text = "Listing: " + wording.Count(p.Listed, "object") + " so far."
	}
	return step, r.changed
}

// resultText is the result of a run in words.
func resultText(r *delta.InformRun) string {
	text := wording.Number(r.Listed) + " listed, " + wording.Number(r.Scheduled) + " to sync"
	for _, rare := range []struct {
		n    int64
		what string
	}{
		{int64(r.Stale), "older than what is stored"},
		{int64(r.Refused), "refused"},
		{int64(r.Deleted), "gone and marked deleted"},
		{r.Withheld, "gone, and withheld from deletion until somebody decides"},
	} {
		if rare.n > 0 {
			text += ", " + wording.Number(rare.n) + " " + rare.what
		}
	}
	return text
}

// run shows a run as it goes on: the page is sent bit by bit, and each bit takes the place of the one before it, by a rule of the stylesheet. So it is
// live without a script, and a screen reader is told of it as of any log.
func (h *handler) run(w http.ResponseWriter, r *http.Request, _ string) {
	run := h.runs.find(r.URL.Query().Get("id"))
	if run == nil {
		h.problem(w, http.StatusNotFound, "This process of the console knows no such run. The history of passes of its kind has it.")
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would keep it until its end
	send := func(name string, data any) bool {
		if err := templates.ExecuteTemplate(w, name, data); err != nil {
			return false
		}
		_ = http.NewResponseController(w).Flush() // a writer that cannot shows it at its end
		return true
	}
	page := map[string]any{"Kind": run.kind, "StartedAt": &run.startedAt}
	if r.Method == http.MethodHead || !send("run.html", page) {
		return
	}
	for {
		step, changed := run.now()
		if !send("run-step.html", step) {
			return
		}
		if step.Ended {
			send("run-end.html", page)
			return
		}
		select {
		case <-changed:
		case <-time.After(runQuiet):
		case <-r.Context().Done():
			return
		}
	}
}
