package stack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"go.temporal.io/sdk/client"
)

// startTemporal brings our own Temporal up.
func (s *Stack) startTemporal(ctx context.Context) error {
	if err := s.home.recoverTemporal(s.reportProgress); err != nil {
		return err
	}
	program, passedOver, err := findTemporal(ctx)
	for _, reason := range passedOver {
		s.reportProgress("%s", reason)
	}
	if err != nil {
		return err
	}
	if program.path == "" {
		if program, err = s.downloadTemporal(ctx); err != nil {
			return err
		}
	}
	s.reportProgress("Temporal %s from %s (%s)", program.server, program.path, program.from)
	for attempt := 1; ; attempt++ {
		err := s.serveTemporal(ctx, program)
		if taken := (errPortTaken{}); errors.As(err, &taken) && attempt < 5 {
			s.reportProgress("Temporal: %v", err)
			continue
		}
		return err
	}
}

// serveTemporal starts the server on its ports and waits until it serves.
func (s *Stack) serveTemporal(ctx context.Context, program temporalProgram) error {
	port, err := s.ports.choosePort("temporal", s.opts.TemporalPort)
	if err != nil {
		return err
	}
	uiPort, err := s.ports.choosePort("ui", s.opts.UIPort)
	if err != nil {
		return err
	}
	args := []string{
		"server", "start-dev", "--headless=false", "--log-level", "warn",
		"--ip", "127.0.0.1", "--port", strconv.Itoa(port), "--ui-port", strconv.Itoa(uiPort),
	}
	for _, attribute := range searchAttributes {
		args = append(args, "--search-attribute", attribute+"=Keyword")
	}
	for _, value := range slices.Concat(dynamicConfig, s.opts.TemporalSettings) { // the last value of a key counts
		args = append(args, "--dynamic-config-value", value)
	}
	ending := temporalEnding
	if s.opts.Ephemeral {
		// Draining takes two seconds, and has no use here.
		ending = killOnly
	} else {
		args = append(args, "--db-filename", s.home.temporalDatabase(program.server))
		for _, pragma := range pragmas {
			args = append(args, "--sqlite-pragma", pragma)
		}
	}
	defer s.reportWaiting(fmt.Sprintf("Temporal to serve on port %d", port))()
	began := time.Now()
	c, err := startChild(spec{
		// The user's configuration is left out, because it is for clients of other servers.
		name: "Temporal", path: program.path, args: args, dir: s.home.dir, env: cleanEnv("TEMPORAL_"),
		logPath: s.home.filePath("temporal.log"), pidPath: s.home.filePath("temporal.pid"),
		orphan: syscall.SIGKILL, ending: ending,
	})
	if err != nil {
		return err
	}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	if err := awaitTemporal(ctx, c, address, began); err != nil {
		if !c.isAlive() && ctx.Err() == nil {
			for _, p := range []int{port, uiPort} {
				if !isPortFree(p) {
					err = errPortTaken{p}
				}
			}
			// Another program may have had the port only for a moment, or it is one of the server's internal ports.
			if taken := (errPortTaken{}); !errors.As(err, &taken) && strings.Contains(c.readOutput(), "address already in use") {
				err = errPortTaken{port}
			}
		}
		return errors.Join(err, c.stop(ctx))
	}
	if err := s.adoptChild(c); err != nil {
		return errors.Join(err, c.stop(ctx))
	}
	s.reportPort("Temporal", s.opts.TemporalPort, port)
	s.reportPort("Temporal's UI", s.opts.UIPort, uiPort)
	s.TemporalAddress = address
	s.TemporalNamespace = client.DefaultNamespace
	s.UIURL = fmt.Sprintf("http://127.0.0.1:%d", uiPort)
	return nil
}

// announcement is how long a server may take to print that it serves.
const announcement = 10 * time.Second

// awaitTemporal returns when the frontend serves and knows the namespace.
func awaitTemporal(ctx context.Context, c *child, address string, began time.Time) error {
	for {
		if checkServing(ctx, address) == nil {
			// If another Temporal answers on the port, ours dies right after its start. The server is ours if it has printed its announcement. A program that
			// prints another announcement has to stay alive for a while.
			if strings.Contains(c.readOutput(), "Server:") || time.Since(began) > announcement {
				if c.isAlive() {
					return nil
				}
			}
		}
		select {
		case <-c.done:
			return fmt.Errorf("Temporal did not start: %w", c.describeEnd())
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(poll):
		}
	}
}

func checkServing(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	// Dial first, because gRPC would back off while nothing listens.
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	_ = conn.Close()
	return checkTemporal(ctx, client.Options{HostPort: address, Namespace: client.DefaultNamespace})
}

// searchAttributes are the search attributes of Delta's workflows. A server that starts with them answers the first client faster.
var searchAttributes = []string{"DeltaKind", "DeltaNamespace", "DeltaState"}

// dynamicConfig makes a server with one shard and one host behave like the
// clusters that the defaults were chosen for. Measured on two cores: workflows
// started every 30 ms reached their activity after 79 ms (median) with the
// defaults and 8 ms with these; 300 at once, each with an activity and a timer,
// finished 1.4 times as fast.
var dynamicConfig = []string{
	// The task queues of a shard are read at most 20 times a second. With many shards that does not matter; with one, every step of every workflow waits.
	"history.transferProcessorMaxPollRPS=200",
	"history.timerProcessorMaxPollRPS=200",
	// Four partitions spread a task queue over hosts. With one host they only
	// keep tasks from the few pollers, the last ones of a burst for seconds.
	"matching.numTaskqueueReadPartitions=1",
	"matching.numTaskqueueWritePartitions=1",
	// A worker that stops ends its polls. Otherwise the server may give a task to an abandoned poll, and the workflow waits until the task times out ten
	// seconds later.
	"frontend.enableCancelWorkerPollsOnShutdown=true",
	// The response to a start has the first workflow task. That is the server's default, and Delta relies on it.
	"system.enableEagerWorkflowStart=true",
	// The length of a workflow id's column in Postgres and MySQL. SQLite takes longer ids, and tests would not notice them.
	"limit.maxIDLength=255",
}

// pragmas of the database file. With the defaults SQLite waits for the disk four times per transaction. With these, a killed process loses nothing, and
// a crash of the machine at most the last moments.
var pragmas = []string{"journal_mode=WAL", "synchronous=NORMAL"}
