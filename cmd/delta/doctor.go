package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/wording"
)

// checkJSON is a check as --output json shows it.
type checkJSON struct {
	Check  string           `json:"check"`
	Kind   string           `json:"kind,omitempty"`
	Status delta.CheckState `json:"status"`
	Detail string           `json:"detail"`
	Remedy string           `json:"remedy,omitempty"`
}

func (f checkJSON) subject() string {
	if f.Kind == "" {
		return f.Check
	}
	return f.Check + " " + f.Kind
}

type diagnosisJSON struct {
	Status delta.CheckState `json:"status"`
	Checks []checkJSON      `json:"checks"`
}

func doctorCommand(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check the database, Temporal, schedules, workers and late resources, and say what to do",
		Long: "Check everything that an installation needs, and say what to do about each problem. Nothing is changed.\n\n" +
			"Exit codes: 0 all is well, 1 warnings, 2 failures or wrong usage, 130 interrupted.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := c.parsePoolConfig()
			if err != nil {
				return err
			}
			ctx, stop := withInterrupt(cmd.Context())
			defer stop()
			found, err := c.runChecks(ctx, config)
			if err != nil {
				return err
			}
			if ctx.Err() != nil {
				return markFailure(asInterrupted(ctx, ctx.Err()))
			}
			if err := c.printDiagnosis(found); err != nil {
				return markFailure(err)
			}
			switch found.State() {
			case delta.CheckFailure:
				return &silentExit{exitDoctorFailures}
			case delta.CheckWarning:
				return &silentExit{exitDoctorWarnings}
			case delta.CheckOK, delta.CheckSkipped:
			}
			return nil
		},
	}
	c.addTemporalFlags(cmd)
	return cmd
}

// Exit codes of doctor.
const (
	exitDoctorWarnings = 1
	exitDoctorFailures = 2
)

// runChecks runs the checks of a client. Its error is a usage error: a flag that no client accepts.
func (c *cli) runChecks(ctx context.Context, config *pgxpool.Config) (*delta.Diagnosis, error) {
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	client, err := c.newLazyClient(ctx, pool, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	defer stopClient(ctx, client)
	return client.Doctor(ctx), nil
}

func (c *cli) printDiagnosis(d *delta.Diagnosis) error {
	found := make([]checkJSON, len(d.Checks))
	for i, one := range d.Checks {
		found[i] = checkJSON{one.Name, one.Kind, one.State, one.Detail, one.Remedy}
	}
	if done, err := c.printJSON(diagnosisJSON{d.State(), found}); done {
		return err
	}
	widest := 0
	for _, f := range found {
		widest = max(widest, len(f.subject()))
	}
	widest = min(widest, 30)
	indent := strings.Repeat(" ", 6+widest+2)
	room := 0
	if c.width > 0 {
		room = max(c.width-len(indent), 20)
	}
	counts := map[delta.CheckState]int{}
	for _, f := range found {
		counts[f.Status]++
		for i, line := range wrapText(f.Detail, room) {
			if i == 0 {
				_, _ = fmt.Fprintf(c.out, "%-4s  %-*s  %s\n", f.Status, widest, f.subject(), line)
				continue
			}
			_, _ = fmt.Fprintf(c.out, "%s%s\n", indent, line)
		}
		if f.Remedy == "" {
			continue
		}
		for i, line := range wrapText(f.Remedy, max(room-2, 0)) {
			mark := "  "
			if i == 0 {
				mark = "→ "
			}
			_, _ = fmt.Fprintf(c.out, "%s%s%s\n", indent, mark, line)
		}
	}
	summary := fmt.Sprintf("\n%d ok, %s, %s", counts[delta.CheckOK], wording.Count(counts[delta.CheckWarning], "warning"), wording.Count(counts[delta.CheckFailure], "failure"))
	if n := counts[delta.CheckSkipped]; n > 0 {
		summary += fmt.Sprintf(", %d skipped", n)
	}
	_, err := fmt.Fprintln(c.out, summary)
	return err
}
