package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// health is what a check finds.
type health string

const (
	healthOK   health = "ok"
	healthWarn health = "warn"
	healthFail health = "fail"
	// healthSkip is for a check that needs what another one found to be missing.
	healthSkip health = "skip"
)

// finding is the result of one check, and what to do about it.
type finding struct {
	Check  string `json:"check"`
	Kind   string `json:"kind,omitempty"`
	Status health `json:"status"`
	Detail string `json:"detail"`
	Remedy string `json:"remedy,omitempty"`
}

// findings is a list that grows.
type findings []finding

func (f *findings) add(check string, status health, detail, remedy string) {
	f.addKind(check, "", status, detail, remedy)
}

func (f *findings) addKind(check, kind string, status health, detail, remedy string) {
	*f = append(*f, finding{check, kind, status, plain(detail), plain(remedy)})
}

func (f findings) worst() health {
	for _, status := range []health{healthFail, healthWarn} {
		if slices.ContainsFunc(f, func(one finding) bool { return one.Status == status }) {
			return status
		}
	}
	return healthOK
}

func doctorCommand(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check the database, Temporal, schedules, workers and what is late, and say what to do",
		Long: "doctor checks what an installation needs, changes nothing, and says what to do about what it finds.\n\n" +
			"Exit codes: 0 all is well, 1 there are warnings, 2 there are failures (also wrong usage), 130 interrupted.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := c.database()
			if err != nil {
				return err
			}
			ctx, stop := untilInterrupted(cmd.Context())
			defer stop()
			found := c.diagnose(ctx, config)
			if ctx.Err() != nil {
				return fail(interrupted(ctx, ctx.Err()))
			}
			if err := c.printFindings(found); err != nil {
				return fail(err)
			}
			switch found.worst() {
			case healthFail:
				return &silence{exitDoctorFailures}
			case healthWarn:
				return &silence{exitDoctorWarnings}
			case healthOK, healthSkip:
			}
			return nil
		},
	}
	c.temporalFlags(cmd)
	return cmd
}

// Exit codes of doctor.
const (
	exitDoctorWarnings = 1
	exitDoctorFailures = 2
)

type diagnosisJSON struct {
	Status health   `json:"status"`
	Checks findings `json:"checks"`
}

func (c *cli) printFindings(found findings) error {
	if done, err := c.json(diagnosisJSON{found.worst(), found}); done {
		return err
	}
	widest := 0
	for _, f := range found {
		widest = max(widest, len(f.name()))
	}
	widest = min(widest, 30)
	indent := strings.Repeat(" ", 6+widest+2)
	room := 0
	if c.width > 0 {
		room = max(c.width-len(indent), 20)
	}
	counts := map[health]int{}
	for _, f := range found {
		counts[f.Status]++
		for i, line := range wrap(f.Detail, room) {
			if i == 0 {
				_, _ = fmt.Fprintf(c.out, "%-4s  %-*s  %s\n", f.Status, widest, f.name(), line)
				continue
			}
			_, _ = fmt.Fprintf(c.out, "%s%s\n", indent, line)
		}
		if f.Remedy == "" {
			continue
		}
		for i, line := range wrap(f.Remedy, max(room-2, 0)) {
			mark := "  "
			if i == 0 {
				mark = "→ "
			}
			_, _ = fmt.Fprintf(c.out, "%s%s%s\n", indent, mark, line)
		}
	}
	summary := fmt.Sprintf("\n%d ok, %s, %s", counts[healthOK], counted(counts[healthWarn], "warning"), counted(counts[healthFail], "failure"))
	if n := counts[healthSkip]; n > 0 {
		summary += fmt.Sprintf(", %d skipped", n)
	}
	_, err := fmt.Fprintln(c.out, summary)
	return err
}

func (f finding) name() string {
	if f.Kind == "" {
		return f.Check
	}
	return f.Check + " " + f.Kind
}
