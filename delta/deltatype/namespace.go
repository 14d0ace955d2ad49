package deltatype

import "time"

// Namespace is a row of the namespaces: the settings in force, written by the client that started last, or while clients were running.
type Namespace struct {
	// Name is the name that InformOpts.Namespace refers to.
	Name string
	// ResourceExpiry is how long after its sync a resource expires; 0 means never.
	ResourceExpiry time.Duration
	// SyncedResourceRetentionPeriod, DegradedResourceRetentionPeriod and DeletedResourceRetentionPeriod are how long rows are
	// kept; negative means for ever. For synced rows, 0 means that it is not set: 24 hours, or for ever for kinds with complete
	// listings.
	SyncedResourceRetentionPeriod, DegradedResourceRetentionPeriod, DeletedResourceRetentionPeriod time.Duration
	// MaxWorkers is how many calls of Work each client runs at once; 0 leaves it to the client. RateLimit is how many may begin a
	// second, in all clients together; 0 means no limit.
	MaxWorkers int
	RateLimit  float64
	// Overridden is set if the settings were changed while clients were running: they stay in force whatever later clients are configured with.
	Overridden bool
	// Metadata is a JSON object.
	Metadata []byte
	// CreatedAt and UpdatedAt are when the row was created, and when a client last wrote it. In UTC.
	CreatedAt, UpdatedAt time.Time
}
