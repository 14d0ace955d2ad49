package delta

import (
	"time"

	"github.com/chariot-giving/delta/activities"
)

// syncedRetentions reports where a user has set a retention of synced resources, before defaults.
type syncedRetentions struct {
	client     bool
	namespaces map[string]bool
}

func (c *Config) syncedRetentions() syncedRetentions {
	set := syncedRetentions{client: c.SyncedResourceRetentionPeriod != 0, namespaces: map[string]bool{}}
	for name, n := range c.Namespaces {
		set.namespaces[name] = set.client || n.SyncedResourceRetentionPeriod != 0
	}
	return set
}

// postgresInterval returns a duration that keeps its sign as a Postgres interval, which has microseconds: -1 would become
// 0.
func postgresInterval(d time.Duration) time.Duration {
	switch {
	case d < 0:
		return -time.Second
	case d > 0:
		return max(d, time.Microsecond)
	}
	return 0
}

// detectsDeletions reports whether complete listings of the kind detect deleted objects, by the rows that they leave out.
func (s ObjectSettings) detectsDeletions() bool {
	return s.CompleteListing || s.FullListingInterval > 0
}

// noticesDeletions reports whether listings or a source detect deleted objects of the kind. Both need the rows to exist.
func (r registered) noticesDeletions() bool {
	return r.settings.detectsDeletions() || len(r.sources) > 0
}

// kindRetention is defaultRetention for a kind that the client has a controller for.
func (c *Client) kindRetention(r registered) activities.Retention {
	rest := c.defaultRetention()
	rest.DegradedRetry = postgresInterval(r.settings.DegradedRetryInterval)
	if r.noticesDeletions() && !c.retained.client {
		rest.SyncedRetention = postgresInterval(-1)
	}
	return rest
}

// defaultRetention returns the retentions for namespaces that no client has configured.
func (c *Client) defaultRetention() activities.Retention {
	return activities.Retention{
		SyncedRetention:   postgresInterval(c.config.SyncedResourceRetentionPeriod),
		DegradedRetention: postgresInterval(c.config.DegradedResourceRetentionPeriod),
		DeletedRetention:  postgresInterval(c.config.DeletedResourceRetentionPeriod),
	}
}
