package workflows_test

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/workflows"
)

// patience is how long a call of a test waits for what must come, by this machine's clock. It only ends a test that hangs.
const patience = 2 * time.Minute

var ref = activities.Ref{Installation: "11111111-2222-3333-4444-555555555555", Kind: "account", ObjectID: "ann"}

// scene is one call of an activity, as a test expects it, and what it is answered.
type scene struct {
	// at is when it is to be called, on the workflow's clock, counted from its start.
	at time.Duration
	// retention is true where EndRetention is to be called, false where Attempt is.
	retention bool
	// local is true where Attempt is to be called as a local activity.
	local bool
	// step and err are the answer.
	step activities.Step
	err  error
	// wakes is how many wake-ups arrive while it runs.
	wakes int
	// command is one that arrives while it runs. The call ends only after the command was carried out.
	command activities.Command
}

// play is one run of the resource workflow on a clock that skips all waiting.
type play struct {
	*testsuite.TestWorkflowEnvironment
	t     *testing.T
	start time.Time
	ref   activities.Ref

	mu     sync.Mutex
	scenes []scene
	infos  []activity.Info

	// commands are those that were carried out, orderedAt says when, and commandInfos how.
	commands     []activities.CommandInput
	orderedAt    []time.Duration
	commandInfos []activity.Info
	// refuse is the answer to commands.
	refuse     error
	carriedOut chan struct{}
}

func newPlay(t *testing.T, scenes ...scene) *play {
	t.Helper()
	p := &play{
		TestWorkflowEnvironment: newEnvironment(),
		t:                       t,
		ref:                     ref,
		start:                   time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		scenes:                  scenes,
		carriedOut:              make(chan struct{}, 10),
	}
	p.SetStartTime(p.start)
	require.NoError(t, p.SetMemoOnStart(map[string]any{workflows.KindMemo: ref.Kind})) // as a dispatcher does
	workflows.Kinds{}.RegisterResource(p)
	p.RegisterActivityWithOptions(func(ctx context.Context, got activities.Ref) (activities.Step, error) {
		return p.answerCall(ctx, got, false)
	}, activity.RegisterOptions{Name: activities.AttemptName})
	p.RegisterActivityWithOptions(func(ctx context.Context, got activities.Ref) (activities.Step, error) {
		return p.answerCall(ctx, got, true)
	}, activity.RegisterOptions{Name: activities.EndRetentionName})
	p.RegisterActivityWithOptions(p.answerCommand, activity.RegisterOptions{Name: activities.CommandName})
	return p
}

func newEnvironment() *testsuite.TestWorkflowEnvironment {
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(log.NewStructuredLogger(slog.New(slog.NewTextHandler(io.Discard, nil))))
	env := suite.NewTestWorkflowEnvironment()
	env.SetTestTimeout(2 * patience) // of this machine's time: the workflow's passes by itself
	// By default the SDK takes a workflow that has not yielded for a second for stuck, which it is not where the machine is busy,
	// and goes on beside it: a data race of its own.
	env.SetWorkerOptions(worker.Options{DeadlockDetectionTimeout: patience})
	return env
}

// answerCall answers a call with the next scene.
func (p *play) answerCall(ctx context.Context, got activities.Ref, retention bool) (activities.Step, error) {
	s := p.nextScene(ctx, got, retention)
	for range s.wakes {
		p.SignalWorkflow(workflows.WakeSignal, nil)
	}
	if s.command != "" {
		p.SignalWorkflow(string(s.command), nil)
		select {
		case <-p.carriedOut:
		case <-time.After(patience):
			p.t.Errorf("the command %s waits for the end of the call that runs", s.command)
		}
	}
	return s.step, s.err
}

// nextScene is the scene of a call, which is compared with it.
func (p *play) nextScene(ctx context.Context, got activities.Ref, retention bool) scene {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := p.Now().Sub(p.start)
	if len(p.scenes) == 0 {
		p.t.Errorf("a call more than expected, after %s (retention: %t)", at, retention)
		return scene{step: none}
	}
	s, n := p.scenes[0], len(p.infos)+1
	p.scenes, p.infos = p.scenes[1:], append(p.infos, activity.GetInfo(ctx))
	if local := activity.GetInfo(ctx).IsLocalActivity; !retention && local != s.local {
		p.t.Errorf("call %d is local: %t, want %t", n, local, s.local)
	}
	if got != p.ref || retention != s.retention || at != s.at {
		p.t.Errorf("call %d: got %+v after %s (retention: %t), want %+v after %s (retention: %t)", n, got, at, retention, p.ref, s.at, s.retention)
	}
	return s
}

// answerCommand carries out a command.
func (p *play) answerCommand(ctx context.Context, in activities.CommandInput) (activities.CommandResult, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.commands, p.commandInfos = append(p.commands, in), append(p.commandInfos, activity.GetInfo(ctx))
	p.orderedAt = append(p.orderedAt, p.Now().Sub(p.start))
	defer func() { p.carriedOut <- struct{}{} }()
	return activities.CommandResult{Generation: 1}, p.refuse
}

// commandAfter has a command arrive some time after the start.
func (p *play) commandAfter(after time.Duration, command activities.Command, payload any) {
	p.RegisterDelayedCallback(func() { p.SignalWorkflow(string(command), payload) }, after)
}

// wakeAfter has wake-ups arrive, all before the workflow's next task, some time after the start.
func (p *play) wakeAfter(after time.Duration, times int) {
	p.RegisterDelayedCallback(func() {
		for range times - 1 {
			p.SignalWorkflowSkippingWorkflowTask(workflows.WakeSignal, nil)
		}
		p.SignalWorkflow(workflows.WakeSignal, nil)
	}, after)
}

// run runs the workflow to its end and returns its error.
func (p *play) run() error {
	p.t.Helper()
	p.ExecuteWorkflow(workflows.ResourceName, p.ref)
	require.True(p.t, p.IsWorkflowCompleted(), "the workflow hangs")
	p.mu.Lock()
	defer p.mu.Unlock()
	require.Empty(p.t, p.scenes, "calls that did not come; the workflow ended with %v", p.GetWorkflowError())
	return p.GetWorkflowError()
}

// retryAfter, settledStep and none are results of steps.
func retryAfter(wait time.Duration) activities.Step {
	return activities.Step{Next: activities.NextAttempt, Wait: wait, Generation: 1}
}

func settledStep(generation int64, wait time.Duration) activities.Step {
	return activities.Step{Next: activities.NextRetention, Wait: wait, Generation: generation}
}

var none = activities.Step{Next: activities.NextNone}
