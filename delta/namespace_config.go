package delta

import (
	"math"
	"time"
)

// NamespaceConfig configures a namespace; the zero value leaves everything to defaults. A change of [Config].Namespaces
// applies the next time a resource is synced or its timer fires. It does not wake resources that are kept for ever, as
// after a negative retention. [Client.SetNamespace] changes a namespace while clients run, reschedules its settled
// resources, and overrides Config.
type NamespaceConfig struct {
	// MaxWorkers is how many calls of Work run at once in this client for resources of the namespace, of all kinds
	// together. At most 10,000.
	//
	// Defaults to 0: no bound but the Parallelism of the kinds.
	MaxWorkers int

	// RateLimit is how many calls of Work may begin a second for resources of the namespace, of all kinds and all clients
	// together: Postgres stores when the next call may begin. A call that waits for it takes no slot of its kind.
	//
	// Defaults to 0: no limit.
	RateLimit float64

	// ResourceExpiry is the time after its sync at which a resource expires and is synced again, or up to 5 % less. The
	// share differs between resources, or batches, so that resources that were synced together do not expire together. It
	// cannot be set together with SyncedResourceRetentionPeriod.
	//
	// Defaults to 0: never.
	ResourceExpiry time.Duration

	// SyncedResourceRetentionPeriod is how long a synced resource is kept before its row is removed. Negative: for ever.
	//
	// Defaults to the client's. If that is not set either, the default differs by kind: see [Config].
	SyncedResourceRetentionPeriod time.Duration

	// DegradedResourceRetentionPeriod is how long a degraded resource is kept before its row is removed. Negative: for
	// ever.
	//
	// Defaults to the client's.
	DegradedResourceRetentionPeriod time.Duration

	// DeletedResourceRetentionPeriod is how long a deleted resource is kept before its row is removed. Negative: for ever.
	//
	// Defaults to the client's.
	DeletedResourceRetentionPeriod time.Duration
}

// validate checks the settings of a namespace. field names it in errors.
func (n NamespaceConfig) validate(field string) error {
	if n.MaxWorkers < 0 || n.MaxWorkers > maxMaxWorkers {
		return inputError(field+".MaxWorkers", n.MaxWorkers, "must be between 1 and %d (or 0, for no bound)", maxMaxWorkers)
	}
	if !(n.RateLimit >= 0 && n.RateLimit <= math.MaxFloat64) { // NaN breaks it
		return inputError(field+".RateLimit", n.RateLimit, "must be positive, or 0 for no limit")
	}
	if n.ResourceExpiry < 0 {
		return inputError(field+".ResourceExpiry", n.ResourceExpiry, "must be positive, or 0 for never")
	}
	if n.ResourceExpiry > 0 && n.SyncedResourceRetentionPeriod != 0 {
		return inputError(field+".SyncedResourceRetentionPeriod", n.SyncedResourceRetentionPeriod,
			"must not be set together with ResourceExpiry (%s): a resource that expires is synced again, not removed", n.ResourceExpiry)
	}
	for _, period := range []struct {
		name  string
		value time.Duration
	}{
		{"ResourceExpiry", n.ResourceExpiry},
		{"SyncedResourceRetentionPeriod", n.SyncedResourceRetentionPeriod},
		{"DegradedResourceRetentionPeriod", n.DegradedResourceRetentionPeriod},
		{"DeletedResourceRetentionPeriod", n.DeletedResourceRetentionPeriod},
	} {
		if err := checkDuration(field+"."+period.name, period.value); err != nil {
			return err
		}
	}
	return nil
}
