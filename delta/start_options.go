package delta

import (
	"cmp"
	"fmt"
	"strings"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/workflows"
)

const (
	// maxSummary and maxFairnessKey are Temporal's bounds, in bytes.
	maxSummary     = 150
	maxFairnessKey = 64
)

// Details that the server stores, so that showing them needs no worker. A resource's workflow has none, because there may
// be millions.
const (
	informDetails = "How the run stands is in the Current Details, for which a worker is asked. What it came to, and which resources it has marked deleted or withheld, is in its result, " +
		"or in its failure."
	batchDetails = "Members are named by their object ids in the second argument of the input, unless ids are kept from Temporal. " +
		"Their states are in the Current Details, for which a worker is asked, and in Postgres: `delta resources get KIND ID`."
)

// informSummary is the summary of a run of an informer.
func informSummary(in activities.InformInput) string {
	what := "inform "
	if in.FullListing {
		what = "inform, a full listing: "
	}
	if in.Options.Shard != "" {
		return truncateText(what+in.Kind+", shard "+in.Options.Shard, maxSummary)
	}
	return truncateText(what+in.Kind, maxSummary)
}

// startOptions returns the options for the workflow of a resource.
func startOptions(n temporalNames, ref activities.Ref, namespace string, state deltatype.ResourceState, priority int) client.StartWorkflowOptions {
	id := cmp.Or(ref.HashedID, ref.ObjectID)
	options := client.StartWorkflowOptions{
		ID:                       n.workflowID(ref),
		TaskQueue:                n.taskQueue(ref.Kind),
		WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
		StaticSummary:            ref.Kind + " " + truncateText(id, maxSummary),
		Memo:                     map[string]any{"delta_installation": ref.Installation, workflows.KindMemo: ref.Kind},
		Priority:                 temporal.Priority{PriorityKey: priority, FairnessKey: truncateText(namespace, maxFairnessKey)},
	}
	if ref.HashedID == "" {
		options.Memo["delta_object_id"] = ref.ObjectID // as it is: the workflow's id is escaped, and both it and the summary may be cut
	}
	if ref.SearchAttributes {
		options.TypedSearchAttributes = temporal.NewSearchAttributes(
			workflows.KindAttribute.ValueSet(ref.Kind),
			workflows.NamespaceAttribute.ValueSet(namespace),
			workflows.StateAttribute.ValueSet(string(state)),
		)
	}
	return options
}

// batchOptions returns the options for the workflow of a batch.
func batchOptions(n temporalNames, batch activities.Batch, namespace string, priority int, attributes bool) client.StartWorkflowOptions {
	options := client.StartWorkflowOptions{
		ID:                       batch.WorkflowID,
		TaskQueue:                n.taskQueue(batch.Kind),
		WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
		StaticSummary:            truncateText(fmt.Sprintf("%s, a batch of %d", batch.Kind, batch.IDs.Len()), maxSummary),
		StaticDetails:            batchDetails,
		Priority:                 temporal.Priority{PriorityKey: priority, FairnessKey: truncateText(namespace, maxFairnessKey)},
	}
	if attributes {
		options.TypedSearchAttributes = temporal.NewSearchAttributes(workflows.KindAttribute.ValueSet(batch.Kind))
	}
	return options
}

func truncateText(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "")
}
