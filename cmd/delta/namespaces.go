package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/wording"
)

func namespacesCommand(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "namespaces",
		Short: "Show the settings of namespaces, and change them while clients run",
		Long: "Show the settings of namespaces. Settings made with delta namespaces set hold for all clients, whatever their Config.Namespaces\n" +
			"says, until delta namespaces reset.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.withSession(cmd, c.printNamespaces) },
	}
	c.addDatabaseFlags(cmd)
	cmd.AddCommand(&cobra.Command{
		Use: "list", Short: "Show the settings of namespaces", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.withSession(cmd, c.printNamespaces) },
	}, c.setNamespaceCommand(), c.resetNamespaceCommand())
	return cmd
}

// namespaceJSON is a namespace as --output json shows it. A setting that is null is left to clients; a retention below 0 is for ever.
type namespaceJSON struct {
	Name              string     `json:"name"`
	MaxWorkers        *int       `json:"max_workers"`
	RateLimit         *float64   `json:"rate_limit"`
	Expiry            *float64   `json:"expiry_seconds"`
	SyncedRetention   *float64   `json:"synced_retention_seconds"`
	DegradedRetention *float64   `json:"degraded_retention_seconds"`
	DeletedRetention  *float64   `json:"deleted_retention_seconds"`
	SnoozedUntil      *time.Time `json:"snoozed_until"`
	Overridden        bool       `json:"overridden"`
}

type namespacesJSON struct {
	Namespaces []namespaceJSON `json:"namespaces"`
}

func (c *cli) printNamespaces(ctx context.Context, s *session) error {
	all, err := s.Namespaces(ctx)
	if err != nil {
		return err
	}
	snoozes, err := s.Snoozes(ctx)
	if err != nil {
		return err
	}
	out := namespacesJSON{Namespaces: make([]namespaceJSON, len(all))}
	rows := make([][]string, len(all))
	for i, n := range all {
		out.Namespaces[i] = toNamespaceJSON(n, snoozes)
		rows[i] = namespaceRow(n, out.Namespaces[i], time.Now())
	}
	if done, err := c.printJSON(out); done {
		return err
	}
	if len(all) == 0 {
		c.printNote("No namespace has settings: those of each client hold.")
		return nil
	}
	return c.printTable([]string{"NAME", "WORKERS", "RATE", "EXPIRY", "SYNCED", "DEGRADED", "DELETED", "SET BY", "SNOOZED"}, rows, 0)
}

func toNamespaceJSON(n deltatype.Namespace, snoozes []delta.Snooze) namespaceJSON {
	out := namespaceJSON{Name: n.Name, Overridden: n.Overridden}
	if n.MaxWorkers != 0 {
		out.MaxWorkers = &n.MaxWorkers
	}
	if n.RateLimit != 0 {
		out.RateLimit = &n.RateLimit
	}
	out.Expiry, out.SyncedRetention = toSeconds(n.ResourceExpiry), toSeconds(n.SyncedResourceRetentionPeriod)
	out.DegradedRetention, out.DeletedRetention = toSeconds(n.DegradedResourceRetentionPeriod), toSeconds(n.DeletedResourceRetentionPeriod)
	for _, snooze := range snoozes {
		if snooze.Namespace == n.Name {
			out.SnoozedUntil = &snooze.Until
		}
	}
	return out
}

// toSeconds returns a duration in seconds; nil if it is not set.
func toSeconds(d time.Duration) *float64 {
	if d == 0 {
		return nil
	}
	seconds := d.Seconds()
	return &seconds
}

func namespaceRow(n deltatype.Namespace, out namespaceJSON, now time.Time) []string {
	workers, rate, by := "-", "-", "clients"
	if n.MaxWorkers != 0 {
		workers = wording.Number(n.MaxWorkers)
	}
	if n.RateLimit != 0 {
		rate = fmt.Sprintf("%g/s", n.RateLimit)
	}
	if n.Overridden {
		by = "command"
	}
	return []string{
		n.Name, workers, rate, formatRetention(n.ResourceExpiry), formatRetention(n.SyncedResourceRetentionPeriod),
		formatRetention(n.DegradedResourceRetentionPeriod), formatRetention(n.DeletedResourceRetentionPeriod), by, wording.When(out.SnoozedUntil, now),
	}
}

// formatRetention says how long rows are kept.
func formatRetention(d time.Duration) string {
	switch {
	case d == 0:
		return "-"
	case d < 0:
		return "for ever"
	default:
		return wording.Duration(d)
	}
}

func (c *cli) setNamespaceCommand() *cobra.Command {
	var to delta.NamespaceConfig
	cmd := &cobra.Command{
		Use: "set NAME", Short: "Change the settings of a namespace for all clients", Args: cobra.ExactArgs(1),
		Long: "Change the settings of a namespace for all clients. A setting that no flag names stays as it is; 0 leaves it to each client, and\n" +
			"a retention below 0 keeps rows for ever. Settled resources of the namespace get their new expiry and retention at once.",
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	flags := cmd.Flags()
	flags.IntVar(&to.MaxWorkers, "max-workers", 0, "`maximum` number of calls of Work at a time in each client")
	flags.Float64Var(&to.RateLimit, "rate-limit", 0, "maximum number of `calls` of Work a second, over all clients")
	flags.DurationVar(&to.ResourceExpiry, "expiry", 0, "`time` after which synced resources are synced again")
	flags.DurationVar(&to.SyncedResourceRetentionPeriod, "synced-retention", 0, "`time` for which synced resources are kept")
	flags.DurationVar(&to.DegradedResourceRetentionPeriod, "degraded-retention", 0, "`time` for which degraded resources are kept")
	flags.DurationVar(&to.DeletedResourceRetentionPeriod, "deleted-retention", 0, "`time` for which deleted resources are kept")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.withSession(cmd, func(ctx context.Context, s *session) error {
			all, err := s.Namespaces(ctx)
			if err != nil {
				return err
			}
			for _, n := range all {
				if n.Name == args[0] {
					keepUnsetFields(flags.Changed, &to, n)
				}
			}
			if err := s.SetNamespace(ctx, args[0], to); err != nil {
				return err
			}
			return c.printNamespaces(ctx, s)
		})
	}
	return cmd
}

// keepUnsetFields copies the present value of each setting that no flag names.
func keepUnsetFields(isSet func(flag string) bool, to *delta.NamespaceConfig, n deltatype.Namespace) {
	if !isSet("max-workers") {
		to.MaxWorkers = n.MaxWorkers
	}
	if !isSet("rate-limit") {
		to.RateLimit = n.RateLimit
	}
	for flag, field := range map[string]struct {
		to   *time.Duration
		from time.Duration
	}{
		"expiry":             {&to.ResourceExpiry, n.ResourceExpiry},
		"synced-retention":   {&to.SyncedResourceRetentionPeriod, n.SyncedResourceRetentionPeriod},
		"degraded-retention": {&to.DegradedResourceRetentionPeriod, n.DegradedResourceRetentionPeriod},
		"deleted-retention":  {&to.DeletedResourceRetentionPeriod, n.DeletedResourceRetentionPeriod},
	} {
		if !isSet(flag) {
			*field.to = field.from
		}
	}
	// Expiry and retention of synced resources exclude each other: the one that a flag names replaces the other.
	switch {
	case isSet("synced-retention") && to.SyncedResourceRetentionPeriod != 0 && !isSet("expiry"):
		to.ResourceExpiry = 0
	case to.ResourceExpiry > 0 && !isSet("synced-retention"):
		to.SyncedResourceRetentionPeriod = 0
	}
}

func (c *cli) resetNamespaceCommand() *cobra.Command {
	return &cobra.Command{
		Use: "reset NAME", Short: "Leave a namespace to the configuration of clients again", Args: cobra.ExactArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.withSession(cmd, func(ctx context.Context, s *session) error {
				if err := s.ResetNamespace(ctx, args[0]); err != nil {
					return err
				}
				return c.printNamespaces(ctx, s)
			})
		},
	}
}
