package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chariot-giving/delta/internal/bench/protocol"
)

// Names of the figures with a peer on the other side.
const (
	besideRiverName = "in batches, beside River's raw jobs"
	besideDBOSName  = "single informs, beside DBOS"
	besideNATSName  = "log of changes to NATS, beside its client"
	// The figures of telemetry have Delta on both sides.
	telemetryInformName  = "Inform with telemetry, beside without"
	telemetryBatchesName = "in batches with telemetry, beside without"
)

// peer is a process that runs a library that Delta is compared with. It is built from a separate module.
type peer struct {
	hello   protocol.Hello
	command *exec.Cmd
	orders  io.WriteCloser
	answers *json.Decoder
	folder  string
}

// Folders with the sources of the programs.
const (
	peersFolder    = "internal/bench/peers"
	overheadFolder = "deltaotel/internal/overhead"
)

// startPeer builds the peers' program and starts it with an empty database on the same Postgres.
func (b *bench) startPeer(ctx context.Context, name string) (*peer, error) {
	return b.startProgram(ctx, peersFolder, name, "-peer", name)
}

// startProgram builds a program and starts it with an empty database on the same Postgres.
func (b *bench) startProgram(ctx context.Context, folder, name string, flags ...string) (_ *peer, err error) {
	p := &peer{}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.stop())
		}
	}()
	if p.folder, err = os.MkdirTemp("", "delta-bench-peers-"); err != nil {
		return p, err
	}
	program := filepath.Join(p.folder, "peers")
	if err := buildProgram(ctx, folder, program); err != nil {
		return p, err
	}
	database, err := b.createDatabase(ctx, "bench_"+name)
	if err != nil {
		return p, err
	}
	flags = append(flags, "-database-url", database, "-connections", strconv.Itoa(b.options.pool))
	p.command = exec.CommandContext(ctx, program, flags...)
	p.command.Stderr = os.Stderr
	p.command.Cancel = func() error { return p.command.Process.Signal(syscall.SIGTERM) }
	p.command.WaitDelay = 20 * time.Second
	if p.orders, err = p.command.StdinPipe(); err != nil {
		return p, err
	}
	output, err := p.command.StdoutPipe()
	if err != nil {
		return p, err
	}
	p.answers = json.NewDecoder(output)
	if err := p.command.Start(); err != nil {
		p.command = nil
		return p, err
	}
	if err := p.answers.Decode(&p.hello); err != nil {
		return p, fmt.Errorf("%s did not start: %w", name, err)
	}
	return p, nil
}

// buildProgram builds a program of another module of the repository.
func buildProgram(ctx context.Context, folder, program string) error {
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/chariot-giving/delta").Output()
	if err != nil {
		return fmt.Errorf("looking for the sources of %s; run this in the repository: %w", folder, err)
	}
	folder = filepath.Join(strings.TrimSpace(string(root)), filepath.FromSlash(folder))
	build := exec.CommandContext(ctx, "go", "build", "-o", program, ".")
	build.Dir = folder
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s: %w\n%s", folder, err, out)
	}
	return nil
}

// createDatabase creates an empty database beside Delta's and returns its URL.
func (b *bench) createDatabase(ctx context.Context, name string) (string, error) {
	if _, err := b.pool.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize()); err != nil {
		return "", err
	}
	database, err := url.Parse(b.stack.DatabaseURL)
	if err != nil {
		return "", err
	}
	database.Path = "/" + name
	return database.String(), nil
}

// newSide returns the peer's side of a comparison.
func (p *peer) newSide(counted func(turn int) (set string, n int)) side {
	return func(_ context.Context, turn int) (int, time.Duration, error) {
		_, count := counted(turn)
		if err := json.NewEncoder(p.orders).Encode(protocol.Order{Turn: turn, Count: count}); err != nil {
			return 0, 0, err
		}
		var answer protocol.Answer
		if err := p.answers.Decode(&answer); err != nil {
			return 0, 0, fmt.Errorf("reading the peer's answer: %w", err)
		}
		if answer.Error != "" {
			return 0, 0, errors.New(answer.Error)
		}
		return count, answer.Took, nil
	}
}

// stop closes the process's input, and waits until it has ended.
func (p *peer) stop() (err error) {
	if p.command != nil {
		err = errors.Join(p.orders.Close(), p.command.Wait())
	}
	if p.folder != "" {
		err = errors.Join(err, os.RemoveAll(p.folder))
	}
	return err
}

// countedBy returns the number of objects of a turn, and a name for them. The warm-up does a fifth.
func countedBy(count int) func(turn int) (set string, n int) {
	return func(turn int) (string, int) {
		if turn == warmUp {
			return "warm", max(count/5, 1)
		}
		return fmt.Sprint(turn), count
	}
}

// besidePeer compares the rate at which a client syncs with the rate of a peer's jobs or workflows.
func (b *bench) besidePeer(
	ctx context.Context, name string, f figure, count int, s *syncBench, sync func(ctx context.Context, set string, count int) (time.Duration, error),
) (_ []figure, err error) {
	defer func() { err = errors.Join(err, s.stop()) }()
	p, err := b.startPeer(ctx, name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	counted := countedBy(count)
	synced := func(ctx context.Context, turn int) (int, time.Duration, error) {
		set, n := counted(turn)
		took, err := sync(ctx, set, n)
		if err == nil {
			err = s.truncateResources(ctx)
		}
		return n, took, err
	}
	f.Unit = "/s"
	f.What += fmt.Sprintf(" %s: %s", p.hello.Version, p.hello.Settings)
	f, err = compareRates(ctx, b.rounds, 1, f, synced, p.newSide(counted))
	return []figure{f}, err
}

// riverFigures compares syncing in batches with inserting and working the same number of jobs of River.
func riverFigures(ctx context.Context, b *bench) ([]figure, error) {
	s, err := b.startBatching(ctx, "bench_beside_river")
	if err != nil {
		return nil, err
	}
	count := b.scaleCount(200_000)
	return b.besidePeer(ctx, "river", figure{
		Name: besideRiverName, AtLeast: 1.3,
		What: fmt.Sprintf("Client.InformMany of %d objects in pages, batches of %d, until the last row is synced (Work does nothing), against as "+
			"many jobs with the same objects, inserted and worked (Work does nothing) on the same Postgres by River", count, batchSize),
	}, count, s, s.syncPages)
}

// natsFigures compares the delivery of the log of changes to NATS with publishing by the NATS client alone.
func natsFigures(ctx context.Context, b *bench) (_ []figure, err error) {
	log, err := b.startPeer(ctx, "log")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, log.stop()) }()
	alone, err := b.startPeer(ctx, "nats")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, alone.stop()) }()
	count := b.scaleCount(50_000)
	f := figure{
		Name: besideNATSName, Unit: "/s", AtLeast: 0.6,
		What: fmt.Sprintf("%d entries of the log of changes, %s, against nats.go %s, which publishes as many with the same content and headers: %s", count,
			log.hello.Settings, alone.hello.Version, alone.hello.Settings),
	}
	f, err = compareRates(ctx, b.rounds, 1, f, log.newSide(countedBy(count)), alone.newSide(countedBy(count)))
	return []figure{f}, err
}

// dbosFigures compares single informs, with default settings, with durable workflows of DBOS.
func dbosFigures(ctx context.Context, b *bench) ([]figure, error) {
	s, err := startSyncing[defaultItem](ctx, b, "bench_beside_dbos", defaultKind, nil, nil)
	if err != nil {
		return nil, err
	}
	count := b.scaleCount(20_000)
	return b.besidePeer(ctx, "dbos", figure{
		Name: besideDBOSName, AtLeast: 3,
		What: fmt.Sprintf("%d times Client.Inform from %d goroutines, with default settings, until the last row is synced (Work does nothing), "+
			"against as many durable workflows with the same objects on the same Postgres by DBOS", count, informers),
	}, count, s, s.syncEach)
}
