package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"
)

// sinkProgram is in a module of its own, sinks/cmd/delta-sink, so that the clients of NATS, Kafka and Redis are in nobody's module graph who imports Delta.
const sinkProgram = "delta-sink"

func sinkCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "sink run|check -f FILE",
		Short: "Deliver changes to webhooks and message systems as a file says",
		Long: "sink delivers the changes of tables, or of the log of changes, as a file in YAML says, which docs/sinks.md describes:\n" +
			"sink check -f FILE validates one, and sink run -f FILE delivers until it is interrupted.\n\n" +
			"It executes the program " + sinkProgram + ", which is beside delta or on PATH. `make " + sinkProgram + "` in a checkout of Delta builds it.",
		DisableFlagParsing: true, // all is for the program
		RunE: func(cmd *cobra.Command, args []string) error {
			program := findSink()
			if program == "" {
				if len(args) == 0 || slices.Contains(args, "--help") || slices.Contains(args, "-h") {
					return cmd.Help()
				}
				return fail(errors.New("the program " + sinkProgram + " is neither beside delta nor on PATH: build it with `make " + sinkProgram + "` in a checkout of " +
					"Delta, which has it in .bin, and put it there"))
			}
			return fail(fmt.Errorf("executing %s: %w", program, execute(program, append([]string{sinkProgram}, args...))))
		},
	}
}

// findSink is the program beside this one, or else on PATH; empty if there is none.
func findSink() string {
	if own, err := os.Executable(); err == nil {
		if resolved, err := filepath.EvalSymlinks(own); err == nil {
			own = resolved
		}
		if path, err := exec.LookPath(filepath.Join(filepath.Dir(own), sinkProgram)); err == nil {
			return path
		}
	}
	path, err := exec.LookPath(sinkProgram)
	if err != nil {
		return ""
	}
	return path
}
