package console

import (
	"context"
	"sync"
	"time"

	"github.com/chariot-giving/delta/delta"
)

const (
	// surveyFresh is how long what a survey has found is shown to all before it is made again, and surveyShare how many times its own duration it is
	// shown at least: a survey asks Temporal of each kind, so it is made the less often the more there are.
	surveyFresh = 3 * time.Second
	surveyShare = 20
	// surveyTimeout bounds one, of which nobody may wait any longer.
	surveyTimeout = 2 * time.Minute
	// surveyWait is how long a page waits for a newer survey where it has one to show.
	surveyWait = time.Second
	// overviewSpan and overviewStep are of the small charts of the overview.
	overviewSpan = 3 * time.Hour
	overviewStep = 10 * time.Minute
)

// found is the result of a survey.
type found struct {
	*delta.Diagnosis
	// hour has the figures of the last hour of each kind, steps those of overviewSpan by overviewStep since from.
	hour  map[string]delta.Figure
	steps map[string][]delta.Figure
	from  time.Time
	// figuresError is why figures are missing; nil otherwise.
	figuresError error
	took         time.Duration
	// commands is how many commands had been given when it began.
	commands int
}

// survey looks at the whole installation, which is expensive and the same for all: one look is under way at most, however many browsers ask, and pages show the latest.
type survey struct {
	client *delta.Client

	mu      sync.Mutex
	latest  *found
	running chan struct{} // closed when the one that is under way has ended; nil where none is
	// commands counts those that were given here, of which a survey that began before shows nothing.
	commands int
}

// noteCommand has the next page show what a command has changed.
func (s *survey) noteCommand() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.commands++
}

// get returns the latest survey, after it has been made again where it is old. Its error is that of ctx, where there is none to show.
func (s *survey) get(ctx context.Context) (*found, error) {
	for {
		latest, ended, isStale := s.look()
		if ended == nil {
			return latest, nil
		}
		// What was found before a command is not shown after it, unless there is nothing else in time.
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

// look returns the latest survey, and what is closed when the one has ended that is to be waited for; nil where the latest will do. isStale is
// whether a command was given since the latest began.
func (s *survey) look() (latest *found, ended <-chan struct{}, isStale bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.latest != nil {
		isStale = s.latest.commands < s.commands
		if !isStale && time.Since(s.latest.At) < max(surveyFresh, surveyShare*s.latest.took) {
			return s.latest, nil, false
		}
	}
	if s.running == nil {
		s.running = make(chan struct{})
		go s.make(s.commands, s.running)
	}
	return s.latest, s.running, isStale
}

// make looks, for all who wait for it.
func (s *survey) make(commands int, ended chan struct{}) {
	ctx, cancel := context.WithTimeout(context.Background(), surveyTimeout)
	defer cancel()
	began := time.Now()
	f := &found{Diagnosis: s.client.Doctor(ctx), hour: map[string]delta.Figure{}, steps: map[string][]delta.Figure{}, commands: commands}
	f.readFigures(ctx, s.client, began)
	f.took = time.Since(began)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.latest, s.running = f, nil
	close(ended)
}

func (f *found) readFigures(ctx context.Context, client *delta.Client, now time.Time) {
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
