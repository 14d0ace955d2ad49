package workflows

import (
	"encoding/json"
	"fmt"
	"strings"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/chariot-giving/delta/activities"
)

// Search attributes of a resource's workflow.
var (
	KindAttribute      = temporal.NewSearchAttributeKeyKeyword("DeltaKind")
	NamespaceAttribute = temporal.NewSearchAttributeKeyKeyword("DeltaNamespace")
	StateAttribute     = temporal.NewSearchAttributeKeyKeyword("DeltaState")
)

// SyncRequest is what the update "sync" takes.
type SyncRequest struct {
	// Generation is the one to wait for; 0 has the resource synced now, whatever it waits for.
	Generation int64 `json:"generation,omitempty"`
}

// steerings are what signals and updates ask for while a lifecycle goes on.
type steerings struct {
	signals map[activities.Action]workflow.ReceiveChannel
	// woken tells that something was asked for that the next attempt is to look at.
	woken bool
	// running counts actions under way.
	running int
	// refused has the latest of what could not be done.
	refused []string
}

const maxRefused = 5

func newSteerings(ctx workflow.Context) *steerings {
	s := &steerings{signals: map[activities.Action]workflow.ReceiveChannel{}}
	for _, action := range activities.Actions() {
		s.signals[action] = workflow.GetSignalChannel(ctx, string(action))
	}
	return s
}

// serve answers queries and updates, and takes signals, for as long as the workflow runs.
func (l *lifecycle) serve(ctx workflow.Context) error {
	err := workflow.SetQueryHandlerWithOptions(ctx, StateQuery, func() (activities.Step, error) { return l.last, nil },
		workflow.QueryHandlerOptions{Description: "What the latest step came to, and what the resource waits for."})
	if err != nil {
		return err
	}
	err = workflow.SetUpdateHandlerWithOptions(ctx, SyncUpdate, l.sync, workflow.UpdateHandlerOptions{
		Description: "Syncs the resource now, or waits for the generation that is named, and answers when it has settled.",
	})
	if err != nil {
		return err
	}
	selector := workflow.NewSelector(ctx)
	for _, action := range activities.Actions() {
		selector.AddReceive(l.signals[action], func(c workflow.ReceiveChannel, _ bool) {
			// Taken as it is: what is wrong with a payload is for the activity to say.
			var payload converter.RawValue
			c.Receive(ctx, &payload)
			l.running++
			workflow.Go(ctx, func(ctx workflow.Context) {
				defer func() { l.running-- }()
				_, _ = l.steer(ctx, action, payload.Payload().GetData())
			})
		})
	}
	workflow.Go(ctx, func(ctx workflow.Context) {
		for ctx.Err() == nil {
			selector.Select(ctx)
		}
	})
	return nil
}

// steer has an action done. One that cannot be done is shown, and does no harm.
func (l *lifecycle) steer(ctx workflow.Context, action activities.Action, payload []byte) (activities.SteerResult, error) {
	in := activities.SteerInput{Ref: l.ref, Action: action}
	if json.Valid(payload) {
		in.Payload = payload
	}
	options := steerOptions
	options.Summary = string(action)
	result, err := steer.run(ctx, options, in)
	if err != nil {
		l.refused = append(l.refused, fmt.Sprintf("%s: %s", action, err.Error()))
		l.refused = l.refused[max(len(l.refused)-maxRefused, 0):]
		l.tell(ctx, waiting(l.last, workflow.Now(ctx)))
		return result, err
	}
	l.woken = true
	return result, nil
}

// sync is the update: it has the resource synced, and answers when it has settled.
func (l *lifecycle) sync(ctx workflow.Context, request SyncRequest) (activities.Step, error) {
	generation := request.Generation
	if generation == 0 {
		result, err := l.steer(ctx, activities.ActionSync, nil)
		if err != nil {
			return activities.Step{}, err
		}
		generation = result.Generation
	} else if l.steps > 0 && !settled(l.last, generation) {
		l.woken = true // before the first attempt there is one to come anyway
	}
	seen := l.steps
	err := workflow.Await(ctx, func() bool {
		if l.steps == 0 || l.last.Next == activities.NextNone && l.steps == seen {
			return false
		}
		return settled(l.last, generation) || l.last.Next == activities.NextNone
	})
	return l.last, err
}

// settled tells whether a generation needs no more attempts.
func settled(s activities.Step, generation int64) bool {
	switch s.Next {
	case activities.NextLapse:
		return s.Generation >= generation
	case activities.NextAttempt:
		return s.SyncedGeneration >= generation
	default:
		return s.Generation >= generation
	}
}

// quiet tells whether no action is under way, or waits to be.
func (l *lifecycle) quiet() bool {
	for _, action := range activities.Actions() {
		if l.signals[action].Len() > 0 {
			return false
		}
	}
	return l.running == 0
}

// tell writes what a person sees in the workflow's details: the UI shows the first lines of it.
func (l *lifecycle) tell(ctx workflow.Context, doing string) {
	s := l.last
	state := string(s.State)
	if state == "" {
		state = "no row yet"
	}
	if s.Error != "" {
		state += ": " + s.Error
	}
	lines := []string{
		fmt.Sprintf("State: **%s**", state),
		fmt.Sprintf("It %s. Attempt %d of %d, generation %d (%d synced), synced %d times.",
			doing, s.Attempt, s.MaxAttempts, s.Generation, s.SyncedGeneration, s.SyncCount),
	}
	for _, refused := range l.refused {
		lines = append(lines, "Refused: "+refused)
	}
	workflow.SetCurrentDetails(ctx, strings.Join(lines, "\n\n"))
}
