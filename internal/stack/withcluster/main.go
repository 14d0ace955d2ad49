// Command withcluster starts a Temporal as production runs it, runs a command with TEMPORAL_ADDRESS set to it, and kills a process of the cluster at
// random every so often meanwhile. `make test-temporal` is its use:
//
//	withcluster -server .bin/temporal-server -sql-tool .bin/temporal-sql-tool go test ./delta
//
// It ends with the command's exit code.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/chariot-giving/delta/internal/stack"
)

func main() {
	code, err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "withcluster:", err)
		code = 2
	}
	os.Exit(code)
}

func run() (code int, err error) {
	var opts stack.ClusterOptions
	flag.StringVar(&opts.Server, "server", "", "`path` of temporal-server")
	flag.StringVar(&opts.SQLTool, "sql-tool", "", "`path` of temporal-sql-tool")
	every := flag.Duration("every", 45*time.Second, "kill a process this often, on average; 0 kills none")
	seed := flag.Uint64("seed", rand.Uint64(), "decides which process is killed, and when")
	flag.Func("setting", "dynamic configuration, as `key=JSON`; can be repeated", func(setting string) error {
		opts.Settings = append(opts.Settings, setting)
		return nil
	})
	flag.Parse()
	if flag.NArg() == 0 {
		return 0, errors.New("usage: withcluster -server PATH -sql-tool PATH [flags] COMMAND [ARGUMENT...]")
	}
	var mu sync.Mutex
	opts.Progress = func(message string) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintln(os.Stderr, "cluster:", strings.TrimSpace(message))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	began := time.Now()
	cluster, err := stack.StartCluster(ctx, opts)
	if err != nil {
		return 0, err
	}
	opts.Progress(fmt.Sprintf("serves at %s after %s; its logs are in %s; -seed %d", cluster.Address, time.Since(began).Round(100*time.Millisecond), cluster.Dir, *seed))
	defer func() {
		stopCtx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		err = errors.Join(err, cluster.Stop(stopCtx))
		if err == nil && code == 0 {
			err = os.RemoveAll(cluster.Dir) // otherwise somebody may want to read the logs
		}
	}()
	killing, end := context.WithCancel(ctx)
	var wait sync.WaitGroup
	if *every > 0 {
		wait.Go(func() { cluster.KillAtRandom(killing, *seed, *every) })
	}
	defer wait.Wait()
	defer end()
	return runCommand(ctx, flag.Args(), cluster.Address)
}

// runCommand runs the command until it ends; an interrupt is passed on.
func runCommand(ctx context.Context, args []string, address string) (code int, err error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "TEMPORAL_ADDRESS="+address)
	err = cmd.Run()
	if failed := new(exec.ExitError); errors.As(err, &failed) {
		return max(failed.ExitCode(), 1), nil
	}
	return 0, err
}
