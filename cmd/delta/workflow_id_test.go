package main

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// The command prints the ids of the workflows that clients start.
func TestWorkflowID(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	ids := []string{"ann@example.com", " Jürgen/100% ~😀", strings.Repeat("long/", 100), strings.Repeat("é", 256)}
	for name, hash := range map[string]bool{"plain": false, "hashed": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i := newInstallation(t)
			controllers := delta.NewControllers()
			delta.AddController(controllers, &pages{})
			c, err := delta.NewClient(i.Pool, &delta.Config{
				Temporal: i.Temporal, TemporalNamespace: i.TemporalNamespace, WorkflowIDPrefix: i.Prefix, HashObjectIDs: hash,
				Logger: slog.New(slog.DiscardHandler), Controllers: controllers,
			})
			require.NoError(t, err)
			require.NoError(t, c.Start(t.Context()))
			defer func() { require.NoError(t, c.Stop(t.Context())) }()
			i.inform(c, deltatype.ResourceStateSynced, nil, ids...)

			for _, id := range ids {
				row, err := c.Get(t.Context(), "page", id)
				require.NoError(t, err)
				require.Equal(t, result{exitOK, row.WorkflowID + "\n", ""}, i.run("resources", "workflow-id", "page", id))
				require.Equal(t, hash, row.HashedID != "" && row.WorkflowID == i.Prefix+"/page/"+row.HashedID)
				found, err := i.Temporal.DescribeWorkflow(t.Context(), row.WorkflowID, "")
				require.NoError(t, err)
				require.Equal(t, row.WorkflowID, found.WorkflowExecution.ID)
			}

			r := i.run("resources", "workflow-id", "page", "nobody", "-o", "json")
			require.Equal(t, exitOK, r.code, "the resource need not be there")
			out := decode[workflowIDJSON](t, r)
			require.Equal(t, workflowIDJSON{Kind: "page", ObjectID: "nobody", WorkflowID: out.WorkflowID}, out)
			require.Equal(t, hash, out.WorkflowID != i.Prefix+"/page/nobody")
			i.inform(c, deltatype.ResourceStateSynced, nil, "nobody")
			row, err := c.Get(t.Context(), "page", "nobody")
			require.NoError(t, err)
			require.Equal(t, row.WorkflowID, out.WorkflowID)

			for want, args := range map[string][]string{
				"other clients of this database use": {"page", "a", "--prefix", "other"},
				"must be letters":                    {"pa/ge", "a"},
				"object id \"\": must not be empty":  {"page", ""},
				"must be valid UTF-8":                {"page", "\xff"},
				"accepts 2 arg(s)":                   {"page"},
			} {
				r := i.run(append([]string{"resources", "workflow-id"}, args...)...)
				require.Equal(t, exitUsage, r.code, r.stderr)
				require.Contains(t, strings.Join(strings.Fields(r.stderr), " "), want)
			}
		})
	}
}

func TestWorkflowIDBeforeAnyClient(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	require.Equal(t, "delta/page/a\n", i.run("resources", "workflow-id", "page", "a").stdout)
	require.Equal(t, "mine/page/a\n", i.run("resources", "workflow-id", "page", "a", "--prefix", "mine").stdout)
}
