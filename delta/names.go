package delta

import (
	"cmp"
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"strings"

	"github.com/chariot-giving/delta/activities"
)

// names are the ids that an installation uses in Temporal. Kinds and prefixes have neither '/' nor ':' in them, so no two of these
// can be the same.
type names struct {
	prefix string
	// queue is the task queue of all kinds, where the user runs the worker.
	queue string
}

// maxWorkflowID is how many characters a Temporal with SQL persistence keeps of an id. maxStem leaves room for what is appended: a
// random part of 26 characters, or a schedule's time of 21.
const (
	maxWorkflowID = 255
	maxStem       = 220
)

// resource is the id of a resource's own workflow: the prefix, the kind and the object's id. Characters of the latter that a gRPC header
// may not have, spaces, '%' and '~' are written as %XX, byte by byte in UTF-8. Where that is longer than 255 characters, its end is a
// hash of the whole, after a '~'. So it can be read where the id can, is the same for every client, and no two resources have the same.
func (n names) resource(kind, objectID string) string {
	return shortened(n.prefix+"/"+kind+"/"+escapeID(objectID), maxWorkflowID)
}

// workflow is the id of the workflow that a ref names: by the hash of the object's id, where ids are kept from Temporal.
func (n names) workflow(ref activities.Ref) string {
	return n.resource(ref.Kind, cmp.Or(ref.HashedID, ref.ObjectID))
}

// batch is the id of a batch's workflow.
func (n names) batch(kind, id string) string { return n.batches(kind) + id }

// batches begins the ids of a kind's batches, and of no other workflows.
func (n names) batches(kind string) string {
	return shortened(n.prefix+"/"+kind, maxStem) + ":batch/"
}

// taskQueue is where the workflows and attempts of a kind are worked.
func (n names) taskQueue(kind string) string {
	if n.queue != "" {
		return n.queue
	}
	return shortened(n.prefix+"/"+kind, maxWorkflowID)
}

// inform is the id of a kind's schedule, and begins those of the workflows that it starts.
func (n names) inform(kind string) string { return shortened(n.prefix+"/inform:"+kind, maxStem) }

// informFull is the id of the schedule of a kind's full listings.
func (n names) informFull(kind string) string {
	return shortened(n.prefix+"/inform-full:"+kind, maxStem)
}

// informQueue is where passes are worked: on a task queue of their own, so as not to wait behind attempts.
func (n names) informQueue(kind string) string {
	if n.queue != "" {
		return n.queue
	}
	return n.inform(kind)
}

// anchor is the id of the schedule that marks the prefix as taken by an installation.
func (n names) anchor() string { return n.prefix + "/installation" }

// escapeID writes an object's id in printable ASCII. '~' is kept for shortened.
func escapeID(id string) string {
	isPlain := func(c byte) bool { return c > ' ' && c < 0x7f && c != '%' && c != '~' }
	escape := false
	for i := range len(id) {
		escape = escape || !isPlain(id[i])
	}
	if !escape {
		return id
	}
	var b strings.Builder
	for i := range len(id) {
		if c := id[i]; isPlain(c) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// shortened is a name of at most limit characters: a longer one is cut, not within a %XX, and ends in a hash of the whole.
func shortened(name string, limit int) string {
	if len(name) <= limit {
		return name
	}
	const hashed = 16
	sum := sha256.Sum256([]byte(name))
	end := "~" + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:hashed]))
	cut := limit - len(end)
	if at := strings.LastIndexByte(name[:cut], '%'); at >= 0 && at > cut-len("%XX") {
		cut = at
	}
	return name[:cut] + end
}
