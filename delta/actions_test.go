package delta_test

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"google.golang.org/grpc"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/soak"
)

// actions are the billable actions of Temporal Cloud in a history, by the rules of https://docs.temporal.io/cloud/actions. Those that leave no event
// are counted at the connection (sentCalls).
type actions struct {
	starts, schedules, signals, activities, markers, timers, attributes int
}

func (a actions) sum() int {
	return a.starts + a.schedules + a.signals + a.activities + a.markers + a.timers + a.attributes
}

func (a actions) minus(b actions) actions {
	return actions{
		a.starts - b.starts, a.schedules - b.schedules, a.signals - b.signals, a.activities - b.activities, a.markers - b.markers, a.timers - b.timers,
		a.attributes - b.attributes,
	}
}

func (a actions) plus(b actions) actions { return a.minus(actions{}.minus(b)) }

// String lists the actions, the way docs/scaling.md does.
func (a actions) String() string {
	var parts []string
	for _, part := range []struct {
		n         int
		one, many string
	}{
		{a.starts, "start", "starts"},
		{a.schedules, "by the schedule", "by the schedule"},
		{a.signals, "signal", "signals"},
		{a.activities, "activity", "activities"},
		{a.markers, "local activities", "local activities"},
		{a.timers, "timer", "timers"},
		{a.attributes, "search attributes", "search attributes"},
	} {
		switch {
		case part.n == 1:
			parts = append(parts, part.one)
		case part.n > 1:
			parts = append(parts, fmt.Sprintf("%d × %s", part.n, part.many))
		}
	}
	return strings.Join(parts, ", ")
}

// countActions counts the actions of a history.
func countActions(history []*historypb.HistoryEvent) (a actions) {
	tasks := map[int64]bool{}
	for i, e := range history {
		switch e.GetEventType() {
		case enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED:
			a.starts++
			if _, scheduled := e.GetWorkflowExecutionStartedEventAttributes().GetSearchAttributes().GetIndexedFields()["TemporalScheduledById"]; scheduled {
				a.schedules += 2
			}
		case enumspb.EVENT_TYPE_START_CHILD_WORKFLOW_EXECUTION_INITIATED:
			a.starts++ // the intent; the history of the child has the start
		case enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED:
			if i != 1 { // a signal with start is one action
				a.signals++
			}
		case enumspb.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
			a.activities++
		case enumspb.EVENT_TYPE_ACTIVITY_TASK_STARTED:
			a.activities += int(e.GetActivityTaskStartedEventAttributes().GetAttempt()) - 1
		case enumspb.EVENT_TYPE_MARKER_RECORDED:
			// The markers of one workflow task are one action.
			if task := e.GetMarkerRecordedEventAttributes().GetWorkflowTaskCompletedEventId(); !tasks[task] {
				tasks[task] = true
				a.markers++
			}
		case enumspb.EVENT_TYPE_WORKFLOW_TASK_COMPLETED:
			a.activities += int(e.GetWorkflowTaskCompletedEventAttributes().GetMeteringMetadata().GetNonfirstLocalActivityExecutionAttempts())
		case enumspb.EVENT_TYPE_TIMER_STARTED:
			a.timers++
		case enumspb.EVENT_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES:
			a.attributes++
		default:
		}
	}
	return a
}

// costed is a step whose actions are in a table of docs/scaling.md.
type costed struct {
	what string
	// prepare starts the client. Each call of the function that it returns makes the step happen once more, and counts its actions.
	prepare func(t *testing.T) (measure func() actions)
}

func (c costed) line(a actions) string { return fmt.Sprintf("| %s | %d | %s |", c.what, a.sum(), a) }

// The table of docs/scaling.md has the actions of real histories.
func TestEachStepCostsTheActionsOfTheTable(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	page, err := os.ReadFile("../docs/scaling.md")
	require.NoError(t, err)
	for _, step := range []costed{
		{"a new resource is synced", costOfNew},
		{"its object changes, and it is synced again", costOfChange},
		{"an inform that changes nothing", costOfUnchanged},
		{"it expires, and is synced again", costOfExpiry},
		{"it expires, and is synced again, with such `Work`", costOfLongExpiry},
		{"an attempt fails, and another one follows", costOfFailure},
		{"a new resource, with `Work` that is known to take more than half a second", costOfLongWork},
		{"an attempt succeeds after failures", costOfSuccess},
		{"its row is removed after its retention", costOfRemoval},
		{"a new batch is synced", costOfBatch},
		{"a batch expires, and another one takes its place", costOfBatchExpiry},
		{"a member fails, and is synced in its own workflow", costOfLeaving},
		{"a pass", costOfPass},
		{"a run of a kind with two shards, with the passes of both", costOfShards},
	} {
		t.Run(step.what, func(t *testing.T) {
			t.Parallel()
			measure := step.prepare(t)
			line := ""
			until(t, func() bool { // on a busy machine, short Work may take long, which costs another activity
				line = step.line(measure())
				return strings.Contains(string(page), line+"\n")
			}, "docs/scaling.md lacks %s", shown[string]{&line})
		})
	}
}

// sentCalls counts the requests of clients to Temporal when they begin, by method, answered or not. Those for a schedule are also counted by its id.
type sentCalls struct {
	mu sync.Mutex
	n  map[string]int
}

// unbilled are the methods of requests that are no actions: they read, poll, or answer tasks, whose commands are counted from histories.
var unbilled = regexp.MustCompile("/(Get|Describe|List|Count|Poll|Respond|Shutdown|RecordWorker)")

func (c *sentCalls) intercept(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	c.note(method[strings.LastIndex(method, "/"):], req)
	return invoke(ctx, method, req, reply, cc, opts...)
}

func (c *sentCalls) note(method string, req any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[string]int{}
	}
	c.n[method]++
	if of, ok := req.(interface{ GetScheduleId() string }); ok {
		c.n[method+of.GetScheduleId()]++
	}
}

// billed returns how many requests were sent that may be actions, by method.
func (c *sentCalls) billed() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := map[string]int{}
	for method, n := range c.n {
		if !unbilled.MatchString(method) && strings.LastIndex(method, "/") == 0 {
			all[method] = n
		}
	}
	return all
}

func (c *sentCalls) count(method string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n[method]
}

// Clients that have nothing to do write nothing to Temporal but the heartbeat of their installation, which one of them does. They do not even try.
// Nor do they read a kind's schedules while another client has, unless something has changed.
func TestClientsWithNothingToDoOnlyWriteAHeartbeat(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	var sent [2]sentCalls
	var c *delta.Client
	for i := range sent {
		config := h.config(with(&controller[listed]{}))
		config.Temporal, config.MaintenanceJobInterval = h.temporalWith(sent[i].intercept), 50*time.Millisecond
		c = h.start(config)
	}
	h.awaitWorkflowEnd(h.scheduledRun("inform:listed"))
	passes := func() int {
		const method = "/DescribeSchedule"
		return sent[0].count(method+h.Prefix+"/inform:listed") + sent[1].count(method+h.Prefix+"/inform:listed")
	}
	looks := func(n int) { // by each client: it looks for its mark, once or twice, before it reads the schedules of kinds
		mark := "/DescribeSchedule" + h.Prefix + "/installation:do-not-resume-or-delete"
		before := [2]int{sent[0].count(mark), sent[1].count(mark)}
		until(t, func() bool { return sent[0].count(mark) >= before[0]+n && sent[1].count(mark) >= before[1]+n })
	}
	checked := passes()
	until(t, func() bool { return passes() >= checked+3 }, "the schedules are read now and then")
	until(t, func() bool { // until no read that has begun before has failed, after which they are read again
		h.exec("UPDATE delta_controller SET schedules_checked_at = now() + interval '1 hour'") // as if it had just been done, for long
		looks(4)
		return h.countRows("SELECT count(*) FROM delta_controller WHERE schedules_checked_at > now()") == 1
	})
	checked = passes()
	looks(20)
	require.Equal(t, checked, passes(), "another client has read them")

	billed := sent[0].billed() // read once, since the heart goes on beating
	for method, n := range sent[1].billed() {
		billed[method] += n
	}
	heartbeats := billed["/UpdateSchedule"]
	require.LessOrEqual(t, heartbeats, h.countRows("SELECT heartbeat FROM delta_installation"), "one for both clients")
	require.Equal(t, map[string]int{"/CreateSchedule": 2, "/UpdateSchedule": heartbeats}, billed,
		"the schedule of the kind, and the one that marks the prefix")

	require.NoError(t, c.PauseInformer(t.Context(), "listed"))
	until(t, func() bool { return passes() > checked }, "a change is looked after at once")
}

// A schedule that was deleted in Temporal is made again, and also if all were lost, whichever client notices it.
func TestAScheduleThatIsGoneIsMadeAgain(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	config := h.config(with(&controller[listed]{}))
	config.MaintenanceJobInterval = 50 * time.Millisecond
	h.start(config)
	schedules := h.Temporal.ScheduleClient()
	isThere := func() bool {
		_, err := schedules.GetHandle(t.Context(), h.Prefix+"/inform:listed").Describe(t.Context())
		return err == nil
	}
	until(t, isThere)
	require.NoError(t, schedules.GetHandle(t.Context(), h.Prefix+"/inform:listed").Delete(t.Context()))
	until(t, isThere)

	h.exec("UPDATE delta_controller SET schedules_checked_at = now() + interval '1 hour'") // another client has just read them
	require.NoError(t, schedules.GetHandle(t.Context(), h.Prefix+"/inform:listed").Delete(t.Context()))
	require.NoError(t, schedules.GetHandle(t.Context(), h.Prefix+"/installation:do-not-resume-or-delete").Delete(t.Context()))
	until(t, isThere)
}

// An ordinary attempt sends a heartbeat each quarter of the kind's HeartbeatTimeout. Each is an action.
func TestLongWorkSendsFourHeartbeatsATimeout(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	g := singleMode()
	g.harness = newHarness(t)
	sent := &sentCalls{}
	const heartbeats = 2
	took := make(chan time.Duration, 10)
	var first sync.Once // a stall may lose the claim, and then Work is called again
	var began time.Time
	config := g.config(g.controller(func(ctx context.Context, _ job) error {
		first.Do(func() { began = time.Now() })
		for sent.count("/RecordActivityTaskHeartbeat") < heartbeats {
			if err := ctx.Err(); err != nil {
				return err
			}
			time.Sleep(5 * time.Millisecond)
		}
		took <- time.Since(began)
		return nil
	}))
	config.Temporal = g.temporalWith(sent.intercept)
	c := g.start(config)
	g.inform(c, nil, "long")
	g.awaitRow("long", synced(1))
	require.GreaterOrEqual(t, receive(t, took), heartbeats*activities.HeartbeatTimeout/4, "no more of them")
}

// pricePerMillion is the price of a million actions in US dollars that docs/scaling.md counts with.
const pricePerMillion = 50

// The months in docs/scaling.md follow from its table of actions.
func TestTheCostOfAMonthFollowsFromTheTable(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/scaling.md")
	require.NoError(t, err)
	cost := func(what string) (n float64) {
		found := regexp.MustCompile(`(?m)^\| ` + regexp.QuoteMeta(what) + ` \| (\d+) \|`).FindSubmatch(page)
		require.NotNil(t, found, what)
		_, err := fmt.Sscan(string(found[1]), &n)
		require.NoError(t, err)
		return n
	}
	const days, batch = 30, 1000
	for _, resources := range []float64{10_000, 1e6, 100e6} {
		line := fmt.Sprintf("| %g M |", resources/1e6)
		for _, actions := range []float64{
			resources * days * cost("it expires, and is synced again"),
			resources / batch * days * cost("a batch expires, and another one takes its place"),
			resources * cost("its object changes, and it is synced again"),
		} {
			line += fmt.Sprintf(" %.6g M, $%.6g |", actions/1e6, actions/1e6*pricePerMillion)
		}
		require.Contains(t, string(page), line+"\n")
	}
	const maintenance, every = 60, 5 // minutes an hour, and after how many of them the heartbeat rises
	heartbeats := float64(days * 24 * maintenance / every)
	require.Contains(t, string(page), fmt.Sprintf("%g actions a month for each installation, $%.2g,", heartbeats, heartbeats/1e6*pricePerMillion))
	passes := days * 24 * cost("a pass")
	require.Contains(t, string(page), fmt.Sprintf("An hourly pass costs %g actions a month for each kind, $%.2g.", passes, passes/1e6*pricePerMillion))
}
