package deltatype

import "time"

// Namespace is what Postgres keeps of a namespace: the settings in force, written by the client that started last, or while clients ran.
type Namespace struct {
	// Name is what InformOpts.Namespace says.
	Name string
	// ResourceExpiry is how long after it was synced a resource expires; 0 means never.
	ResourceExpiry time.Duration
	// SyncedResourceRetentionPeriod, DegradedResourceRetentionPeriod and DeletedResourceRetentionPeriod are how long rows are
	// kept; negative means for ever. For synced ones 0 means that nobody has set it: 24 hours, or for ever for kinds with complete
	// listings.
	SyncedResourceRetentionPeriod, DegradedResourceRetentionPeriod, DeletedResourceRetentionPeriod time.Duration
	// MaxWorkers is how many calls of Work each client runs at once; 0 is what the client says itself. RateLimit is how many may begin a
	// second, of all clients; 0 means no limit.
	MaxWorkers int
	RateLimit  float64
	// Overridden reports that the settings were set while clients ran, and hold whatever clients say that start.
	Overridden bool
	// Metadata is a JSON object.
	Metadata []byte
	// CreatedAt and UpdatedAt are when the row was made, and when a client last wrote it. In UTC.
	CreatedAt, UpdatedAt time.Time
}
