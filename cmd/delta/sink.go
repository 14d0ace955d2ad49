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

// sinkProgram is built from the separate module sinks/cmd/delta-sink, because programs that import Delta should not have the clients of NATS,
// Kafka and Redis in their module graphs.
const sinkProgram = "delta-sink"

func sinkCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "sink run|check -f FILE",
		Short: "Deliver changes to webhooks and message systems, configured by a file",
		Long: "Deliver the changes of tables, or of the log of changes, to webhooks and message systems. A YAML file configures it: docs/sinks.md.\n" +
			"sink check -f FILE validates the file, and sink run -f FILE delivers until interrupted.\n\n" +
			"The command executes the program " + sinkProgram + ", which must be beside delta or on PATH. `make " + sinkProgram + "` in a checkout of Delta builds it.",
		DisableFlagParsing: true, // the program parses all flags
		RunE: func(cmd *cobra.Command, args []string) error {
			program := findSink()
			if program == "" {
				if len(args) == 0 || slices.Contains(args, "--help") || slices.Contains(args, "-h") {
					return cmd.Help()
				}
				return markFailure(errors.New("the program " + sinkProgram + " is neither beside delta nor on PATH: build it with `make " + sinkProgram + "` in a checkout of " +
					"Delta, and put it there from .bin"))
			}
			return markFailure(fmt.Errorf("executing %s: %w", program, execute(program, append([]string{sinkProgram}, args...))))
		},
	}
}

// findSink returns the path of the program beside this one, otherwise on PATH, or "" if there is none.
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
