package stack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
)

// cliVariable names the temporal command to use.
const cliVariable = "DELTA_TEMPORAL_CLI"

// startTemporal brings our own Temporal up.
func (s *Stack) startTemporal(ctx context.Context) error {
	if err := s.home.recoverTemporal(s.report); err != nil {
		return err
	}
	cli, from, err := findTemporal()
	if err != nil {
		return err
	}
	if cli == "" {
		if cli, err = s.downloadTemporal(ctx); err != nil {
			return err
		}
		from = "downloaded"
	}
	s.TemporalCLI = cli
	s.report("Temporal from %s (%s)", cli, from)
	for attempt := 1; ; attempt++ {
		err := s.serveTemporal(ctx, cli)
		if taken := (errPortTaken{}); errors.As(err, &taken) && attempt < 5 {
			s.report("Temporal: %v", err)
			continue
		}
		return err
	}
}

// findTemporal finds the temporal command: the one named by DELTA_TEMPORAL_CLI,
// the one on PATH, or the one that `make` builds into .bin of the checkout we
// are in. It returns "" when there is none.
func findTemporal() (path, from string, err error) {
	if path := os.Getenv(cliVariable); path != "" {
		if !executable(path) {
			return "", "", fmt.Errorf("%s is set to %s, which is not an executable file", cliVariable, path)
		}
		path, err := filepath.Abs(path)
		return path, "named by " + cliVariable, err
	}
	if path := (finder{path: os.Getenv("PATH")}).onPath("temporal"); path != "" {
		return path, "on PATH", nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", "", nil //nolint:nilerr // without a working directory there is no checkout around it
	}
	for {
		if path := filepath.Join(dir, ".bin", "temporal"); executable(path) {
			return path, "built by make", nil
		}
		if dir == filepath.Dir(dir) {
			return "", "", nil
		}
		dir = filepath.Dir(dir)
	}
}

// downloadTemporal lets the SDK download the command, once.
func (s *Stack) downloadTemporal(ctx context.Context) (string, error) {
	dir, err := DefaultDir()
	if err != nil {
		return "", err
	}
	dir = filepath.Join(dir, "binaries")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	path := filepath.Join(dir, "temporal-cli-go-sdk-"+temporal.SDKVersion)
	if executable(path) {
		return path, nil
	}
	s.report("no temporal command found: downloading one to %s", dir)
	defer s.waiting("the download of the temporal command")()
	log, _, err := openLog(s.home.path("temporal.log"))
	if err != nil {
		return "", err
	}
	defer func() { _ = log.Close() }()
	// The SDK downloads only as part of a start of its own; this one is over
	// at once, and happens once in the life of a machine.
	server, err := testsuite.StartDevServer(ctx, testsuite.DevServerOptions{
		CachedDownload: testsuite.CachedDownload{DestDir: dir},
		ClientOptions:  &client.Options{Logger: silent{}},
		Stdout:         log,
		Stderr:         log,
	})
	if err == nil {
		server.Client().Close()
		err = server.Stop()
	}
	if !executable(path) {
		return "", fmt.Errorf("no temporal command was found (%s, PATH, .bin of a checkout) and none could be downloaded: %w\n"+
			"Install it (https://docs.temporal.io/cli), run make in a checkout of Delta, or set %s to a running server",
			cliVariable, err, temporalVariable)
	}
	return path, nil
}

// serveTemporal starts the server on its ports and waits until it serves.
func (s *Stack) serveTemporal(ctx context.Context, cli string) error {
	port, err := s.ports.choose("temporal", s.opts.TemporalPort)
	if err != nil {
		return err
	}
	uiPort, err := s.ports.choose("ui", s.opts.UIPort)
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
	for _, value := range dynamicConfig {
		args = append(args, "--dynamic-config-value", value)
	}
	ending := temporalEnding
	if s.opts.Ephemeral {
		// Draining takes two seconds and here serves nobody.
		ending = killOnly
	} else {
		args = append(args, "--db-filename", s.home.path("temporal.db"))
		for _, pragma := range pragmas {
			args = append(args, "--sqlite-pragma", pragma)
		}
	}
	defer s.waiting(fmt.Sprintf("Temporal to serve on port %d", port))()
	began := time.Now()
	c, err := startChild(spec{
		// Without the user's configuration: it is for clients of other servers.
		name: "Temporal", path: cli, args: args, dir: s.home.dir, env: cleanEnv("TEMPORAL_"),
		logPath: s.home.path("temporal.log"), pidPath: s.home.path("temporal.pid"),
		orphan: syscall.SIGKILL, ending: ending,
	})
	if err != nil {
		return err
	}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	if err := awaitTemporal(ctx, c, address, began); err != nil {
		if !c.alive() && ctx.Err() == nil {
			for _, p := range []int{port, uiPort} {
				if !portFree(p) {
					err = errPortTaken{p}
				}
			}
		}
		return errors.Join(err, c.stop(ctx))
	}
	if err := s.adopt(c); err != nil {
		return errors.Join(err, c.stop(ctx))
	}
	s.reportPort("Temporal", s.opts.TemporalPort, port)
	s.reportPort("Temporal's UI", s.opts.UIPort, uiPort)
	s.TemporalAddress = address
	s.TemporalNamespace = client.DefaultNamespace
	s.UIURL = fmt.Sprintf("http://127.0.0.1:%d", uiPort)
	return nil
}

// awaitTemporal returns when the frontend serves and knows the namespace.
func awaitTemporal(ctx context.Context, c *child, address string, began time.Time) error {
	for {
		if serves(ctx, address) == nil {
			// Should another Temporal answer on the port, ours dies of it right
			// after its start; it is ours when it has announced itself or lives on.
			if strings.Contains(c.written(), "Server:") || time.Since(began) > time.Second {
				if c.alive() {
					return nil
				}
			}
		}
		select {
		case <-c.done:
			return fmt.Errorf("Temporal did not start: %w", c.failure())
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(poll):
		}
	}
}

func serves(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	// The cheap question first: gRPC backs off when nobody listens yet.
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	_ = conn.Close()
	return checkTemporal(ctx, client.Options{HostPort: address, Namespace: client.DefaultNamespace})
}

// searchAttributes are those that Delta's workflows have: a server that starts with them answers the first client faster.
var searchAttributes = []string{"DeltaKind", "DeltaNamespace", "DeltaState"}

// dynamicConfig makes a server with one shard and one host behave like the
// clusters that the defaults were chosen for. Measured on two cores: workflows
// started every 30 ms reached their activity after 79 ms (median) with the
// defaults and 8 ms with these; 300 at once, each with an activity and a timer,
// finished 1.4 times as fast.
var dynamicConfig = []string{
	// The task queues of a shard are read 20 times a second at most. With many
	// shards nobody notices; with one, every step of every workflow waits.
	"history.transferProcessorMaxPollRPS=200",
	"history.timerProcessorMaxPollRPS=200",
	// Four partitions spread a task queue over hosts. With one host they only
	// keep tasks from the few pollers, the last ones of a burst for seconds.
	"matching.numTaskqueueReadPartitions=1",
	"matching.numTaskqueueWritePartitions=1",
}

// pragmas of the database file: with the defaults SQLite waits for the disk
// four times per transaction. These lose nothing when a process is killed, and
// at most the last moments when the machine is.
var pragmas = []string{"journal_mode=WAL", "synchronous=NORMAL"}
