package delta_test

import (
	"bufio"
	"context"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/grpc"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// These tests kill a process: this test binary again, with the child's mode in the environment.
const childMode = "DELTA_TEST_CHILD"

func init() {
	if mode := os.Getenv(childMode); mode != "" {
		if err := runChild(mode); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		select {} // until it is killed
	}
}

// childStarted is closed when a child has reported that it started.
var childStarted = make(chan struct{})

// workFatal notes its calls, and kills its process at the object "kills", or right after it has completed the object "completes".
func workFatal[T delta.Object](ctx context.Context, pool *pgxpool.Pool, r *delta.Resource[T]) error {
	<-childStarted
	if err := notePID(ctx, pool, r.ObjectID); err != nil {
		return err
	}
	switch r.ObjectID {
	case "kills":
		return killItself()
	case "completes":
		return completeAndDie(ctx, pool, r)
	default:
		return nil
	}
}

// notePID notes the process that calls Work.
func notePID(ctx context.Context, pool *pgxpool.Pool, id string) error {
	_, err := pool.Exec(ctx, "INSERT INTO calls VALUES ($1, $2)", id, os.Getpid())
	return err
}

// killItself kills this process. It returns only if that fails.
func killItself() error {
	self, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = self.Kill() // no clean-up
	}
	if err == nil {
		select {}
	}
	return err
}

// completeAndDie writes the outcome and kills the process at once: neither its workflow nor waiters for the slot are notified.
func completeAndDie[T delta.Object](ctx context.Context, pool *pgxpool.Pool, r *delta.Resource[T]) error {
	<-childStarted
	tx, err := pool.Begin(ctx)
	if err != nil {
		return err
	}
	if err := r.CompleteTx(ctx, tx); err != nil {
		return err
	}
	if err := tx.Commit(ctx); err != nil {
		return err
	}
	return killItself()
}

// childOf returns the application name of the connections of a test's children.
func childOf(prefix string) string {
	return fmt.Sprintf("child-%08x", crc32.ChecksumIEEE([]byte(prefix)))
}

// awaitEnd waits until the connections of this test's children are closed: then all statements that they sent have ended.
func (h *harness) awaitEnd() {
	h.t.Helper()
	until(h.t, func() bool {
		return h.countRows("SELECT count(*) FROM pg_stat_activity WHERE application_name = $1", childOf(h.Prefix)) == 0
	})
}

func runChild(mode string) error {
	ctx := context.Background()
	settings, err := pgxpool.ParseConfig(os.Getenv("DELTA_TEST_URL"))
	if err != nil {
		return err
	}
	settings.ConnConfig.RuntimeParams["application_name"] = childOf(os.Getenv("DELTA_TEST_PREFIX"))
	pool, err := pgxpool.NewWithConfig(ctx, settings)
	if err != nil {
		return err
	}
	if mode == "mixed" {
		return runMixed(pool)
	}
	config := &delta.Config{}
	if mode != "inform" {
		options := client.Options{HostPort: os.Getenv("DELTA_TEST_TEMPORAL"), Namespace: os.Getenv("DELTA_TEST_NAMESPACE")}
		if mode == "eager" {
			options.ConnectionOptions.DialOptions = []grpc.DialOption{grpc.WithChainUnaryInterceptor(holdEagerStarts)}
		}
		temporal, err := dialTemporal(options)
		if err != nil {
			return err
		}
		config.Temporal, config.WorkflowIDPrefix = temporal, os.Getenv("DELTA_TEST_PREFIX")
		if mode == "together" {
			config.Namespaces = workersTogether
		}
		if mode == "queued" {
			withLongClaims(config, "queued")
		}
		config.Controllers = delta.NewControllers()
		delta.AddController(config.Controllers, &controller[account]{work: func(context.Context, *delta.Resource[account]) error {
			fmt.Println("working")
			select {}
		}})
		delta.AddController(config.Controllers, &controller[singleTenant]{work: func(ctx context.Context, r *delta.Resource[singleTenant]) error {
			if strings.HasPrefix(r.ObjectID, "completes") {
				return completeAndDie(ctx, pool, r)
			}
			if strings.HasPrefix(r.ObjectID, "short") {
				return workTogether(ctx, pool, r.ObjectID)
			}
			fmt.Println("holding")
			select {}
		}})
		delta.AddController(config.Controllers, &controller[ratedTenant]{work: func(ctx context.Context, r *delta.Resource[ratedTenant]) error {
			return workTogether(ctx, pool, r.ObjectID)
		}})
		delta.AddController[regional](config.Controllers, &stuckRegions{regions: newRegions(inRegion, map[string][]string{"eu": names("e", 4), "us": names("u", 3)})})
		delta.AddController(config.Controllers, &controller[wide]{work: func(ctx context.Context, r *delta.Resource[wide]) error {
			_, err := pool.Exec(ctx, "INSERT INTO calls VALUES ($1, $2)", r.ObjectID, os.Getpid())
			return err
		}})
		delta.AddController(config.Controllers, &controller[herd]{work: workHerd(pool, true)})
		delta.AddController(config.Controllers, &controller[queued]{work: workQueued(pool, 50)})
		delta.AddController(config.Controllers, &controller[brief]{work: func(ctx context.Context, r *delta.Resource[brief]) error {
			return workFatal(ctx, pool, r)
		}})
		delta.AddController(config.Controllers, &controller[briefBatched]{work: func(ctx context.Context, r *delta.Resource[briefBatched]) error {
			return workFatal(ctx, pool, r)
		}})
	}
	c, err := delta.NewClient(pool, config)
	if err != nil {
		return err
	}
	if mode != "inform" {
		err := startPatiently(ctx, c)
		fmt.Println("started")
		close(childStarted)
		return err
	}
	if _, err := c.Inform(ctx, account{Name: "ann"}, nil); err != nil {
		return err
	}
	fmt.Println("informed")
	return nil
}

// startPatiently starts a client, although Temporal may be too busy to answer one start.
func startPatiently(ctx context.Context, c *delta.Client) (err error) {
	for range 10 {
		if err = c.Start(ctx); err == nil {
			return nil
		}
		time.Sleep(time.Second)
	}
	return err
}

// holdEagerStarts never delivers the answer to an eager start.
func holdEagerStarts(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	err := invoke(ctx, method, req, reply, cc, opts...)
	if started, ok := reply.(*workflowservice.StartWorkflowExecutionResponse); ok && started.GetEagerWorkflowTask() != nil {
		fmt.Println("accepted")
		select {}
	}
	return err
}

// killChild runs a child until it prints a word, and then kills it.
func (h *harness) killChild(mode, word string) {
	h.t.Helper()
	defer h.startChild(mode, word)()
}

// startChild runs a child until it prints a word, and returns a function that kills it.
func (h *harness) startChild(mode, word string) (kill func()) {
	h.t.Helper()
	return h.spawnChild(mode, word).kill
}

// child is a process of a test.
type child struct {
	process *os.Process
	wait    func()
}

// spawnChild runs a child until it prints a word.
func (h *harness) spawnChild(mode, word string) *child {
	h.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childMode+"="+mode, "DELTA_TEST_URL="+h.DatabaseURL, "DELTA_TEST_PREFIX="+h.Prefix,
		"DELTA_TEST_TEMPORAL="+h.TemporalAddress, "DELTA_TEST_NAMESPACE="+h.TemporalNamespace)
	out, err := cmd.StdoutPipe()
	require.NoError(h.t, err)
	cmd.Stderr = os.Stderr
	require.NoError(h.t, cmd.Start())
	c := &child{process: cmd.Process, wait: sync.OnceFunc(func() { _ = cmd.Wait() })}
	h.t.Cleanup(c.kill)
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if strings.Contains(lines.Text(), word) {
			go func() {
				for lines.Scan() { // so that the child never blocks on its output
					continue
				}
			}()
			return c
		}
		h.t.Log("child:", lines.Text())
	}
	h.t.Fatalf("the child ended without saying %q", word)
	return c
}

// kill kills the child: nothing is cleaned up.
func (c *child) kill() {
	_ = c.process.Kill()
	c.wait()
}

// stop has the child end in good order.
func (c *child) stop() {
	_ = c.process.Signal(syscall.SIGTERM)
	c.wait()
}

func TestAnInformOutlivesItsProcess(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.killChild("inform", "informed")
	require.Equal(t, deltatype.ResourceStateScheduled, h.row("account", "ann").State)
	h.startWorker(nil)
	h.eventually("account", "ann", synced(1))
}

func TestAWorkerThatDiesInWorkIsNoticedInSecondsAndReplaced(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	_, err := h.client(&delta.Config{}).Inform(t.Context(), account{Name: "ann"}, nil)
	require.NoError(t, err)
	kill := h.startChild("work", "working")
	h.awaitExecution(h.Prefix + "/account/ann")
	kill()
	require.Equal(t, deltatype.ResourceStatePending, h.row("account", "ann").State)

	h.startWorker(nil)
	row := h.eventually("account", "ann", synced(1))
	require.Equal(t, 2, row.Attempt, "the lost attempt counts")
	require.Len(t, row.Errors, 1)
	require.Equal(t, 1, row.Errors[0].Attempt)
	require.Contains(t, row.Errors[0].Error, "the worker was lost")

	// Temporal's delay is not ours to assert. Missed heartbeats make it notice in seconds, long before any other timeout, and it gives the same
	// activity to another worker.
	lost := 0
	until(t, func() bool {
		// Temporal records the start of an activity that may be retried when it has ended, some time after its result is in the row.
		lost = 0
		for _, event := range h.history(row.WorkflowID) {
			require.NotEqual(t, enumspb.EVENT_TYPE_ACTIVITY_TASK_TIMED_OUT, event.GetEventType(), "the activity is retried")
			if scheduled := event.GetActivityTaskScheduledEventAttributes(); scheduled != nil {
				require.Equal(t, 10*time.Second, scheduled.GetHeartbeatTimeout().AsDuration())
				require.LessOrEqual(t, scheduled.GetRetryPolicy().GetInitialInterval().AsDuration(), time.Second)
				require.Zero(t, scheduled.GetRetryPolicy().GetMaximumAttempts())
			}
			if started := event.GetActivityTaskStartedEventAttributes(); started.GetAttempt() > 1 {
				lost++
				require.Equal(t, enumspb.TIMEOUT_TYPE_HEARTBEAT, started.GetLastFailure().GetTimeoutFailureInfo().GetTimeoutType())
			}
		}
		return lost > 0
	})
	require.Equal(t, 1, lost, "the lost activity is the retried one")
}

// Three processes sync hundreds of resources, and one is killed meanwhile: all resources settle, and none is lost.
func TestSoakOfAFleetThatLosesAProcess(t *testing.T) {
	resources := soak.Count(t, 160, 4000)
	t.Parallel()
	h := newHarness(t)
	_, err := h.Pool.Exec(t.Context(), "CREATE TABLE calls (object_id text, pid integer)")
	require.NoError(t, err)
	var kills []func()
	for range 3 {
		kills = append(kills, h.startChild("fleet", "started"))
	}
	var objects []delta.Object
	for i := range resources {
		objects = append(objects, wide{account{Name: fmt.Sprint(i)}})
	}
	_, err = h.client(&delta.Config{}).InformMany(t.Context(), objects, nil)
	require.NoError(t, err)
	count := func(query string) (n int) {
		require.NoError(t, h.Pool.QueryRow(t.Context(), query).Scan(&n))
		return n
	}
	const syncedRows = "SELECT count(*) FROM delta_resource WHERE state = 'synced'"
	when := resources/4 + rand.IntN(resources/4)
	until(t, func() bool { return count(syncedRows) >= when })
	kills[rand.IntN(3)]()
	until(t, func() bool { return count(syncedRows) == resources })
	require.Equal(t, resources, count("SELECT count(DISTINCT object_id) FROM calls"))
	t.Logf("%d processes worked; killed after %d were synced; %d calls of Work beyond one a resource",
		count("SELECT count(DISTINCT pid) FROM calls"), when, count("SELECT count(*) FROM calls")-resources)
}
