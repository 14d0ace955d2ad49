// Command bench measures the overhead of Delta over its parts: a Postgres upsert and a Temporal workflow.
//
// Each figure is a ratio. Delta and the bare side take turns in one process, on one private stack on this machine, so that noise affects both. Absolute
// numbers say more about the machine than about Delta. Run it with `make bench`.
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

	"github.com/chariot-giving/delta/internal/stack"
)

// options has the flags.
type options struct {
	rounds         int
	scale          float64
	only           string
	pool           int
	durable        bool
	out            string
	check          bool
	timeout        time.Duration
	cpuProfile     string
	docs           string
	large          int
	largeTime      time.Duration
	clusterOptions stack.ClusterOptions
}

// benchmark is one measurement, with one or several figures.
type benchmark struct {
	name string
	run  func(context.Context, *bench) ([]figure, error)
}

var benchmarks = []benchmark{
	{"rest", restFigures}, // first, because it measures the memory of this process
	{"inform", informFigures},
	{"many", manyFigures},
	{"messages", messageFigures},
	{"sync", syncFigures},
	{"batches", batchFigures},
	{"changes", changeFigures},
	{"codec", codecFigures},
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
	flag.Float64Var(&o.scale, "scale", 1, "factor for the amount of work in each round")
	flag.StringVar(&o.only, "only", "", "comma-separated measurements to make, of: "+strings.Join(benchmarkNames(), ", "))
	flag.IntVar(&o.pool, "pool", 16, "connections to Postgres, for Delta and for the bare side")
	flag.BoolVar(&o.durable, "durable", false, "let Postgres wait for the disk at each commit")
	flag.StringVar(&o.out, "out", "bench.json", "file for the JSON; empty for none")
	flag.BoolVar(&o.check, "check", false, "exit with 1 if a target is missed")
	flag.DurationVar(&o.timeout, "timeout", 40*time.Minute, "give up after this long")
	flag.StringVar(&o.docs, "docs", "", "folder with benchmarks.md and scaling.md, to write the results into")
	flag.StringVar(&o.cpuProfile, "cpuprofile", "", "write a CPU profile of this process")
	flag.IntVar(&o.large, "large", 0, "measure a table of this many resources instead: see make bench-large")
	flag.DurationVar(&o.largeTime, "large-time", 15*time.Minute, "time limit of -large; resources that would take longer to sync are loaded")
	flag.StringVar(&o.clusterOptions.Server, "cluster-server", "", "`path` of temporal-server: measure beside a Temporal cluster on Postgres, in processes of its own: see make bench-cluster")
	flag.StringVar(&o.clusterOptions.SQLTool, "cluster-sql-tool", "", "`path` of temporal-sql-tool, for -cluster-server")
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

// selectBenchmarks returns the benchmarks that --only names.
func (o options) selectBenchmarks() ([]benchmark, error) {
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
	chosen, err := o.selectBenchmarks()
	switch {
	case err != nil:
		return false, err
	case o.large != 0 && o.large < leastLarge:
		return false, fmt.Errorf("-large %d: it must be at least %d, so that some rows expire", o.large, leastLarge)
	case o.clusterOptions.Server != "" && o.docs != "":
		return false, errors.New("-docs with -cluster-server: the pages have the figures of a development server")
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
		defer file.Close() //nolint:errcheck // losing a profile is harmless
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
	return r.hasMissed(), nil
}

// measure runs one benchmark on a new stack, so that leftovers of another do not slow it down.
func (r *report) measure(ctx context.Context, o options, m benchmark) (_ []figure, err error) {
	b, err := startBench(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.stop()) }()
	if len(r.Figures) == 0 {
		r.Facts = b.collectFacts(ctx)
	}
	return m.run(ctx, b)
}
