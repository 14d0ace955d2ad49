package delta_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/converter"
)

// namedMembers has the members in the input of a batch's workflow.
type namedMembers struct {
	ObjectIDs []string `json:"object_ids"`
	LeftOut   int      `json:"left_out"`
}

// workflowInput returns the input of a workflow's latest run.
func (h *harness) workflowInput(workflowID string) []*commonpb.Payload {
	h.t.Helper()
	return h.history(workflowID)[0].GetWorkflowExecutionStartedEventAttributes().GetInput().GetPayloads()
}

// A person can find an object in Temporal by its id in the input of its batch, up to 64 KiB of ids.
func TestTheInputOfABatchNamesItsMembers(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.start(h.config(with(&controller[batched]{})))
	long := func(i int) string { return fmt.Sprintf("%02d", i) + strings.Repeat("<", 510) } // takes six times as much as JSON
	var short, many []string
	for i := range 50 {
		short, many = append(short, fmt.Sprintf(`ann "%02d"@example.com`, i)), append(many, long(i))
	}
	for _, ids := range [][]string{short, many} {
		_, err := c.InformMany(t.Context(), manyBatched(ids...), nil)
		require.NoError(t, err)
	}
	read := func(id string) (got namedMembers, size int) {
		row := h.eventually("batched", id, synced(1))
		require.Contains(t, row.WorkflowID, ":batch/")
		input := h.workflowInput(row.WorkflowID)
		require.Len(t, input, 2)
		require.NoError(t, converter.GetDefaultDataConverter().FromPayload(input[1], &got))
		return got, len(input[1].GetData())
	}
	got, _ := read(short[7])
	require.Equal(t, short, got.ObjectIDs)
	require.Zero(t, got.LeftOut)

	got, size := read(many[7])
	require.Equal(t, many[:len(got.ObjectIDs)], got.ObjectIDs)
	require.Equal(t, 50, len(got.ObjectIDs)+got.LeftOut)
	require.Len(t, got.ObjectIDs, 21, "as many names as fit")
	require.LessOrEqual(t, size, 64<<10+len(`{"object_ids":,"left_out":29}`))
}

// A single has the object's id in its memo, because its workflow id may be escaped or cut.
func TestTheMemoOfAWorkflowHasTheObjectsID(t *testing.T) {
	t.Parallel()
	for _, hashed := range []bool{false, true} {
		t.Run(fmt.Sprintf("hashed %t", hashed), func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			config := h.config(with(&controller[account]{}))
			config.HashObjectIDs = hashed
			c := h.start(config)
			for _, id := range []string{"ann", "50% of ünser é", strings.Repeat("x", 512)} {
				row, err := c.Sync(t.Context(), account{Name: id}, nil)
				require.NoError(t, err)
				described, err := h.Temporal.DescribeWorkflow(t.Context(), row.WorkflowID, "")
				require.NoError(t, err)
				memo := described.RawResponse.GetWorkflowExecutionInfo().GetMemo().GetFields()
				require.Contains(t, memo, "delta_kind")
				if hashed {
					require.NotContains(t, memo, "delta_object_id")
					continue
				}
				var got string
				require.NoError(t, converter.GetDefaultDataConverter().FromPayload(memo["delta_object_id"], &got))
				require.Equal(t, id, got)
			}
		})
	}
}
