package main

import (
	"context"
	"fmt"
	"time"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/remedy"
)

// The checks in this file read the database only.

func (f *findings) late(kinds []delta.KindStatus, now time.Time) {
	const check = "late"
	late := false
	for _, k := range kinds {
		if k.Late == 0 {
			continue
		}
		late = true
		if k.Late == k.Unfinalized {
			continue // more workers do not help them: unfinalized says so
		}
		detail := fmt.Sprintf("%s late, the first by %s", counted(k.Late, "resource"), short(now.Sub(*k.OldestLate)))
		f.addKind(check, k.Kind, healthWarn, detail, remedy.FindLate)
	}
	if !late && len(kinds) > 0 {
		f.add(check, healthOK, "nothing is late", "")
	}
}

// unfinalized looks for deleted resources whose kind had a Finalizer, where no client that runs has it. Only a row that no dispatcher takes shows
// that: the task queue of a kind does not say what the controllers of its workers can do.
func (f *findings) unfinalized(kinds []delta.KindStatus, now time.Time) {
	for _, k := range kinds {
		if k.Unfinalized == 0 {
			continue
		}
		f.addKind("finalizer", k.Kind, healthWarn,
			fmt.Sprintf("%s deleted and not finalized, the first for %s: no client that runs has a Finalizer for the kind",
				counted(k.Unfinalized, "resource"), short(now.Sub(*k.OldestUnfinalized))),
			remedy.StartFinalizer(k.Kind))
	}
}

// undecodable looks for resources whose stored objects no worker that runs understands.
func (f *findings) undecodable(kinds []delta.KindStatus) {
	for _, k := range kinds {
		if k.Undecodable > 0 {
			f.addKind("undecodable", k.Kind, healthWarn,
				counted(k.Undecodable, "resource")+" waiting for a worker that understands their stored objects", remedy.UnderstandObjects(k.Kind))
		}
	}
}

// stale looks for objects that listings name in an older version than the stored one, pass after pass.
func (f *findings) stale(kinds []delta.KindStatus) {
	for _, k := range kinds {
		if k.Stale == 0 {
			continue
		}
		f.addKind("stale", k.Kind, healthWarn,
			counted(k.Stale, "object")+" listed in an older version than the stored one, pass after pass, and not taken",
			remedy.CorrectStale(k.Kind))
	}
}

const (
	// heldLong is for how long changes are held back from readers, and consumersLate how old what a consumer has not handled is, that is worth a warning.
	heldLong      = time.Minute
	consumersLate = 15 * time.Minute
)

// changes looks at what keeps readers of the log of changes back, and at consumers that are behind.
func (f *findings) changes(log *delta.ChangeLogStatus) {
	if log.Lag >= heldLong {
		by, todo := "a transaction that this role may not see", "let the role see it: GRANT pg_read_all_stats"
		if log.HeldBy != nil {
			by, todo = log.HeldBy.String(), remedy.EndTransaction(log.HeldBy.PID, log.HeldBy.Prepared)
		}
		f.add("log of changes", healthWarn, fmt.Sprintf("%s held back from readers for %s by %s", isOrAre(log.Held, "change"), short(log.Lag), by), todo)
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
			f.addKind("consumer of changes", name, healthFail, "it cannot read on: what it has not handled was removed, or the database was restored", remedy.RestartConsumer)
		case c.Lag >= consumersLate:
			f.addKind("consumer of changes", name, healthWarn, fmt.Sprintf("%s behind, the first since %s, and %s", counted(c.Behind, "change"), short(c.Lag), process),
				remedy.StartConsumer)
		}
	}
}

// isOrAre is a number of things with its verb.
func isOrAre(n int64, what string) string {
	if n == 1 {
		return counted(n, what) + " is"
	}
	return counted(n, what) + " are"
}

// withheld looks for deletions that listings ask for, and that nobody has decided of.
func (f *findings) withheld(kinds []delta.KindStatus) {
	for _, k := range kinds {
		if k.Withheld == nil || k.Withheld.Decision != "" {
			continue
		}
		w := withheldOf(k.Withheld)
		f.addKind("deletions", k.Kind, healthWarn,
			fmt.Sprintf("the listings leave out %s resources since %s (%s): none is marked deleted", w.missing(), w.Since.Format(time.RFC3339), w.Reason),
			remedy.DecideWithheld(k.Kind))
	}
}

// snoozed names what Work keeps from being worked for a while.
func (f *findings) snoozed(snoozes []delta.Snooze, now time.Time) {
	for _, snooze := range snoozes {
		left := short(snooze.Until.Sub(now))
		if snooze.Kind != "" {
			f.addKind("kind", snooze.Kind, healthWarn, "snoozed for "+left+" more, as its Work has said", remedy.EndSnoozeOfKind(snooze.Kind))
			continue
		}
		f.add("namespace", healthWarn, fmt.Sprintf("%s is snoozed for %s more, as its Work has said", snooze.Namespace, left),
			remedy.EndSnoozeOfNamespace(snooze.Namespace))
	}
}

// refused looks at objects that listings named and that cannot be taken.
func (f *findings) refused(ctx context.Context, s *session, kinds []delta.KindStatus) {
	for _, k := range kinds {
		if k.Refused == 0 {
			continue
		}
		detail := counted(k.Refused, "object") + " refused"
		if objects, err := s.Refused(ctx, k.Kind); err == nil && len(objects) > 0 {
			first := objects[0]
			detail += fmt.Sprintf(", as %q since %s: %s", first.ObjectID, first.Since.Format(time.RFC3339), first.Rule)
		}
		f.addKind("refused", k.Kind, healthWarn, detail, remedy.CorrectRefused(k.Kind))
	}
}

// longQueued is how long a resource may wait for a slot of its limit key, or for a parent, before that is worth a warning.
const longQueued = 15 * time.Minute

// queued looks for resources that wait long because their limit keys are full.
func (f *findings) queued(kinds []delta.KindStatus, now time.Time) {
	for _, k := range kinds {
		if k.Queued == 0 || now.Sub(*k.OldestQueued) < longQueued {
			continue
		}
		f.addKind("limit keys", k.Kind, healthWarn,
			fmt.Sprintf("%s of %s wait for slots, the first for %s", counted(k.Queued, "resource"), counted(k.QueuedKeys, "limit key"), short(now.Sub(*k.OldestQueued))),
			remedy.AskForLimits)
	}
}

// awaiting looks for resources that wait long for parents which were never synced.
func (f *findings) awaiting(kinds []delta.KindStatus, now time.Time) {
	for _, k := range kinds {
		if k.Awaiting == 0 || now.Sub(*k.OldestAwaiting) < longQueued {
			continue
		}
		f.addKind("parents", k.Kind, healthWarn,
			fmt.Sprintf("%s for %s, the first for %s", counted(k.Awaiting, "resource")+" waiting", counted(k.AwaitedParents, "parent"), short(now.Sub(*k.OldestAwaiting))),
			remedy.ExplainAwaiting(k.Kind))
	}
}
