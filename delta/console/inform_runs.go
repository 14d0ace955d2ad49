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
	// maxRuns is how many informer runs are remembered; the oldest are forgotten first.
	maxRuns = 100
	// runTimeout is how long a run is watched. The run itself continues in Temporal.
	runTimeout = 24 * time.Hour
	// runKeepAlive is how often the page of a run sends something even if nothing has changed, so that no proxy closes it as idle.
	runKeepAlive = 10 * time.Second
)

// informRuns are the informer runs that this process started. The history of passes has those of all processes.
type informRuns struct {
	client *delta.Client
	logger *slog.Logger

	mu  sync.Mutex
	all []*informRun
}

// informRun is an informer run that this process started.
type informRun struct {
	id, kind  string
	startedAt time.Time

	mu       sync.Mutex
	progress delta.InformProgress
	// changed is closed and replaced when there is news.
	changed chan struct{}
	// ended is set at the end, and err if the run failed.
	ended bool
	err   error
}

// start runs the informer of a kind, and returns when Temporal has accepted the run. A goroutine watches it until it ends.
func (s *informRuns) start(kind string, all bool, log *slog.Logger) (*informRun, error) {
	run := &informRun{id: rand.Text(), kind: kind, startedAt: time.Now(), changed: make(chan struct{})}
	ctx, cancel := context.WithTimeout(context.Background(), runTimeout)
	began, ended := make(chan struct{}), make(chan error, 1)
	var once sync.Once
	go func() {
		defer cancel()
		result, err := s.client.WatchInform(ctx, delta.ScheduleInformParams{ResourceKind: kind, FullListing: all, RunForeground: true}, nil, func(p delta.InformProgress) {
			run.noteProgress(p)
			once.Do(func() { close(began) })
		})
		ended <- err
		run.noteEnd(result, err)
		if err != nil {
			log.Warn("delta: console: informer run failed", "error", err)
			return
		}
		log.Info("delta: console: informer run ended", "listed", result.Listed, "deleted", result.Deleted)
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
	s.all = s.all[max(0, len(s.all)-maxRuns):]
	return run, nil
}

// find returns a run, or nil if there is none.
func (s *informRuns) find(id string) *informRun {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, run := range s.all {
		if run.id == id {
			return run
		}
	}
	return nil
}

// ofKind returns the runs of a kind, the latest first.
func (s *informRuns) ofKind(kind string) (all []*informRun) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.all) - 1; i >= 0; i-- {
		if s.all[i].kind == kind {
			all = append(all, s.all[i])
		}
	}
	return all
}

func (r *informRun) noteProgress(p delta.InformProgress) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p == r.progress {
		return
	}
	r.progress = p
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *informRun) noteEnd(result *delta.InformRun, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if result != nil {
		r.progress.InformRun = *result
	}
	r.ended, r.err = true, err
	close(r.changed)
	r.changed = make(chan struct{})
}

// runStep is the progress of a run in words.
type runStep struct {
	Text, Failure string
	// Done and Of are for a progress bar; Of is 0 if the total is not known.
	Done, Of    int
	Ended, Good bool
}

// currentStep returns the progress, and a channel that is closed when it has changed.
func (r *informRun) currentStep() (runStep, <-chan struct{}) {
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
	case p.IsSettling:
		step.Done, step.Of = max(p.Listed-p.Unsettled, 0), p.Listed
		step.Text = wording.Number(step.Done) + " of " + wording.Number(step.Of) + " settled."
	default:
		step.Text = "Listing: " + wording.Count(p.Listed, "object") + " so far."
	}
	return step, r.changed
}

// resultText returns the result of a run in words.
func resultText(r *delta.InformRun) string {
	text := wording.Number(r.Listed) + " listed, " + wording.Number(r.Scheduled) + " to sync"
	for _, rare := range []struct {
		n    int64
		what string
	}{
		{int64(r.Stale), "older than what is stored"},
		{int64(r.Refused), "refused"},
		{int64(r.Deleted), "gone and marked deleted"},
		{r.Withheld, "gone, but withheld from deletion until a person decides"},
	} {
		if rare.n > 0 {
			text += ", " + wording.Number(rare.n) + " " + rare.what
		}
	}
	return text
}

// showInformRun streams the progress of a run: the page is sent in parts, and a rule of the stylesheet hides each part when the next one arrives. So the
// page is live without a script, and a screen reader announces it like any log.
func (h *handler) showInformRun(w http.ResponseWriter, r *http.Request, _ string) {
	run := h.informRuns.find(r.URL.Query().Get("id"))
	if run == nil {
		h.showProblem(w, http.StatusNotFound, "This process of the console knows no such run. See the passes on the page of its kind.")
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("X-Accel-Buffering", "no") // otherwise nginx buffers the response until its end
	send := func(name string, data any) bool {
		if err := templates.ExecuteTemplate(w, name, data); err != nil {
			return false
		}
		_ = http.NewResponseController(w).Flush() // a writer that cannot flush sends it at the end
		return true
	}
	page := map[string]any{"Kind": run.kind, "StartedAt": &run.startedAt}
	if r.Method == http.MethodHead || !send("run.html", page) {
		return
	}
	for {
		step, changed := run.currentStep()
		if !send("run-step.html", step) {
			return
		}
		if step.Ended {
			send("run-end.html", page)
			return
		}
		select {
		case <-changed:
		case <-time.After(runKeepAlive):
		case <-r.Context().Done():
			return
		}
	}
}
