package delta_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/serviceerror"
	sdkworker "go.temporal.io/sdk/worker"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/hostile"
	"github.com/chariot-giving/delta/workflows"
)

// The harness of Delta's tests, which run on the real Postgres and Temporal of deltatest:
//
//   - newHarness makes an isolated schema and Temporal prefix; start and startWorker start clients on it.
//   - until and eventually wait for a condition, awaitEvent for an event in a workflow's history. Assert rows, histories and their order, not
//     durations: Temporal, Postgres and a busy machine may take any time.
//   - account is the object of most tests. A test that needs other settings declares its own kind.
//   - modes_test.go runs a test with singles and with batches (inEachMode), outages_test.go has proxies that can be cut and Work that can be held,
//     child_process_test.go kills processes, and model_test.go, liar_test.go and
//     mixed_soak_test.go are soaks with an oracle.

// account is the object of most tests.
type account struct {
	Name string `json:"name"`
	Plan string `json:"plan"`
}

func (a account) ID() string   { return a.Name }
func (a account) Kind() string { return "account" }

// Settings turns the informer off: tests of informers have their own kinds.
func (a account) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{Parallelism: 4, InformInterval: -1, BatchSize: 1}
}

// serial is worked one at a time.
type serial struct{ account }

func (serial) Kind() string { return "serial" }
func (serial) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{InformInterval: -1, BatchSize: 1}
}

// controller is a controller with functions as its methods; a nil function does nothing.
type controller[T delta.Object] struct {
	delta.InformerDefaults[T]
	work    func(ctx context.Context, r *delta.Resource[T]) error
	inform  func(ctx context.Context, o *delta.InformOptions) (<-chan T, error)
	timeout time.Duration
}

func (c *controller[T]) Work(ctx context.Context, r *delta.Resource[T]) error {
	if c.work == nil {
		return nil
	}
	return c.work(ctx, r)
}

func (c *controller[T]) ResourceTimeout(*delta.Resource[T]) time.Duration { return c.timeout }

func (c *controller[T]) Inform(ctx context.Context, o *delta.InformOptions) (<-chan T, error) {
	if c.inform == nil {
		none := make(chan T)
		close(none)
		return none, nil
	}
	return c.inform(ctx, o)
}

// patience bounds each wait for an event that must happen. It only ends a test that hangs, so it is longer than any delay of a busy machine.
const patience = 3 * time.Minute

// longClaim is the HeartbeatTimeout of kinds whose claims must outlive a stall of the machine. A process that stands still for longer than its claim
// loses it, and Work is called again, as it should be. So a test that counts calls, attempts or errors while Work runs needs a claim longer than any stall.
const longClaim = 30 * time.Second

// withLongClaims has the claims of kinds outlive a stall of the machine, and returns the configuration.
func withLongClaims(config *delta.Config, kinds ...string) *delta.Config {
	if config.Kinds == nil {
		config.Kinds = map[string]delta.ObjectSettings{}
	}
	for _, kind := range kinds {
		settings := config.Kinds[kind]
		settings.HeartbeatTimeout = longClaim
		config.Kinds[kind] = settings
	}
	return config
}

// until waits until a condition holds. It fails the test after patience.
func until(t *testing.T, is func() bool, why ...any) {
	t.Helper()
	for began := time.Now(); !is(); pause(began) {
		if time.Since(began) > patience {
			require.Fail(t, "the condition never became true", why...)
		}
	}
}

// pause sleeps before a test checks a condition again that it has waited for since began. Each check costs some milliseconds in the test, in Postgres
// and in Temporal, and many tests wait at once. So the pauses grow: a longer wait is noticed at most a tenth later.
func pause(began time.Time) {
	time.Sleep(min(max(time.Since(began)/10, 5*time.Millisecond), 250*time.Millisecond))
}

// shown formats a value when it is printed, and not before.
type shown[T any] struct{ value *T }

func (s shown[T]) String() string { return fmt.Sprint(*s.value) }

type worker[T delta.Object] = func(ctx context.Context, r *delta.Resource[T]) error

// harness has an isolated database and Temporal prefix, and the helpers of most tests.
type harness struct {
	*deltatest.Env
	t *testing.T
}

func newHarness(t *testing.T) *harness {
	t.Helper()
	return &harness{Env: throughPooler(t, deltatest.New(t)), t: t}
}

// throughPooler returns an environment whose pool goes through PgBouncer if DELTA_TEST_PGBOUNCER is set. Migrations have run on the direct
// connection.
func throughPooler(t *testing.T, direct *deltatest.Env) *deltatest.Env {
	t.Helper()
	if !hostile.Pooled() {
		return direct
	}
	env, config := *direct, direct.Pool.Config()
	config.ConnConfig = hostile.Through(t, config.ConnConfig)
	var err error
	env.Pool, err = pgxpool.NewWithConfig(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(env.Pool.Close)
	there, err := url.Parse(direct.DatabaseURL)
	require.NoError(t, err)
	there.Host = net.JoinHostPort(config.ConnConfig.Host, strconv.Itoa(int(config.ConnConfig.Port)))
	values := there.Query()
	values.Set("default_query_exec_mode", "cache_describe")
	there.RawQuery = values.Encode()
	env.DatabaseURL = there.String()
	return &env
}

// config returns a client's configuration on the harness, with controllers.
func (h *harness) config(add ...func(*delta.Controllers)) *delta.Config {
	controllers := delta.NewControllers()
	for _, a := range add {
		a(controllers)
	}
	if len(add) == 0 {
		controllers = nil
	}
	return &delta.Config{
		Controllers:       controllers,
		Temporal:          h.Temporal,
		TemporalNamespace: h.TemporalNamespace,
		WorkflowIDPrefix:  h.Prefix,
		Logger:            h.Logger,
	}
}

func with[T delta.Object](c *controller[T]) func(*delta.Controllers) {
	return func(cs *delta.Controllers) { delta.AddController(cs, c) }
}

func (h *harness) client(config *delta.Config) *delta.Client {
	h.t.Helper()
	c, err := delta.NewClient(h.Pool, config)
	require.NoError(h.t, err)
	return c
}

// start makes a client, starts it, and stops it at the end of the test.
func (h *harness) start(config *delta.Config) *delta.Client {
	h.t.Helper()
	c := h.client(config)
	require.NoError(h.t, c.Start(context.Background()))
	h.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := c.Stop(ctx); err != nil {
			h.t.Logf("stop: %v", err)
		}
	})
	return c
}

// startWorker starts a client for accounts with a Work.
func (h *harness) startWorker(work worker[account]) *delta.Client {
	h.t.Helper()
	return h.start(h.config(with(&controller[account]{work: work})))
}

// startLongClaims is startWorker with claims that outlive a stall of the machine.
func (h *harness) startLongClaims(work worker[account]) *delta.Client {
	h.t.Helper()
	return h.start(withLongClaims(h.config(with(&controller[account]{work: work})), "account"))
}

// row reads a resource from the database; nil if there is none.
func (h *harness) row(kind, id string) *deltatype.ResourceRow {
	h.t.Helper()
	return readRow(h.t, h.Pool, kind, id)
}

// eventually waits until a condition holds for a resource, and returns its row. Do not wait for a state that the resource may leave by itself: a busy
// machine may check too late.
func (h *harness) eventually(kind, id string, is func(*deltatype.ResourceRow) bool) *deltatype.ResourceRow {
	h.t.Helper()
	for began := time.Now(); ; pause(began) {
		row := h.row(kind, id)
		if is(row) {
			return row
		}
		if time.Since(began) > patience {
			h.t.Fatalf("%s/%s did not become as expected; it is %+v", kind, id, row)
		}
	}
}

// now returns the time of the database, which is the clock of all columns.
func (h *harness) now() (now time.Time) {
	h.t.Helper()
	require.NoError(h.t, h.Pool.QueryRow(context.Background(), "SELECT now()").Scan(&now))
	return now
}

// signal wakes the workflow of a resource, as a dispatcher or an operator does.
func (h *harness) signal(kind, id string) {
	h.t.Helper()
	require.NoError(h.t, h.Temporal.SignalWorkflow(context.Background(), h.Prefix+"/"+kind+"/"+id, "", workflows.WakeSignal, nil))
}

// wake wakes the workflow of a resource, and waits until it has checked its row. The number of wake-ups does not show that, because the dispatcher of
// a busy machine may send more of them.
func (h *harness) wake(kind, id string) {
	h.t.Helper()
	workflowID := h.Prefix + "/" + kind + "/" + id
	before := len(h.history(workflowID))
	h.signal(kind, id)
	until(h.t, func() bool {
		since := h.history(workflowID)[before:]
		signal := slices.IndexFunc(since, isSignal)
		return signal >= 0 && slices.ContainsFunc(since[signal:], endsAttempt)
	})
}

// isSignal reports whether an event is a wake-up or command that a workflow received.
func isSignal(e *historypb.HistoryEvent) bool {
	return e.GetEventType() == enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED
}

// signalIfRunning wakes the workflow of a resource, which may have ended by itself.
func (h *harness) signalIfRunning(kind, id string) {
	h.t.Helper()
	err := h.Temporal.SignalWorkflow(context.Background(), h.Prefix+"/"+kind+"/"+id, "", workflows.WakeSignal, nil)
	if ended := new(serviceerror.NotFound); !errors.As(err, &ended) {
		require.NoError(h.t, err)
	}
}

// history returns the history of the latest run of a workflow.
func (h *harness) history(workflowID string) []*historypb.HistoryEvent {
	h.t.Helper()
	all, err := h.findHistory(workflowID)
	require.NoError(h.t, err)
	return all
}

// isLate reports whether Temporal did not answer within its client's deadline, as happens on a busy machine.
func isLate(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, new(*serviceerror.DeadlineExceeded))
}

func (h *harness) findHistory(workflowID string) (all []*historypb.HistoryEvent, err error) {
	h.t.Helper()
	until(h.t, func() bool {
		all, err = h.readHistory(workflowID)
		return !isLate(err)
	})
	return all, err
}

func (h *harness) readHistory(workflowID string) (all []*historypb.HistoryEvent, err error) {
	events := h.Temporal.GetWorkflowHistory(context.Background(), workflowID, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for events.HasNext() {
		event, err := events.Next()
		if err != nil {
			return nil, err
		}
		all = append(all, event)
	}
	return all, nil
}

// awaitEvent waits until the history of a workflow's latest run has an event that matches, and returns it.
func (h *harness) awaitEvent(workflowID string, is func(*historypb.HistoryEvent) bool) (found *historypb.HistoryEvent) {
	h.t.Helper()
	until(h.t, func() bool {
		all, err := h.findHistory(workflowID)
		if missing := new(serviceerror.NotFound); errors.As(err, &missing) {
			return false
		}
		require.NoError(h.t, err)
		at := slices.IndexFunc(all, is)
		if at >= 0 {
			found = all[at]
		}
		return at >= 0
	})
	return found
}

// timerDurations returns the durations of the timers in the latest run of a workflow.
func (h *harness) timerDurations(workflowID string) (all []time.Duration) {
	h.t.Helper()
	for _, event := range h.history(workflowID) {
		if timer := event.GetTimerStartedEventAttributes(); timer != nil {
			all = append(all, timer.GetStartToFireTimeout().AsDuration())
		}
	}
	return all
}

// countWakeUps returns how often the latest run of a resource's workflow was woken, its start included; 0 if there is no run.
func (h *harness) countWakeUps(kind, id string) (n int) {
	h.t.Helper()
	history, err := h.findHistory(h.Prefix + "/" + kind + "/" + id)
	if notFound := new(serviceerror.NotFound); errors.As(err, &notFound) {
		return 0
	}
	require.NoError(h.t, err)
	for _, event := range history {
		switch event.GetEventType() {
		case enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED, enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED:
			n++
		default:
		}
	}
	return n
}

// ownWorker returns the options for a test's own worker. On a busy machine, the SDK takes a workflow that does not run for a second for a deadlock,
// and continues beside it, which is a data race.
func ownWorker() sdkworker.Options { return sdkworker.Options{DeadlockDetectionTimeout: patience} }

func inState(s deltatype.ResourceState) func(*deltatype.ResourceRow) bool {
	return func(r *deltatype.ResourceRow) bool { return r != nil && r.State == s }
}

func synced(generation int64) func(*deltatype.ResourceRow) bool {
	return func(r *deltatype.ResourceRow) bool {
		return r != nil && r.State == deltatype.ResourceStateSynced && r.SyncedGeneration == generation
	}
}
