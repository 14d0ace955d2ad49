// Command bench measures what Delta costs on top of what it is made of: a Postgres upsert and a Temporal workflow.
//
// Each figure is a ratio. Delta and the bare thing take turns in one process, on one private stack on this machine, so
// that noise hits both; absolute numbers say more about the machine than about Delta. Run it as `make bench`.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime/pprof"
	"slices"
	"strings"
	"syscall"
	"time"
)

// options are the flags.
type options struct {
	rounds     int
	scale      float64
	only       string
	pool       int
	durable    bool
	out        string
	check      bool
	timeout    time.Duration
	cpuProfile string
	docs       string
	large      int
	largeTime  time.Duration
}

// benchmark is one measurement, which gives one figure or several.
type benchmark struct {
	name string
	run  func(context.Context, *bench) ([]figure, error)
}

var benchmarks = []benchmark{
	{"rest", restFigures}, // first: it tells what this process holds in memory
	{"inform", informFigures},
	{"many", manyFigures},
	{"messages", messageFigures},
	{"sync", syncFigures},
	{"batches", batchFigures},
	{"changes", changeFigures},
	{"river", riverFigures},
	{"dbos", dbosFigures},
	{"telemetry", telemetryFigures},
	{"latency", latencyFigures},
	{"load", loadFigures},
	{"cdc", cdcFigures},
	{"sources", sourceFigures},
	{"nats", natsFigures},
}

func main() {
	var o options
	flag.IntVar(&o.rounds, "rounds", 3, "rounds of each measurement; the figure is their median")
	flag.Float64Var(&o.scale, "scale", 1, "how much is done in each round")
	flag.StringVar(&o.only, "only", "", "comma-separated measurements to make, of: "+strings.Join(benchmarkNames(), ", "))
	flag.IntVar(&o.pool, "pool", 16, "connections to Postgres, for Delta and for the bare thing alike")
	flag.BoolVar(&o.durable, "durable", false, "a Postgres that waits for the disk at each commit")
	flag.StringVar(&o.out, "out", "bench.json", "where the JSON goes; empty: nowhere")
	flag.BoolVar(&o.check, "check", false, "exit with 1 if a target is missed")
	flag.DurationVar(&o.timeout, "timeout", 40*time.Minute, "give up after this long")
	flag.StringVar(&o.docs, "docs", "", "a folder whose benchmarks.md and scaling.md are to say what was measured")
	flag.StringVar(&o.cpuProfile, "cpuprofile", "", "write a CPU profile of this process")
	flag.IntVar(&o.large, "large", 0, "measure a table of so many resources instead: see make bench-large")
	flag.DurationVar(&o.largeTime, "large-time", 15*time.Minute, "how long that may take; resources that would take longer are loaded")
	flag.Parse()

	missed, err := run(o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	if missed && o.check {
		os.Exit(1)
	}
}

func benchmarkNames() (names []string) {
	for _, b := range benchmarks {
		names = append(names, b.name)
	}
	return names
}

// selected are the benchmarks that were asked for.
func (o options) selected() ([]benchmark, error) {
	if o.only == "" {
		return benchmarks, nil
	}
	var chosen []benchmark
	for name := range strings.SplitSeq(o.only, ",") {
		i := slices.Index(benchmarkNames(), strings.TrimSpace(name))
		if i < 0 {
			return nil, fmt.Errorf("--only %q: there are %s", name, strings.Join(benchmarkNames(), ", "))
		}
		chosen = append(chosen, benchmarks[i])
	}
	return chosen, nil
}

func run(o options) (missed bool, err error) {
	chosen, err := o.selected()
	switch {
	case err != nil:
		return false, err
	case o.large != 0 && o.large < leastLarge:
		return false, fmt.Errorf("-large %d: it must be at least %d, so that there are rows which expire", o.large, leastLarge)
	case o.rounds < 1 || o.scale <= 0 || o.pool < 2:
		return false, errors.New("--rounds, --scale and --pool must be at least 1, above 0 and at least 2")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if o.large > 0 {
		o.timeout = o.largeTime * 4 / 3 // how long the first sync takes is bounded, what comes after it only estimated
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()

	if o.cpuProfile != "" {
		file, err := os.Create(o.cpuProfile)
		if err != nil {
			return false, err
		}
		defer file.Close() //nolint:errcheck // a profile is for looking at
		if err := pprof.StartCPUProfile(file); err != nil {
			return false, err
		}
		defer pprof.StopCPUProfile()
	}

	if o.large > 0 {
		return false, runLarge(ctx, o)
	}
	var r report
	for _, m := range chosen {
		began := time.Now()
		figures, err := r.measure(ctx, o, m)
		if err != nil {
			return false, fmt.Errorf("%s: %w", m.name, err)
		}
		r.Figures = append(r.Figures, figures...)
		fmt.Fprintf(os.Stderr, "  %s measured in %s\n", m.name, time.Since(began).Round(time.Second))
	}
	r.print(os.Stdout)
	if o.out != "" {
		if err := writeJSON(o.out, r); err != nil {
			return false, err
		}
	}
	if o.docs != "" {
		if err := writeDocs(o.docs, r); err != nil {
			return false, err
		}
	}
	return r.missed(), nil
}

// measure makes one measurement on a stack of its own: what another has left behind is no load on it.
func (r *report) measure(ctx context.Context, o options, m benchmark) (_ []figure, err error) {
	b, err := start(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.stop()) }()
	if len(r.Figures) == 0 {
		r.Facts = b.facts(ctx)
	}
	return m.run(ctx, b)
}
