package deltatype

import "time"

// Priorities of resources, from 1, the most urgent, to 5. They order dispatch, and are passed to Temporal.
const (
	// PriorityLive is the priority of objects that a program informs.
	PriorityLive = 2
	// PriorityPeriodic is the priority of objects that an informer lists.
	PriorityPeriodic = 3
	// PriorityBackfill is the priority of unchanged objects that an informer lists again.
	PriorityBackfill = 4
)

// Object is a thing outside that a resource stands for. It is stored as JSON by encoding/json: exported fields only, under their json tags.
type Object interface {
	// ID identifies the object among those of its kind. It must be the same after a round trip through JSON. It must be valid UTF-8 without control characters, at most 512 bytes.
	ID() string
	// Kind identifies the type of the object, and with it the controller. It must be the same for every value of the
	// type, the zero value included. Letters, digits, '_', '-' and '.', at most 127 bytes, not starting with '-' or '.'.
	Kind() string
}

// InformOptions narrow a listing of an informer. Delta passes them through; the controller defines the meaning of Labels and OrderBy.
type InformOptions struct {
	// Shard is the shard to list, for a controller that names shards (delta.Sharder); empty for others and, in the options of a run, for all
	// shards.
	Shard string
	// Labels select objects by key and value.
	Labels map[string]string
	// After asks for objects created or changed after this time, exclusively. In the options of a run, nil means the kind's
	// cursor.
	//
	// An informer gets 1970-01-01 if everything is asked for: before the first complete pass. It gets nil beside a Cursor, and in a listing that may mark
	// omitted resources deleted (CompleteListing or FullListingInterval): check for nil there before you use it.
	After *time.Time
	// Limit is the maximum number of objects to list; 0 means no limit.
	Limit int
	// OrderBy names a field and a direction, such as "created_at DESC".
	OrderBy string
	// Cursor is the informer's own position, opaque to Delta: the one that the latest complete pass has set with delta.SetCursor. Empty
	// asks for objects newer than After, or for everything if that is nil.
	Cursor string
}

// ObjectInformParams is one encoded object with its options, on its way to Postgres. Delta makes it from an Object and
// InformOpts or InformOptions; programs that use Delta do not need it.
type ObjectInformParams struct {
	// ResourceID is the object's ID.
	ResourceID string
	// Kind is the object's kind.
	Kind string
	// Namespace is the resource's namespace; empty keeps the row's, or means "default" for a new one.
	Namespace string
	// MoveNamespace lets the inform move a resource from another namespace; otherwise such an object is refused.
	MoveNamespace bool
	// CreatedAt is when the object was created outside; nil if unknown.
	CreatedAt *time.Time
	// EncodedObject is the object as JSON.
	EncodedObject []byte
	// Hash identifies the content of EncodedObject.
	Hash []byte
	// Metadata is a JSON object; nil keeps the row's.
	Metadata []byte
	// Tags replace the row's tags; nil keeps them.
	Tags []string
	// MaxAttempts bounds the attempts; 0 keeps the row's, or means the default for a new one.
	MaxAttempts int16
	// Priority is how urgent the object is, from 1 to 5; 0 leaves it to the kind of inform: PriorityLive and so on.
	Priority int16
	// Revision is the object's own version, if it has one: an inform with a lower one than the row's is stale. Nil for none.
	Revision *int64
	// ObjectVersion is the version of the Go type that wrote EncodedObject; 0 if the type has no version.
	ObjectVersion int32
	// Shard is the shard that lists the object; empty for none.
	Shard string
	// LimitKey names the limit that the object's calls of Work share with other objects of the same key; empty for none.
	LimitKey string
	// Parents are the resources that must be synced once before this one is worked; nil for none.
	Parents []Ref
	// Compare compares the object with a stored one, which a version of its type has written: negative means that the object is older,
	// 0 that they are the same. ok is false if they cannot be compared: then the hash decides. Nil for objects that do not
	// compare themselves.
	Compare func(stored []byte, version int) (order int, ok bool) `json:"-"`
	// ExpectedHash is the hash of the row that Compare has seen: a row with another hash is not overwritten. Empty means no row; nil means any.
	ExpectedHash []byte
	// Force writes the object even if the stored one may be newer.
	Force bool
	// SyncMetadata starts a new generation if Metadata or Tags differ.
	SyncMetadata bool
	// Carrier has the values that a new generation carries to its Work: a span's context, and headers of context propagators. It is not part of the
	// object: a different Carrier is no reason to call Work. Empty carries nothing.
	Carrier string
}

// ObjectInformResult is the result of informing one object.
type ObjectInformResult struct {
	// Resource is the row after the call.
	Resource *ResourceRow
	// AlreadyExists reports whether there was a row before the call.
	AlreadyExists bool
	// Scheduled reports whether the call started a new generation, to be synced: true for an object that is new, changed,
	// or asked for again; false for one left alone.
	Scheduled bool
	// Refused is why the object was not written, a *[NamespaceError]; nil if it was. Resource is then the row that the object conflicts with.
	Refused error
	// Stale reports that the stored object is newer than the informed one, which was not written. Resource has the newer one. A refused object
	// is never stale, because the versions of two tenants' objects cannot be compared.
	Stale bool
}
