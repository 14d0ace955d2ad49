package workflows_test

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/workflows"
)

// TestHistoriesReplay is the promise to workflows that are running: the code of today makes, on what happened
// to them, the decisions that were made then. The histories are recorded by TestRecord.
func TestHistoriesReplay(t *testing.T) {
	t.Parallel()
	for _, file := range listHistories(t) {
		t.Run(historyName(file), func(t *testing.T) {
			t.Parallel()
			require.NoError(t, replayHistory(t, readHistory(t, file)))
		})
	}
}

// A replay that could not fail would prove nothing: each history is also replayed with one call in it that the code
// does not make.
func TestAHistoryOfOtherCallsDoesNotReplay(t *testing.T) {
	t.Parallel()
	for _, file := range listHistories(t) {
		t.Run(historyName(file), func(t *testing.T) {
			t.Parallel()
			history := readHistory(t, file)
			other := false
			for _, e := range history.GetEvents() {
				if other {
					break
				}
				if scheduled := e.GetActivityTaskScheduledEventAttributes(); scheduled != nil {
					scheduled.ActivityType.Name, other = "delta.Other", true
				}
				for _, local := range e.GetMarkerRecordedEventAttributes().GetDetails()["data"].GetPayloads() {
					renamed := strings.Replace(string(local.GetData()), `"delta.`, `"delta.Other`, 1)
					local.Data, other = []byte(renamed), true
				}
			}
			require.True(t, other, "there is no activity in the history")
			require.Error(t, replayHistory(t, history))
		})
	}
}

// A recorded history shows the options of activities. A test environment would add bounds to them.
func TestAttemptsInHistoriesAreUnbounded(t *testing.T) {
	t.Parallel()
	attempts := 0
	for _, file := range listHistories(t) {
		for _, e := range readHistory(t, file).GetEvents() {
			scheduled := e.GetActivityTaskScheduledEventAttributes()
			if scheduled.GetActivityType().GetName() != activities.AttemptName {
				continue
			}
			attempts++
			require.Zero(t, scheduled.GetRetryPolicy().GetMaximumAttempts(), file)
			require.Equal(t, activities.HeartbeatTimeout, scheduled.GetHeartbeatTimeout().AsDuration(), file)
			require.Greater(t, scheduled.GetStartToCloseTimeout().AsDuration(), 365*day, file)
		}
	}
	require.Positive(t, attempts)
}

// Objects stay in the database: a history names the resource, its state, and the latest error. Only a signal that informs
// brings an object with it.
func TestHistoriesHoldNothingOfTheObject(t *testing.T) {
	t.Parallel()
	for _, file := range listHistories(t) {
		content := readHistory(t, file).String()
		require.Contains(t, content, "installation", "payloads are to be read in the text of a history")
		if historyName(file) == "commanded-by-signals" {
			continue
		}
		for _, own := range []string{"free", "paid", "plan"} {
			require.NotContains(t, content, own, file)
		}
	}
}

func listHistories(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.json")
	require.NoError(t, err)
	require.NotEmpty(t, files, "there are no histories in testdata: record them, see record_test.go")
	return files
}

func historyName(file string) string { return strings.TrimSuffix(filepath.Base(file), ".json") }

func readHistory(t *testing.T, file string) *historypb.History {
	t.Helper()
	f, err := os.Open(file)
	require.NoError(t, err)
	defer f.Close() //nolint:errcheck // it was read only
	history, err := client.HistoryFromJSON(f, client.HistoryJSONOptions{})
	require.NoError(t, err)
	return history
}

func newReplayer(t *testing.T) worker.WorkflowReplayer {
	t.Helper()
	// A replay that has not yielded for a second is not stuck: the machine may be busy. See environment.
	r, err := worker.NewWorkflowReplayerWithOptions(worker.WorkflowReplayerOptions{DisableDeadlockDetection: true})
	require.NoError(t, err)
	workflows.Kinds{}.RegisterResource(r)
	workflows.RegisterInform(r, workflow.VersioningBehaviorAutoUpgrade)
	return r
}

// replayHistory replays a history under the id that its workflow had: children are named by that.
func replayHistory(t *testing.T, history *historypb.History) error {
	t.Helper()
	options := worker.ReplayWorkflowHistoryOptions{}
	options.OriginalExecution.ID = history.GetEvents()[0].GetWorkflowExecutionStartedEventAttributes().GetWorkflowId()
	return newReplayer(t).ReplayWorkflowHistoryWithOptions(quietLogger(), history, options)
}

func quietLogger() log.Logger {
	return log.NewStructuredLogger(slog.New(slog.NewTextHandler(io.Discard, nil)))
}
