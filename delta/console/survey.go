package console

import (
	"context"
	"sync"
	"time"

	"github.com/chariot-giving/delta/delta"
)

const (
	// surveyMinAge is how long, at least, all pages show the same survey. surveyShare is that time as a multiple of the survey's own duration: a survey asks
	// Temporal about each kind, so it runs less often the more kinds there are. It is surveyMaxAge at most: a survey may have waited for a server that did not
	// answer, and that is when users look.
	surveyMinAge = 3 * time.Second
	surveyShare  = 20
	surveyMaxAge = time.Minute
	// surveyTimeout bounds a survey.
	surveyTimeout = 2 * time.Minute
	// surveyWait is how long a page waits for a new survey if there is an older one to show.
	surveyWait = time.Second
	// overviewSpan and overviewStep are the span and step of the small charts in the overview.
	overviewSpan = 3 * time.Hour
	overviewStep = 10 * time.Minute
)

// surveyResult is the result of a survey.
type surveyResult struct {
	*delta.Diagnosis
	// hour has the figures of the last hour by kind; steps has those of overviewSpan since from, in steps of overviewStep.
	hour  map[string]delta.Figure
	steps map[string][]delta.Figure
	from  time.Time
	// figuresError is the reason why figures are missing; nil otherwise.
	figuresError error
	took         time.Duration
	// commands is the value of survey.commands when the survey began.
	commands int
}

// survey reads the state of the whole installation. That is expensive and the same for all browsers, so at most one survey runs at a time, and all
// pages show the latest.
type survey struct {
	client *delta.Client

	mu      sync.Mutex
	latest  *surveyResult
	running chan struct{} // closed when the running survey has ended; nil if none is running
	// commands counts the commands that this process was given. A survey that began before a command does not show its effect.
	commands int
}

// noteCommand makes the next page wait for a survey that began after a command.
func (s *survey) noteCommand() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.commands++
}

// awaitResult returns the latest survey, after running a new one if it is too old. It returns the error of ctx if there is none to show.
func (s *survey) awaitResult(ctx context.Context) (*surveyResult, error) {
	for {
		latest, ended, isStale := s.checkLatest()
		if ended == nil {
			return latest, nil
		}
		// A survey from before a command is shown only if ctx ends before a newer one is ready.
		wait, cancel := ctx, context.CancelFunc(func() {})
		if latest != nil && !isStale {
			wait, cancel = context.WithTimeout(ctx, surveyWait)
		}
		select {
		case <-ended:
			cancel()
		case <-wait.Done():
			cancel()
			if latest == nil {
				return nil, ctx.Err()
			}
			return latest, nil
		}
	}
}

// checkLatest returns the latest survey, and the channel that is closed when a newer one is ready; nil if the latest is fresh enough. isStale reports
// whether a command was given after the latest survey began.
func (s *survey) checkLatest() (latest *surveyResult, ended <-chan struct{}, isStale bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.latest != nil {
		isStale = s.latest.commands < s.commands
		if !isStale && time.Since(s.latest.At) < s.latest.maxAge() {
			return s.latest, nil, false
		}
	}
	if s.running == nil {
		s.running = make(chan struct{})
		go s.run(s.commands, s.running)
	}
	return s.latest, s.running, isStale
}

// maxAge is how long pages show a survey, from its beginning.
func (f *surveyResult) maxAge() time.Duration {
	return f.took + min(max(surveyMinAge, surveyShare*f.took), surveyMaxAge)
}

// run makes a survey for all waiting pages.
func (s *survey) run(commands int, ended chan struct{}) {
	ctx, cancel := context.WithTimeout(context.Background(), surveyTimeout)
	defer cancel()
	began := time.Now()
	f := &surveyResult{Diagnosis: s.client.Doctor(ctx), hour: map[string]delta.Figure{}, steps: map[string][]delta.Figure{}, commands: commands}
	f.readFigures(ctx, s.client, began)
	f.took = time.Since(began)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.latest, s.running = f, nil
	close(ended)
}

func (f *surveyResult) readFigures(ctx context.Context, client *delta.Client, now time.Time) {
	hour, err := client.FigureSteps(ctx, "", now.Add(-time.Hour), 2*time.Hour)
	if err != nil {
		f.figuresError = err
		return
	}
	for _, one := range hour {
		f.hour[one.Kind] = one
	}
	f.from = now.UTC().Truncate(overviewStep).Add(overviewStep - overviewSpan)
	steps, err := client.FigureSteps(ctx, "", f.from, overviewStep)
	if err != nil {
		f.figuresError = err
		return
	}
	for _, one := range steps {
		f.steps[one.Kind] = append(f.steps[one.Kind], one)
	}
}
