package deltatype

import "time"

// Priorities of resources, from 1, the most urgent, to 5. They order dispatch, and are handed to Temporal.
const (
	// PriorityLive is that of what a program informs.
	PriorityLive = 2
	// PriorityPeriodic is that of what an informer lists.
	PriorityPeriodic = 3
	// PriorityBackfill is that of what an informer lists again although it did not change.
	PriorityBackfill = 4
)

// Object is something outside that a resource stands for. It is stored as JSON, as encoding/json makes it: exported
// fields only, under their json tags.
type Object interface {
	// ID identifies the object among those of its kind. It must be the same after a round trip through JSON. Valid UTF-8 without control characters, at most 512 bytes.
	ID() string
	// Kind identifies the type of the object, and with it the controller. It must be the same for every value of the
	// type, the zero value included. Letters, digits, '_', '-' and '.', at most 127 bytes, not starting with '-' or '.'.
	Kind() string
}

// InformOptions narrow what an informer lists. Delta hands them through; what Labels and OrderBy mean is the
// controller's to say.
type InformOptions struct {
	// Shard is the one to list, for a controller that names shards (delta.Sharder); empty for others, and, in the options of a run, for all of
	// its shards.
	Shard string
	// Labels select objects by key and value.
	Labels map[string]string
	// After asks for objects created or changed after this time; the time itself is excluded. In the options of a run, nil leaves it to the kind's
	// cursor.
	//
	// An informer is given 1970-01-01 where it is asked for all: before the first complete pass. It is given nil in a listing that may mark deleted
	// what it leaves out, of a kind with CompleteListing or FullListingInterval, and beside a Cursor: look before you use it there.
	After *time.Time
	// Limit is the most objects to list; 0 means no limit.
	Limit int
	// OrderBy names a field and a direction, such as "created_at DESC".
	OrderBy string
	// Cursor is a position of the informer's own, opaque to Delta: the one that the latest complete pass has set with delta.SetCursor. Empty
	// asks for what is newer than After, or for all where that is nil.
	Cursor string
}

// ObjectInformParams is one object as it is handed to Postgres.
type ObjectInformParams struct {
	// ResourceID is the object's ID.
	ResourceID string
	// Kind is the object's kind.
	Kind string
	// Namespace is where the resource belongs; empty keeps what the row has, or means "default" for a new one.
	Namespace string
	// MoveNamespace lets the inform move a resource that is in another namespace; otherwise such an object is refused.
	MoveNamespace bool
	// CreatedAt is when the object was created outside; nil if unknown.
	CreatedAt *time.Time
	// EncodedObject is the object as JSON.
	EncodedObject []byte
	// Hash identifies the content of EncodedObject.
	Hash []byte
	// Metadata is a JSON object; nil keeps what the row has.
	Metadata []byte
	// Tags replace those of the row; nil keeps them.
	Tags []string
	// MaxAttempts is the bound on attempts; 0 keeps what the row has, or means the default for a new one.
	MaxAttempts int16
	// Priority is how urgent the object is, from 1 to 5; 0 leaves it to the one who informs.
	Priority int16
	// Revision is the object's own version, for those that have one: an inform with a lower one than the row's is stale. Nil for none.
	Revision *int64
	// ObjectVersion is the version of the Go type that wrote EncodedObject; 0 where the type says none.
	ObjectVersion int32
	// Shard is the part of the outside world that lists the object; empty for none.
	Shard string
	// LimitKey is what the object's calls of Work are limited by, together with those of others that have it; empty for none.
	LimitKey string
	// Parents are the resources that have to be synced once before this one is worked; nil for none.
	Parents []Ref
	// Compare compares the object with one that is stored, which was written by a version of its type: negative means that it is older,
	// 0 that they are the same. ok is false where they cannot be compared: then the hash decides. Nil for objects that do not
	// compare themselves.
	Compare func(stored []byte, version int) (order int, ok bool) `json:"-"`
	// ExpectedHash is that of the row which Compare has decided by: another one is not written. Empty for no row; nil for any.
	ExpectedHash []byte
	// Force writes the object although the stored one may be newer.
	Force bool
	// SyncMetadata has other Metadata or Tags start a new generation.
	SyncMetadata bool
	// Carrier has the values that a new generation carries to its Work: a span's context, and headers of context propagators. It is no part of the object:
	// another one is no reason to call Work. Empty carries nothing.
	Carrier string
}

// ObjectInformResult is what informing one object came to.
type ObjectInformResult struct {
	// Resource is the row after the call.
	Resource *ResourceRow
	// AlreadyExists tells whether there was a row before.
	AlreadyExists bool
	// Scheduled tells whether the call started a new generation, to be synced: true for an object that is new, changed,
	// or asked for again; false for one left alone.
	Scheduled bool
	// Refused is why the object was not taken, a *[NamespaceError]; nil if it was. Resource is then the row that it was refused for.
	Refused error
	// Stale says that the stored object is newer than the one that was informed, which was not written. Resource has the newer one. An object
	// that is refused is not stale: its versions are not those of the other one's.
	Stale bool
}
