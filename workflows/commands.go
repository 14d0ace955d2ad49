package workflows

import (
	"encoding/json"
	"fmt"
	"strings"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/internal/wording"
)

// Search attributes of a resource's workflow.
var (
	KindAttribute      = temporal.NewSearchAttributeKeyKeyword("DeltaKind")
	NamespaceAttribute = temporal.NewSearchAttributeKeyKeyword("DeltaNamespace")
	StateAttribute     = temporal.NewSearchAttributeKeyKeyword("DeltaState")
)

// commands receives the commands that signals carry while the workflow runs.
type commands struct {
	signals map[activities.Command]workflow.ReceiveChannel
	// woken reports whether a command has changed the row, so that the next attempt has to read it.
	woken bool
	// running counts the commands that are being carried out.
	running int
	// refused describes the latest commands that could not be carried out.
	refused []string
}

const maxRefused = 5

func newCommands(ctx workflow.Context) *commands {
	c := &commands{signals: map[activities.Command]workflow.ReceiveChannel{}}
	for _, command := range activities.Commands() {
		c.signals[command] = workflow.GetSignalChannel(ctx, string(command))
	}
	return c
}

// serveSignals answers queries and receives signals for as long as the workflow runs.
func (l *lifecycle) serveSignals(ctx workflow.Context) error {
	err := workflow.SetQueryHandlerWithOptions(ctx, StateQuery, func() (activities.Step, error) { return l.last, nil },
		workflow.QueryHandlerOptions{Description: "The result of the latest step, and what the resource waits for."})
	if err != nil {
		return err
	}
	selector := workflow.NewSelector(ctx)
	for _, command := range activities.Commands() {
		selector.AddReceive(l.signals[command], func(c workflow.ReceiveChannel, _ bool) {
			// The payload stays raw, because the activity validates it.
			var payload converter.RawValue
			c.Receive(ctx, &payload)
			l.running++
			workflow.Go(ctx, func(ctx workflow.Context) {
				defer func() { l.running-- }()
				l.executeCommand(ctx, command, payload.Payload().GetData())
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

// executeCommand carries out a command. One that cannot be carried out is shown in the details, and changes nothing.
func (l *lifecycle) executeCommand(ctx workflow.Context, command activities.Command, payload []byte) {
	in := activities.CommandInput{Ref: l.ref, Command: command}
	if json.Valid(payload) {
		in.Payload = payload
	}
	options := commandOptions
	options.Summary = string(command)
	if _, err := runCommand.runLocal(ctx, options, in); err != nil {
		l.refused = append(l.refused, fmt.Sprintf("Refused: %s: %s", command, err.Error()))
		l.refused = l.refused[max(len(l.refused)-maxRefused, 0):]
		l.showDetails(ctx, describeWait(l.last, workflow.Now(ctx)))
		return
	}
	l.woken = true
}

// isQuiet reports whether no command is being carried out or waits to be.
func (l *lifecycle) isQuiet() bool {
	for _, command := range activities.Commands() {
		if l.signals[command].Len() > 0 {
			return false
		}
	}
	return l.running == 0
}

// showDetails writes the workflow's details: the UI shows their first lines. The server does not store them, so it asks
// a worker for them.
func (l *lifecycle) showDetails(ctx workflow.Context, doing string) {
	lines := append(l.describeStep(doing), l.refused...)
	workflow.SetCurrentDetails(ctx, strings.Join(lines, "\n\n"))
}

// describeStep describes the resource after the last step.
func (l *lifecycle) describeStep(doing string) []string {
	s := l.last
	switch {
	case s.Next == "":
		return []string{fmt.Sprintf("It %s for the first time in this run.", doing)}
	case s.State == "":
		return []string{"State: **removed**", fmt.Sprintf("There is no row of it any more. It %s.", doing)}
	}
	state := string(s.State)
	if s.Error != "" {
		state += ": " + s.Error
	}
	return []string{
		fmt.Sprintf("State: **%s**", state),
		fmt.Sprintf("It %s. Attempt %d of %d, generation %d (%d synced), synced %s.",
			doing, s.Attempt, s.MaxAttempts, s.Generation, s.SyncedGeneration, wording.Count(s.SyncCount, "time")),
	}
}
