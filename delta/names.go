package delta

import (
	"cmp"
	"strings"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/workflows"
)

// names are the ids that an installation uses in Temporal. Kinds and prefixes have neither '/' nor ':' in them, so no two of these
// can be the same.
type temporalNames struct {
	prefix string
	// queue is the task queue of all kinds, where the user runs the worker.
	queue string
}

// maxStem leaves room for what is appended to an id: a random part of 26 characters, or a schedule's time of 21.
const maxStem = 220

// resourceWorkflowID is the id of a resource's own workflow: the prefix, the kind and the object's id. Characters of the latter that a gRPC header
// may not have, spaces, '%' and '~' are written as %XX, byte by byte in UTF-8. Where that is longer than 255 characters, its end is a
// hash of the whole, after a '~'. So it can be read where the id can, is the same for every client, and no two resources have the same.
func (n temporalNames) resourceWorkflowID(kind, objectID string) string {
	return workflows.ShortenID(n.prefix+"/"+kind+"/"+workflows.EscapeID(objectID), workflows.MaxID)
}

// workflowID is the id of the workflow that a ref names: by the hash of the object's id, where ids are kept from Temporal.
func (n temporalNames) workflowID(ref activities.Ref) string {
	return n.resourceWorkflowID(ref.Kind, cmp.Or(ref.HashedID, ref.ObjectID))
}

// batchWorkflowID is the id of a batch's workflow.
func (n temporalNames) batchWorkflowID(kind, id string) string { return n.batchIDPrefix(kind) + id }

// batchIDPrefix begins the ids of a kind's batches, and of no other workflows.
func (n temporalNames) batchIDPrefix(kind string) string {
	return workflows.ShortenID(n.prefix+"/"+kind, maxStem) + ":batch/"
}

// withTaskQueue are the names of a kind that is worked on a task queue of the user's, as the database says; a queue of the client's own goes first.
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

// taskQueue is where the workflows and attempts of a kind are worked.
func (n temporalNames) taskQueue(kind string) string {
	if n.queue != "" {
		return n.queue
	}
	return workflows.ShortenID(n.prefix+"/"+kind, workflows.MaxID)
}

// informScheduleID is the id of a kind's schedule, and begins those of the workflows that it starts.
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

// informTaskQueue is where passes are worked: on a task queue of their own, so as not to wait behind attempts.
func (n temporalNames) informTaskQueue(kind string) string {
	if n.queue != "" {
		return n.queue
	}
	return n.informScheduleID(kind)
}

// anchorScheduleID is the id of the schedule that marks the prefix as taken by an installation. The list of schedules in Temporal's UI shows nothing else that would
// keep a person from tidying it up.
func (n temporalNames) anchorScheduleID() string {
	return n.prefix + "/installation:do-not-resume-or-delete"
}
