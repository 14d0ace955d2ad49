package workflows_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"github.com/chariot-giving/delta/activities"
)

func TestASignalForEachCommandOrdersItAndWakes(t *testing.T) {
	t.Parallel()
	require.Contains(t, activities.Commands(), activities.CommandSync)
	for _, command := range activities.Commands() {
		t.Run(string(command), func(t *testing.T) {
			t.Parallel()
			p := newPlay(
				t,
				scene{step: settledStep(1, day)},
				scene{at: hour, step: settledStep(2, day)},
				scene{at: hour + day, retention: true, step: none},
			)
			p.commandAfter(hour, command, map[string]string{"some": "payload"})
			require.NoError(t, p.run())
			require.Equal(t, []activities.CommandInput{{Ref: ref, Command: command, Payload: json.RawMessage(`{"some":"payload"}`)}}, p.commands)
			require.Equal(t, []time.Duration{hour}, p.orderedAt)
		})
	}
}

func TestTheSignalSyncInterruptsTheBackoff(t *testing.T) {
	t.Parallel()
	p := newPlay(
		t,
		scene{step: retryAfter(day)},
		scene{at: hour, step: none},
	)
	p.commandAfter(hour, activities.CommandSync, nil)
	require.NoError(t, p.run())
	require.Len(t, p.commands, 1)
	require.Equal(t, activities.CommandSync, p.commands[0].Command)
}

// An attempt may take hours, and may have all the slots of a worker: a command that waited for one of them could not delete the
// resource meanwhile.
func TestACommandDoesNotWaitForTheAttemptThatRuns(t *testing.T) {
	t.Parallel()
	for _, command := range activities.Commands() {
		t.Run(string(command), func(t *testing.T) {
			t.Parallel()
			p := newPlay(
				t,
				scene{step: settledStep(1, day), command: command},
				scene{step: none}, // it looks at what the command did
			)
			require.NoError(t, p.run())
			require.Len(t, p.commands, 1)
			require.True(t, p.commandInfos[0].IsLocalActivity, "a command takes none of the slots of attempts")
		})
	}
}

func TestACommandThatIsRefusedWakesNothing(t *testing.T) {
	t.Parallel()
	p := newPlay(
		t,
		scene{step: settledStep(1, day)},
		scene{at: day, retention: true, step: none},
	)
	p.refuse = temporal.NewNonRetryableApplicationError("it is synced", activities.Refused, nil)
	p.commandAfter(hour, activities.CommandRetry, nil)
	require.NoError(t, p.run())
	require.Len(t, p.commands, 1, "it is not tried again")
}
