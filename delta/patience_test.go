package delta_test

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/soak"
	"github.com/chariot-giving/delta/workflows"
)

// unanswered is a connection to Temporal that drops the answers of some calls: a number of times for each id suffix.
type unanswered struct {
	mu    sync.Mutex
	times map[string]int
	// refusal is answered where it is set.
	refusal error
}

func (u *unanswered) through(h *harness, config *delta.Config) *delta.Config {
	config.Temporal = nil
	config.TemporalOptions = func(o *client.Options) {
		o.HostPort, o.Logger = h.TemporalAddress, quiet{}
		o.ConnectionOptions.DialOptions = append(o.ConnectionOptions.DialOptions, grpc.WithChainUnaryInterceptor(u.intercept))
	}
	return config
}

func (u *unanswered) intercept(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	// The SDK retries unavailable errors, but not timeouts.
	gaveUp := cmp.Or(u.refusal, status.Error(codes.DeadlineExceeded, "context deadline exceeded"))
	switch call := req.(type) {
	case *workflowservice.DescribeScheduleRequest:
		if u.isHeld(call.GetScheduleId()) {
			return gaveUp
		}
	case *workflowservice.GetWorkflowExecutionHistoryRequest:
		if u.isHeld("/history") {
			return gaveUp
		}
	case *workflowservice.StartWorkflowExecutionRequest:
		err := invoke(ctx, method, req, reply, cc, opts...)
		if u.isHeld(call.GetWorkflowType().GetName()) {
			return gaveUp // the call had its effect, but the answer is lost
		}
		return err
	}
	return invoke(ctx, method, req, reply, cc, opts...)
}

func (u *unanswered) isHeld(id string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	for end, left := range u.times {
		if strings.HasSuffix(id, end) && left > 0 {
			u.times[end]--
			return true
		}
	}
	return false
}

// Calls that Temporal answers late are repeated. If it never answers for one kind, the others continue.
func TestTemporalIsAskedAgainWhereItDoesNotAnswer(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.start(h.config(with(newLister("a", "b")), with(&controller[account]{})))
	away := &unanswered{times: map[string]int{"/inform:catalogued": 2, "/inform:account": 3}}
	idle := h.client(away.through(h, h.config()))
	there, err := idle.TemporalStatus(t.Context(), "catalogued", "account")
	require.NoError(t, err)
	require.NoError(t, there.Kinds["catalogued"].Error)
	require.NotNil(t, there.Kinds["catalogued"].Schedule, "the third try was answered")
	require.ErrorContains(t, there.Kinds["account"].Error, "reading the schedule "+h.Prefix+"/inform:account: ")
	require.NotEmpty(t, there.Kinds["account"].InformWorkers, "the earlier value")
}

// Temporal refuses to ask a schedule at once, after its worker died in a task of it: a client starts nevertheless.
func TestASchedulesWorkflowThatIsNotReadyIsAskedAgain(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	away := &unanswered{
		times:   map[string]int{"/inform:catalogued": 5},
		refusal: serviceerror.ToStatus(serviceerror.NewWorkflowNotReady("Unable to query workflow due to Workflow Task in failed state.")).Err(),
	}
	h.start(away.through(h, h.config(with(newLister("a", "b")))))
	require.Zero(t, away.times["/inform:catalogued"])
	there, err := h.client(h.config()).TemporalStatus(t.Context(), "catalogued")
	require.NoError(t, err)
	require.NotNil(t, there.Kinds["catalogued"].Schedule)
}

// A run whose start was answered late, or not at all, is started once.
func TestARunWhoseStartWasNotAnsweredIsStartedOnce(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.start(h.config(with(newLister("a", "b"))))
	away := &unanswered{times: map[string]int{workflows.InformName: 1, "/history": 1}}
	idle := h.client(away.through(h, h.config()))
	run, err := idle.RunInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "catalogued", RunForeground: true}, nil)
	require.NoError(t, err)
	require.Equal(t, 2, run.Listed)
	require.Zero(t, away.times[workflows.InformName], "an answer was lost")
	require.Zero(t, away.times["/history"], "another answer was lost, that of the run's end")
	passes, err := idle.InformPasses(t.Context(), "catalogued", "", 10)
	require.NoError(t, err)
	passes = slices.DeleteFunc(passes, func(p delta.InformPass) bool { return p.Trigger != activities.TriggerRequest })
	require.Len(t, passes, 1)
}
