package delta

import (
	"cmp"
	"strings"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/workflows"
)

// temporalNames makes the ids that an installation uses in Temporal. Kinds and prefixes contain neither '/' nor ':', so no
// two ids are equal.
type temporalNames struct {
	prefix string
	// queue is the task queue of all kinds, if the user runs the worker.
	queue string
}

// maxStem leaves room for the suffix of an id: a random part of 26 characters, or a schedule's time of 21.
const maxStem = 220

// resourceWorkflowID is the id of a resource's single workflow: the prefix, the kind and the object's id. In the latter,
// characters that a gRPC header may not have, spaces, '%' and '~' are written as %XX, byte by byte in UTF-8. If the id is
// longer than 255 characters, its end is a '~' and a hash of the whole. So it is readable if the object's id is, equal for
// every client, and different for all resources.
func (n temporalNames) resourceWorkflowID(kind, objectID string) string {
	return workflows.ShortenID(n.prefix+"/"+kind+"/"+workflows.EscapeID(objectID), workflows.MaxID)
}

// workflowID is the id of the workflow of a ref: by the hash of the object's id, if ids are kept out of Temporal.
func (n temporalNames) workflowID(ref activities.Ref) string {
	return n.resourceWorkflowID(ref.Kind, cmp.Or(ref.HashedID, ref.ObjectID))
}

// batchWorkflowID is the id of a batch's workflow.
func (n temporalNames) batchWorkflowID(kind, id string) string { return n.batchIDPrefix(kind) + id }

// batchIDPrefix begins the ids of a kind's batches, and of no other workflows.
func (n temporalNames) batchIDPrefix(kind string) string {
	return workflows.ShortenID(n.prefix+"/"+kind, maxStem) + ":batch/"
}

// withTaskQueue returns the names for a kind that is worked on the user's task queue, as the database has it. The client's
// own queue overrides it.
func (n temporalNames) withTaskQueue(noted *string) temporalNames {
	if n.queue == "" && noted != nil {
		n.queue = *noted
	}
	return n
}

// isBatch reports whether a workflow is a batch of a kind.
func (n temporalNames) isBatch(kind, workflowID string) bool {
	return strings.HasPrefix(workflowID, n.batchIDPrefix(kind))
}

// taskQueue is the task queue of the workflows and attempts of a kind.
func (n temporalNames) taskQueue(kind string) string {
	if n.queue != "" {
		return n.queue
	}
	return workflows.ShortenID(n.prefix+"/"+kind, workflows.MaxID)
}

// informScheduleID is the id of a kind's schedule, and the prefix of the ids of its workflows.
func (n temporalNames) informScheduleID(kind string) string {
	return workflows.ShortenID(n.prefix+"/inform:"+kind, maxStem)
}

// fullListingScheduleID is the id of the schedule of a kind's full listings.
func (n temporalNames) fullListingScheduleID(kind string) string {
	return workflows.ShortenID(n.prefix+"/inform-full:"+kind, maxStem)
}

// sourceWorkflowID is the id of the workflow of a source.
func (n temporalNames) sourceWorkflowID(kind, name string) string {
	return workflows.ShortenID(n.prefix+"/source:"+kind+"/"+workflows.EscapeID(name), workflows.MaxID)
}

// informTaskQueue is the task queue of passes. It is a separate one, so that passes do not wait behind attempts.
func (n temporalNames) informTaskQueue(kind string) string {
	if n.queue != "" {
		return n.queue
	}
	return n.informScheduleID(kind)
}

// anchorScheduleID is the id of the schedule that marks the prefix as taken by an installation. The id itself warns,
// because the list of schedules in Temporal's UI shows nothing else that would keep a person from deleting it.
func (n temporalNames) anchorScheduleID() string {
	return n.prefix + "/installation:do-not-resume-or-delete"
}
