package main

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

func resourcesCommand(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "resources",
		Aliases: []string{"resource"},
		Short:   "List, inspect, sync and delete resources",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("missing subcommand: list, get, explain, history, retry, invalidate, touch, delete, revive or workflow-id")
		},
	}
	c.addDatabaseFlags(cmd)
	cmd.AddCommand(listCommand(c), getCommand(c), explainCommand(c), historyCommand(c), retryCommand(c), invalidateCommand(c), touchCommand(c), deleteCommand(c), reviveCommand(c),
		workflowIDCommand(c))
	return cmd
}

// filterFlags has the flags that select resources.
type filterFlags struct {
	kinds, ids, namespaces, shards, states, tags []string
	labels                                       map[string]string
	failure                                      string
	late                                         bool
}

// filterFlagNames has the names of the flags that select resources.
var filterFlagNames = []string{"kind", "id", "namespace", "shard", "state", "tag", "label", "error", "late"}

func (f *filterFlags) addFlags(c *cli, cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringSliceVar(&f.kinds, "kind", nil, "only of this `kind`; this and the other filters can be repeated")
	flags.StringArrayVar(&f.ids, "id", nil, "only the object with this `id`")
	flags.StringSliceVar(&f.namespaces, "namespace", nil, "only in this `namespace` of Delta")
	flags.StringArrayVar(&f.shards, "shard", nil, "only in this `shard` of its kind")
	flags.StringSliceVar(&f.states, "state", nil, "only in this `state`: "+strings.Join(stateNames(), ", "))
	flags.StringSliceVar(&f.tags, "tag", nil, "only with this `tag`; repeated, all must match")
	flags.StringToStringVar(&f.labels, "label", nil, "only with this member in the metadata, `name=value`; repeated, all must match")
	flags.StringVar(&f.failure, "error", "", "only failing, with a latest error that contains this `text`")
	flags.BoolVar(&f.late, "late", false, "only if the next step is more than a minute overdue, or the worker was lost more than a minute ago")
	mustComplete(cmd, "kind", c.completeKinds)
	mustComplete(cmd, "state", completeFrom(stateNames()...))
}

// isAnySet reports whether a filter was given.
func (f *filterFlags) isAnySet(cmd *cobra.Command) bool {
	for _, name := range filterFlagNames {
		if cmd.Flags().Changed(name) {
			return true
		}
	}
	return false
}

// isNarrowing reports whether any filter but --state was given.
func (f *filterFlags) isNarrowing(cmd *cobra.Command) bool {
	return slices.ContainsFunc(filterFlagNames, func(name string) bool { return name != "state" && cmd.Flags().Changed(name) })
}

// findEmptyFlag returns the name of a filter that was given an empty value, for instance by a shell variable that is not set, because an
// empty filter would select everything.
func (f *filterFlags) findEmptyFlag(cmd *cobra.Command) string {
	for _, flag := range []struct {
		name   string
		values []string
	}{{"kind", f.kinds}, {"id", f.ids}, {"namespace", f.namespaces}, {"shard", f.shards}, {"state", f.states}, {"tag", f.tags}} {
		if cmd.Flags().Changed(flag.name) && (len(flag.values) == 0 || slices.Contains(flag.values, "")) {
			return flag.name
		}
	}
	if cmd.Flags().Changed("label") && len(f.labels) == 0 {
		return "label"
	}
	if cmd.Flags().Changed("error") && f.failure == "" {
		return "error"
	}
	if cmd.Flags().Changed("late") && !f.late {
		return "late"
	}
	return ""
}

func (f *filterFlags) toFilter() delta.Filter {
	filter := delta.Filter{Kinds: f.kinds, ObjectIDs: f.ids, Namespaces: f.namespaces, Shards: f.shards, Tags: f.tags, Labels: f.labels, Error: f.failure, Late: f.late}
	for _, list := range []*[]string{&filter.Kinds, &filter.ObjectIDs, &filter.Namespaces, &filter.Shards, &filter.Tags} {
		if len(*list) == 0 {
			*list = nil // the flag was not given: an empty one was refused before
		}
	}
	if len(f.labels) == 0 {
		filter.Labels = nil
	}
	for _, s := range f.states {
		filter.States = append(filter.States, deltatype.ResourceState(s))
	}
	return filter
}

// objectName is an object that is only a name.
type objectName struct{ kind, id string }

func (n objectName) Kind() string { return n.kind }
func (n objectName) ID() string   { return n.id }

// resourceJSON is a resource as --output json shows it. Members may be added, but are never renamed or removed.
type resourceJSON struct {
	ID               int64  `json:"id"`
	Kind             string `json:"kind"`
	ObjectID         string `json:"object_id"`
	Namespace        string `json:"namespace"`
	State            string `json:"state"`
	Cause            string `json:"cause,omitempty"`
	Finalized        *bool  `json:"finalized,omitempty"`
	Paused           bool   `json:"paused"`
	Generation       int64  `json:"generation"`
	SyncedGeneration int64  `json:"synced_generation"`
	SyncCount        int64  `json:"sync_count"`
	Revision         *int64 `json:"revision"`
	ObjectVersion    int    `json:"object_version"`
	Shard            string `json:"shard,omitempty"`
	LimitKey         string `json:"limit_key,omitempty"`
	// Parents and AwaitedParents name resources as kind/id.
	Parents           []string        `json:"parents,omitempty"`
	AwaitedParents    []string        `json:"awaited_parents,omitempty"`
	Attempt           int             `json:"attempt"`
	MaxAttempts       int             `json:"max_attempts"`
	Snoozes           int             `json:"snoozes"`
	Priority          int             `json:"priority"`
	CreatedAt         time.Time       `json:"created_at"`
	GenerationAt      time.Time       `json:"generation_at"`
	AttemptedAt       *time.Time      `json:"attempted_at"`
	SyncedAt          *time.Time      `json:"synced_at"`
	ExternalCreatedAt *time.Time      `json:"external_created_at"`
	ListedAt          *time.Time      `json:"listed_at,omitempty"`
	DueAt             *time.Time      `json:"due_at"`
	DispatchAt        *time.Time      `json:"dispatch_at"`
	ClaimedUntil      *time.Time      `json:"claimed_until"`
	WorkflowID        string          `json:"workflow_id"`
	HashedID          string          `json:"hashed_id,omitempty"`
	Tags              []string        `json:"tags"`
	Metadata          json.RawMessage `json:"metadata"`
	Object            json.RawMessage `json:"object"`
	// Hash is the object's hash in hexadecimal.
	Hash   string      `json:"hash"`
	Errors []errorJSON `json:"errors"`
}

// errorJSON is the error of an attempt.
type errorJSON struct {
	At      time.Time `json:"at"`
	Attempt int       `json:"attempt"`
	Error   string    `json:"error"`
	Trace   string    `json:"trace,omitempty"`
}

func toResourceJSON(r *deltatype.ResourceRow) resourceJSON {
	out := resourceJSON{
		ID: r.ID, Kind: r.ObjectKind, ObjectID: r.ObjectID, Namespace: r.Namespace, State: string(r.State), Cause: string(r.Cause), Finalized: r.Finalized, Paused: r.Paused,
		Generation: r.Generation, SyncedGeneration: r.SyncedGeneration, SyncCount: r.SyncCount,
		Revision: r.Revision, ObjectVersion: r.ObjectVersion, Shard: r.Shard, LimitKey: r.LimitKey, Parents: formatRefs(r.Parents), AwaitedParents: formatRefs(r.AwaitedParents),
		Attempt: r.Attempt, MaxAttempts: r.MaxAttempts, Snoozes: r.Snoozes, Priority: r.Priority,
		CreatedAt: r.CreatedAt, GenerationAt: r.GenerationAt, AttemptedAt: r.AttemptedAt, SyncedAt: r.SyncedAt, ExternalCreatedAt: r.ExternalCreatedAt, ListedAt: r.ListedAt,
		DueAt: r.DueAt, DispatchAt: r.DispatchAt, ClaimedUntil: r.ClaimedUntil, WorkflowID: r.WorkflowID, HashedID: r.HashedID,
		Hash: hex.EncodeToString(r.Hash),
		Tags: append([]string{}, r.Tags...), Metadata: r.Metadata, Object: r.EncodedObject, Errors: []errorJSON{},
	}
	for _, e := range r.Errors {
		out.Errors = append(out.Errors, errorJSON(e))
	}
	return out
}

// formatRefs formats each reference as kind/id; it returns nil for none.
func formatRefs(refs []deltatype.Ref) (all []string) {
	for _, ref := range refs {
		all = append(all, ref.String())
	}
	return all
}

func toResourcesJSON(rows []*deltatype.ResourceRow) []resourceJSON {
	all := make([]resourceJSON, len(rows))
	for i, row := range rows {
		all[i] = toResourceJSON(row)
	}
	return all
}
