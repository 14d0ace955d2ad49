package delta

import (
	"slices"

	"github.com/chariot-giving/delta/db"
)

// warnOfKind logs surprising settings of a kind at start. settings are those that are in force now.
func (e *engine) warnOfKind(kind string, r registered, settings db.Controller) {
	c := e.client
	if r.noticesDeletions() && c.retained.client && c.config.SyncedResourceRetentionPeriod >= 0 {
		c.config.Logger.Warn("rows of a kind with complete listings, or a source, are removed after a retention that is set: what is deleted upstream after that is "+
			"not noticed, and what is still listed is synced as if it were new", "kind", kind, "retention", c.config.SyncedResourceRetentionPeriod)
	}
	if settings.Finalizes && !r.handler.Finalizes() {
		c.config.Logger.Warn("this client's controller has no Finalizer, and others of the kind had one: what is deleted is kept until a client "+
			"that has one has finalized it", "kind", kind)
	}
}

// isUnlisted reports whether a kind's controller lists by a schedule, and no client has started that makes one.
func (e *engine) isUnlisted(r registered, settings db.Controller) bool {
	runsByItself := e.informInterval(r) >= 0 || r.settings.FullListingInterval > 0
	isScheduled := settings.InformInterval != 0 || settings.InformSchedule != nil || settings.ListsNothing
	return runsByItself && !r.handler.ListsNothing() && !isScheduled
}

// warnUnlisted logs, once for all kinds, that a client without informers has found no other client that runs them. Whether
// such clients still run is unknown at start, and may change at any time: delta doctor checks that.
func (c *Client) warnUnlisted(kinds []string) {
	if len(kinds) == 0 {
		return
	}
	slices.Sort(kinds)
	c.config.Logger.Warn("this client runs no informers (Config.DisableInformers), and no other has started with these kinds: nothing of them is "+
		"listed until one does", "kinds", kinds)
}
