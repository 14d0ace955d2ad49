package delta_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
	"github.com/chariot-giving/delta/internal/stack"
)

// runTemporalCommand runs the temporal command, as an operator does.
func (h *harness) runTemporalCommand(args ...string) (string, error) {
	h.t.Helper()
	command := stack.TemporalCommand()
	require.NotEmpty(h.t, command, "`make temporal` builds it")
	args = append(args, "--address", h.TemporalAddress, "--namespace", h.TemporalNamespace)
	out, err := exec.CommandContext(h.t.Context(), command, args...).CombinedOutput()
	return string(out), err
}

func (h *harness) mustTemporal(args ...string) string {
	h.t.Helper()
	var out string
	until(h.t, func() bool {
		var err error
		out, err = h.runTemporalCommand(args...)
		// A busy server may refuse the call, or not answer a query in time: then repeat it.
		isQuestion := slices.Contains([]string{"query", "metadata"}, args[1])
		if err != nil && (strings.Contains(out, "Workflow is busy") || (isQuestion && strings.Contains(out, "deadline exceeded"))) {
			return false
		}
		require.NoError(h.t, err, out)
		return true
	})
	return out
}

// signalWithStart is the command of the guide: a signal that starts the workflow if it is not running.
func (h *harness) signalWithStart(id, signal, payload string) {
	h.t.Helper()
	args := []string{
		"workflow", "signal-with-start", "--signal-name", signal,
		"--workflow-id", h.Prefix + "/account/" + id, "--type", "delta.Resource", "--task-queue", h.Prefix + "/account",
		"--input", `{"kind": "account", "object_id": "` + id + `"}`,
	}
	if payload != "" {
		args = append(args, "--signal-input", payload)
	}
	h.mustTemporal(args...)
}

func TestSignalsFromTheCommandLine(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	var broken atomic.Bool
	h.startWorker(func(context.Context, *delta.Resource[account]) error {
		if broken.Load() {
			return delta.ResourceDegrade(errors.New("upstream says no"))
		}
		return nil
	})

	h.signalWithStart("ann", "inform", `{"object": {"name": "ann", "plan": "gold"}, "options": {"namespace": "red", "tags": ["from-cli"], "metadata": {"by": "me"}}}`)
	row := h.eventually("account", "ann", synced(1))
	require.JSONEq(t, `{"name": "ann", "plan": "gold"}`, string(row.EncodedObject))
	require.Equal(t, "red", row.Namespace)
	require.Equal(t, []string{"from-cli"}, row.Tags)

	h.signalWithStart("ann", "invalidate", "")
	h.eventually("account", "ann", synced(2))

	broken.Store(true)
	h.signalWithStart("ann", "inform", `{"object": {"name": "ann", "plan": "silver"}}`)
	h.eventually("account", "ann", inState(deltatype.ResourceStateDegraded))
	broken.Store(false)
	h.signalWithStart("ann", "retry", "")
	h.eventually("account", "ann", synced(4))

	// The state, as a query result and in words.
	until(t, func() bool {
		out := h.mustTemporal("workflow", "query", "--workflow-id", h.Prefix+"/account/ann", "--type", "state", "-o", "json")
		var answer struct {
			QueryResult []activities.Step `json:"queryResult"`
		}
		require.NoError(t, json.Unmarshal([]byte(out), &answer), out)
		return answer.QueryResult[0].State == deltatype.ResourceStateSynced && answer.QueryResult[0].SyncedGeneration == 4
	})

	h.signalWithStart("ann", "sync", "")
	h.eventually("account", "ann", func(r *deltatype.ResourceRow) bool { return r.SyncedGeneration == 5 })

	h.signalWithStart("ann", "delete", "")
	h.eventually("account", "ann", inState(deltatype.ResourceStateDeleted))
}

func TestBadSignalsDoNoHarmAndAreShown(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	h.startWorker(nil)
	h.signalWithStart("ann", "inform", `{"object": {"name": "ann", "plan": "gold"}}`)
	before := h.eventually("account", "ann", synced(1))

	details := func() string {
		out := h.mustTemporal("workflow", "metadata", "--workflow-id", h.Prefix+"/account/ann", "-o", "json")
		return out
	}
	for payload, says := range map[string]string{
		``:                            "the payload of inform must be",
		`"text"`:                      "the payload of inform must be",
		`{"object": {"name": 5}}`:     "does not decode into delta_test.account",
		`{"object": {"name": "bob"}}`: `the object's id is \"bob\"`,
		`{"object": {"name": "ann"}, "options": {"max_attempts": -1}}`:         "MaxAttempts -1",
		`{"object": {"name": "ann"}, "options": {"urgent": true}}`:             `unknown field \"urgent\"`,
		`{"object": {"name": "ann"}, "options": {"tags": ["no good"]}}`:        "tags[0]",
		`{"object": {"name": "ann"}, "options": {"namespace": "a/b", "x": 1}}`: "unknown field",
	} {
		h.signalWithStart("ann", "inform", payload)
		until(t, func() bool { return strings.Contains(details(), says) }, "%s: no line has %s", payload, says)
	}
	h.signalWithStart("ann", "retry", "")
	until(t, func() bool { return strings.Contains(details(), "its state is synced") })
	require.Equal(t, before, h.row("account", "ann"))

	// For a resource that does not exist, and a kind of another worker.
	h.signalWithStart("nobody", "invalidate", "")
	until(t, func() bool {
		run, err := h.Temporal.DescribeWorkflow(t.Context(), h.Prefix+"/account/nobody", "")
		return err == nil && run.WorkflowCloseTime != nil
	}, "a workflow with nothing to do ends")
	require.Nil(t, h.row("account", "nobody"))
}

// The commands in docs/temporal.md work as documented. Those of worker deployments have a test of their own.
func TestTheCommandsOfTheDocument(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	c := h.start(h.config(with(&controller[*User]{})))
	document, err := os.ReadFile("../docs/temporal.md")
	require.NoError(t, err)
	blocks := regexp.MustCompile("(?s)```sh\n(temporal workflow .*?)```").FindAllStringSubmatch(string(document), -1)
	require.Len(t, blocks, 2)
	run := func(script string) string {
		id, err := c.WorkflowID(t.Context(), "user", "usr_3kd81mQa7Lp")
		require.NoError(t, err)
		script = strings.ReplaceAll(script, "$(delta resources workflow-id user usr_3kd81mQa7Lp)", id)
		script = strings.ReplaceAll(script, "delta/user", h.Prefix+"/user")
		command := exec.CommandContext(t.Context(), "sh", "-ec", "temporal() { \"$CLI\" \"$@\"; }\n"+script)
		command.Env = append(os.Environ(), "CLI="+stack.TemporalCommand(), "TEMPORAL_ADDRESS="+h.TemporalAddress, "TEMPORAL_NAMESPACE="+h.TemporalNamespace)
		out, err := command.CombinedOutput()
		require.NoError(t, err, "%s: %s", script, out)
		return string(out)
	}
	run(blocks[0][1])
	row := h.eventually("user", "usr_3kd81mQa7Lp", synced(1))
	require.Equal(t, []string{"vip"}, row.Tags)
	run(blocks[1][1])
	h.eventually("user", "usr_3kd81mQa7Lp", func(r *deltatype.ResourceRow) bool { return r.SyncedGeneration == 2 })
	require.EqualValues(t, 2, h.row("user", "usr_3kd81mQa7Lp").SyncedGeneration)
}
