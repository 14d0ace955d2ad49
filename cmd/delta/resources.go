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
		Short:   "List resources, look at them, have them synced or deleted",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("say what to do: list, get, explain, history, retry, invalidate, touch, delete, revive or workflow-id")
		},
	}
	c.databaseFlags(cmd)
	cmd.AddCommand(listCommand(c), getCommand(c), explainCommand(c), historyCommand(c), retryCommand(c), invalidateCommand(c), touchCommand(c), deleteCommand(c), reviveCommand(c),
		workflowIDCommand(c))
	return cmd
}

// filterFlags are what chooses resources.
type filterFlags struct {
	kinds, ids, namespaces, shards, states, tags []string
	labels                                       map[string]string
	failure                                      string
	late                                         bool
}

// names of the flags that chooses.
var filterNames = []string{"kind", "id", "namespace", "shard", "state", "tag", "label", "error", "late"}

func (f *filterFlags) add(c *cli, cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringSliceVar(&f.kinds, "kind", nil, "of this `kind`; can be repeated, as the others can")
	flags.StringArrayVar(&f.ids, "id", nil, "of the object with this `id`")
	flags.StringSliceVar(&f.namespaces, "namespace", nil, "in this `namespace` of Delta")
	flags.StringArrayVar(&f.shards, "shard", nil, "in this `shard` of its kind")
	flags.StringSliceVar(&f.states, "state", nil, "in this `state`: "+strings.Join(states(), ", "))
	flags.StringSliceVar(&f.tags, "tag", nil, "with this `tag`, and all others that are given")
	flags.StringToStringVar(&f.labels, "label", nil, "with this member in its metadata, `name=value`, and all others that are given")
	flags.StringVar(&f.failure, "error", "", "failing, with a latest error that has this `text` in it")
	flags.BoolVar(&f.late, "late", false, "whose next step is more than a minute overdue, or whose worker was lost that long ago")
	mustComplete(cmd, "kind", c.completeKinds)
	mustComplete(cmd, "state", fixed(states()...))
}

// any tells whether something was asked for.
func (f *filterFlags) any(cmd *cobra.Command) bool {
	for _, name := range filterNames {
		if cmd.Flags().Changed(name) {
			return true
		}
	}
	return false
}

// narrows reports whether a filter other than --state was given.
func (f *filterFlags) narrows(cmd *cobra.Command) bool {
	return slices.ContainsFunc(filterNames, func(name string) bool { return name != "state" && cmd.Flags().Changed(name) })
}

// empty names a flag that was given without a value, as by a variable of the shell that is not set: it would choose everything.
func (f *filterFlags) empty(cmd *cobra.Command) string {
	for name, values := range map[string][]string{"kind": f.kinds, "id": f.ids, "namespace": f.namespaces, "shard": f.shards, "state": f.states, "tag": f.tags} {
		if cmd.Flags().Changed(name) && (len(values) == 0 || slices.Contains(values, "")) {
			return name
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

func (f *filterFlags) filter() delta.Filter {
	filter := delta.Filter{Kinds: f.kinds, ObjectIDs: f.ids, Namespaces: f.namespaces, Shards: f.shards, Tags: f.tags, Labels: f.labels, Error: f.failure, Late: f.late}
	for _, list := range []*[]string{&filter.Kinds, &filter.ObjectIDs, &filter.Namespaces, &filter.Shards, &filter.Tags} {
		if len(*list) == 0 {
			*list = nil // a flag that was not given; one that was given empty is refused
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

// named is an object that has a name only.
type named struct{ kind, id string }

func (n named) Kind() string { return n.kind }
func (n named) ID() string   { return n.id }

// resourceJSON is a resource as --output json shows it. Members are added, and
// never renamed or removed.
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
	// Parents and AwaitedParents are names of resources, each as kind/id.
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
	// Hash is that of the object, in hexadecimal digits.
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

func toJSON(r *deltatype.ResourceRow) resourceJSON {
	out := resourceJSON{
		ID: r.ID, Kind: r.ObjectKind, ObjectID: r.ObjectID, Namespace: r.Namespace, State: string(r.State), Cause: string(r.Cause), Finalized: r.Finalized, Paused: r.Paused,
		Generation: r.Generation, SyncedGeneration: r.SyncedGeneration, SyncCount: r.SyncCount,
		Revision: r.Revision, ObjectVersion: r.ObjectVersion, Shard: r.Shard, LimitKey: r.LimitKey, Parents: names(r.Parents), AwaitedParents: names(r.AwaitedParents),
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

// names are those of resources, each as kind/id; nil for none.
func names(refs []deltatype.Ref) (all []string) {
	for _, ref := range refs {
		all = append(all, ref.String())
	}
	return all
}

func allJSON(rows []*deltatype.ResourceRow) []resourceJSON {
	all := make([]resourceJSON, len(rows))
	for i, row := range rows {
		all[i] = toJSON(row)
	}
	return all
}
