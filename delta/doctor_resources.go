package delta

import (
	"context"
	"fmt"
	"time"

	"github.com/chariot-giving/delta/internal/remedy"
	"github.com/chariot-giving/delta/internal/wording"
)

// The checks in this file read only the database.

func (f *findings) checkLate(kinds []KindStatus, now time.Time) {
	const check = "late"
	late := false
	for _, k := range kinds {
		if k.Late == 0 {
			continue
		}
		late = true
		if k.Late == k.Unfinalized {
			continue // more workers do not help: checkUnfinalized reports them
		}
		detail := fmt.Sprintf("%s late, the first by %s", wording.Count(k.Late, "resource"), wording.Duration(now.Sub(*k.OldestLate)))
		f.addKindCheck(check, k.Kind, CheckWarning, detail, remedy.FindLate)
	}
	if !late && len(kinds) > 0 {
		f.addCheck(check, CheckOK, "nothing is late", "")
	}
}

// checkUnfinalized looks for deleted resources whose kind had a Finalizer that no running client has. Only rows that no
// dispatcher takes show that, because the task queue of a kind does not reveal what the controllers of its workers can do.
func (f *findings) checkUnfinalized(kinds []KindStatus, now time.Time) {
	for _, k := range kinds {
		if k.Unfinalized == 0 {
			continue
		}
		f.addKindCheck("finalizer", k.Kind, CheckWarning,
			fmt.Sprintf("%s deleted and not finalized, the first for %s: no client that runs has a Finalizer for the kind",
				wording.Count(k.Unfinalized, "resource"), wording.Duration(now.Sub(*k.OldestUnfinalized))),
			remedy.StartFinalizer(k.Kind))
	}
}

// checkUndecodable looks for resources whose stored objects no running worker understands.
func (f *findings) checkUndecodable(kinds []KindStatus) {
	for _, k := range kinds {
		if k.Undecodable > 0 {
			f.addKindCheck("undecodable", k.Kind, CheckWarning,
				wording.Count(k.Undecodable, "resource")+" waiting for a worker that understands their stored objects", remedy.UnderstandObjects(k.Kind))
		}
	}
}

// checkStale looks for objects that listings return in an older version than the stored one, pass after pass.
func (f *findings) checkStale(kinds []KindStatus) {
	for _, k := range kinds {
		if k.Stale == 0 {
			continue
		}
		f.addKindCheck("stale", k.Kind, CheckWarning,
			wording.Count(k.Stale, "object")+" listed in an older version than the stored one, pass after pass, and not taken",
			remedy.CorrectStale(k.Kind))
	}
}

const (
	// heldLong and consumersLate are the ages above which entries that are held back, or that a consumer has not handled,
	// are worth a warning.
	heldLong      = time.Minute
	consumersLate = 15 * time.Minute
)

// checkChangeLog looks for transactions that hold readers of the log of changes back, and for consumers that are behind.
func (f *findings) checkChangeLog(log *ChangeLogStatus) {
	if log.Lag >= heldLong {
		by, todo := "a transaction that this role may not see", "let the role see it: GRANT pg_read_all_stats"
		if log.HeldBy != nil {
			by, todo = log.HeldBy.String(), remedy.EndTransaction(log.HeldBy.PID, log.HeldBy.Prepared)
		}
		f.addCheck("log of changes", CheckWarning, fmt.Sprintf("%s held back from readers for %s by %s", wording.CountIs(log.Held, "change"), wording.Duration(log.Lag), by), todo)
	}
	for _, c := range log.Consumers {
		name := c.Name
		if c.Members > 1 {
			name = fmt.Sprintf("%s %d of %d", c.Name, c.Member, c.Members)
		}
		process := "a process has it"
		if !c.IsRunning {
			process = "no process has it"
		}
		switch {
		case c.IsLost:
			f.addKindCheck("consumer of changes", name, CheckFailure, "it cannot read on: what it has not handled was removed, or the database was restored", remedy.RestartConsumer)
		case c.Lag >= consumersLate:
			f.addKindCheck("consumer of changes", name, CheckWarning, fmt.Sprintf("%s behind, the first since %s, and %s", wording.Count(c.Behind, "change"), wording.Duration(c.Lag), process),
				remedy.StartConsumer)
		}
	}
}

// checkWithheld looks for withheld deletions that await a decision.
func (f *findings) checkWithheld(kinds []KindStatus) {
	for _, k := range kinds {
		if k.Withheld == nil || k.Withheld.Decision != "" {
			continue
		}
		w := k.Withheld
		f.addKindCheck("deletions", k.Kind, CheckWarning,
			fmt.Sprintf("the listings leave out %s resources since %s (%s): none is marked deleted", leftOut(w), w.Since.Format(time.RFC3339), w.Reason),
			remedy.DecideWithheld(k.Kind))
	}
}

// checkSnoozes reports snoozed kinds and namespaces.
func (f *findings) checkSnoozes(snoozes []Snooze, now time.Time) {
	for _, snooze := range snoozes {
		left := wording.Duration(snooze.Until.Sub(now))
		if snooze.Kind != "" {
			f.addKindCheck("kind", snooze.Kind, CheckWarning, "snoozed for "+left+" more, as its Work has said", remedy.EndSnoozeOfKind(snooze.Kind))
			continue
		}
		f.addCheck("namespace", CheckWarning, fmt.Sprintf("%s is snoozed for %s more, as its Work has said", snooze.Namespace, left),
			remedy.EndSnoozeOfNamespace(snooze.Namespace))
		(*f)[len(*f)-1].Namespace = snooze.Namespace
	}
}

// checkRefused reports objects of listings that break a rule.
func (d *doctor) checkRefused(ctx context.Context, kinds []KindStatus) {
	for _, k := range kinds {
		if k.Refused == 0 {
			continue
		}
		detail := wording.Count(k.Refused, "object") + " refused"
		if objects, err := d.client.Refused(ctx, k.Kind); err == nil && len(objects) > 0 {
			first := objects[0]
			detail += fmt.Sprintf(", as %q since %s: %s", first.ObjectID, first.Since.Format(time.RFC3339), first.Rule)
		}
		d.found.addKindCheck("refused", k.Kind, CheckWarning, detail, remedy.CorrectRefused(k.Kind))
	}
}

// longQueued is how long a resource may wait for a slot of its limit key, or for a parent, before that is worth a warning.
const longQueued = 15 * time.Minute

// checkQueued looks for resources that wait long because their limit keys are full.
func (f *findings) checkQueued(kinds []KindStatus, now time.Time) {
	for _, k := range kinds {
		if k.Queued == 0 || now.Sub(*k.OldestQueued) < longQueued {
			continue
		}
		f.addKindCheck("limit keys", k.Kind, CheckWarning,
			fmt.Sprintf("%s of %s wait for slots, the first for %s", wording.Count(k.Queued, "resource"), wording.Count(k.QueuedKeys, "limit key"), wording.Duration(now.Sub(*k.OldestQueued))),
			remedy.AskForLimits)
	}
}

// checkAwaiting looks for resources that wait long for parents that were never synced.
func (f *findings) checkAwaiting(kinds []KindStatus, now time.Time) {
	for _, k := range kinds {
		if k.Awaiting == 0 || now.Sub(*k.OldestAwaiting) < longQueued {
			continue
		}
		f.addKindCheck("parents", k.Kind, CheckWarning,
			fmt.Sprintf("%s for %s, the first for %s", wording.Count(k.Awaiting, "resource")+" waiting", wording.Count(k.AwaitedParents, "parent"), wording.Duration(now.Sub(*k.OldestAwaiting))),
			remedy.ExplainAwaiting(k.Kind))
	}
}

// checkTouches looks for parents that changed long ago, and whose children are still to be touched.
func (f *findings) checkTouches(kinds []KindStatus, now time.Time) {
	for _, k := range kinds {
		if k.Touches == 0 || now.Sub(*k.OldestTouch) < longQueued {
			continue
		}
		f.addKindCheck("touches", k.Kind, CheckWarning,
			fmt.Sprintf("the children of %s are still to be touched, the first changed %s ago", wording.Count(k.Touches, "parent"), wording.Duration(now.Sub(*k.OldestTouch))),
			remedy.TouchChildren(k.Kind))
	}
}

// leftOut returns how much is withheld, as "N of M".
func leftOut(w *Withheld) string {
	return wording.Number(w.Missing) + " of " + wording.Number(w.Total)
}

// checkShards looks for shards that fail, are paused, or are gone. It reports nothing for kinds without shards.
func (f *findings) checkShards(kinds []KindStatus) {
	for _, k := range kinds {
		if len(k.Shards) == 0 {
			continue
		}
		found := len(*f)
		if k.InformError != "" {
			f.addKindCheck("shards", k.Kind, CheckWarning, "the controller could not name them: "+k.InformError, remedy.SeePasses(k.Kind))
		}
		if k.Shardless > 0 {
			f.addKindCheck("shards", k.Kind, CheckWarning, wording.Count(k.Shardless, "resource")+" without a shard: no listing marks them deleted", remedy.ListShardless(k.Kind))
		}
		for _, s := range k.Shards {
			f.checkShard(k.Kind, s)
		}
		if len(*f) == found {
			f.addKindCheck("shards", k.Kind, CheckOK, wording.Count(len(k.Shards), "shard"), "")
		}
	}
}

func (f *findings) checkShard(kind string, s ShardStatus) {
	add := func(detail, remedy string) { f.addKindCheck("shards", kind, CheckWarning, s.Shard+": "+detail, remedy) }
	undecided := s.Withheld != nil && s.Withheld.Decision == ""
	switch {
	case s.GoneSince != nil && undecided:
		add(fmt.Sprintf("no longer named by the controller since %s, and %s left", s.GoneSince.Format(time.RFC3339), wording.Count(s.Withheld.Missing, "resource")),
			remedy.DecideWithheldOfShard(kind, s.Shard))
	case undecided:
		add(fmt.Sprintf("its listings leave out %s resources (%s): none is marked deleted", leftOut(s.Withheld), s.Withheld.Reason),
			remedy.DecideWithheldOfShard(kind, s.Shard))
	case s.Error != "":
		add("its latest pass failed: "+s.Error, remedy.SeePassesOfShard(kind, s.Shard))
	case s.Paused:
		add("paused", remedy.ResumeShard(kind, s.Shard))
	}
}
