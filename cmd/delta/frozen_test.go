package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/chariot-giving/delta/internal/frozen"
)

// Scripts name commands, flags and exit codes. The fields of --json are in api/json.txt.
func TestTheCommandLineIsTheRecordedOne(t *testing.T) {
	t.Parallel()
	var lines []string
	var visit func(c *cobra.Command)
	visit = func(c *cobra.Command) {
		use := strings.TrimSpace(strings.TrimSuffix(c.Parent().CommandPath()+" "+c.Use, "[flags]"))
		lines = append(lines, "command "+use)
		for _, alias := range c.Aliases {
			lines = append(lines, "alias "+c.CommandPath()+" = "+alias)
		}
		c.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) { lines = append(lines, describeFlag(c, f)) })
		c.PersistentFlags().VisitAll(func(f *pflag.Flag) { lines = append(lines, describeFlag(c, f)) })
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	root := rootCommand(&cli{})
	root.PersistentFlags().VisitAll(func(f *pflag.Flag) { lines = append(lines, describeFlag(root, f)) })
	for _, c := range root.Commands() {
		visit(c)
	}
	for name, code := range map[string]int{
		"done": exitOK, "failed": exitFailure, "wrong usage": exitUsage, "not found": exitNotFound, "wrong state": exitState, "unreachable": exitUnreachable,
		"interrupted": exitInterrupted,
	} {
		lines = append(lines, fmt.Sprintf("exit code %d: %s", code, name))
	}
	frozen.Check(t, "../../api/command.txt", lines)
}

func describeFlag(c *cobra.Command, f *pflag.Flag) string {
	text := fmt.Sprintf("flag %s --%s %s default %q", c.CommandPath(), f.Name, f.Value.Type(), f.DefValue)
	if f.Shorthand != "" {
		text += " -" + f.Shorthand
	}
	return text
}
