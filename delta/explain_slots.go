package delta

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/internal/remedy"
	"github.com/chariot-giving/delta/internal/wording"
)

// limitReasons returns the limits for which it waits, of its key or of rates.
func (f *facts) limitReasons() []Reason {
	if !f.isDue() {
		return nil
	}
	if key := f.key; key != nil && key.WaitsSince != nil {
		return []Reason{f.limitKeyReason()}
	}
	return f.rateReasons()
}

// slotReasons returns what a row waits for if nothing else blocks it: a limit, a slot, a dispatcher. There is at least one
// reason.
func (f *facts) slotReasons() []Reason {
	if all := f.limitReasons(); len(all) > 0 {
		return all
	}
	r, t := f.row, f.temporal
	if f.isNamespaceFull() {
		return []Reason{{
			Code: ReasonNamespaceSlots, Since: r.DueAt, Remedy: remedy.RaiseMaxWorkers(r.Namespace),
			Text: fmt.Sprintf("%d of its namespace %q are in work, and each client works %d of it at once", f.claimed.OfNamespace, r.Namespace, f.maxWorkers),
		}}
	}
	if t != nil && t.isRunning() && t.isBatch && f.isLeased() {
		return []Reason{{
			Code: ReasonInBatch, Text: "it is in the batch " + t.workflowID + ", which has not claimed it yet: others of it, or other batches, come first", Since: r.DueAt,
		}}
	}
	if t != nil && t.isRunning() && !t.isBatch && t.pendingAttempt() != nil {
		text := fmt.Sprintf("it waits for a slot of a worker, of which %s poll its task queue; %d of its kind are in work", wording.Count(len(t.pollers), "client"), f.claimed.OfKind)
		if t.isExecuted() {
			text = fmt.Sprintf("client %s has it, where it waits for a slot: Parallelism of its kind, or MaxWorkers of its namespace; %d of its kind are in work",
				t.worker, f.claimed.OfKind)
		}
		return []Reason{{Code: ReasonWorkerSlots, Text: text, Since: r.DueAt, Remedy: remedy.RaiseParallelism}}
	}
	return []Reason{f.dueReason()}
}

// isNamespaceFull reports whether the claimed resources of its namespace fill MaxWorkers of all clients that poll its task
// queue.
func (f *facts) isNamespaceFull() bool {
	clients := 1
	if f.temporal != nil {
		clients = max(len(f.temporal.pollers), 1)
	}
	return f.isDue() && f.maxWorkers > 0 && f.claimed.OfNamespace >= int64(f.maxWorkers*clients)
}

// dueReason is the reason of a row that is taken within seconds, or should have been.
func (f *facts) dueReason() Reason {
	reason := Reason{Code: ReasonDue, Text: "it is due: a dispatcher takes it within seconds", Since: f.row.DueAt}
	switch r := f.row; {
	case f.isLate():
		reason.Text, reason.Remedy = "it is late: its next step was due, and was not begun", remedy.FindWhyLate
	case r.DueAt != nil && r.DueAt.After(f.Now):
		reason.Text, reason.Since, reason.Until = "it is to be tried later", nil, r.DueAt
	case r.DispatchAt != nil && r.DispatchAt.After(f.Now):
		reason.Text = "it is due: a dispatcher has woken its workflow, which begins the attempt in a moment"
	}
	return reason
}

// limitKeyReason is the reason of a row that waits for a slot of its limit key.
func (f *facts) limitKeyReason() Reason {
	key := f.key
	reason := Reason{Code: ReasonLimitKey, Since: key.WaitsSince, Remedy: remedy.AskForLimits}
	reason.Text = fmt.Sprintf("it waits for its limit key %q: %d in work", key.Key, key.Running)
	if key.Concurrency > 0 {
		reason.Text += fmt.Sprintf(" of %d", key.Concurrency)
	}
	reason.Text += fmt.Sprintf(", %d waiting", key.Waiting)
	if next := db.UTC(f.KeyNextCallAt); key.Rate > 0 && next != nil && next.After(f.Now) {
		reason.Text += fmt.Sprintf("; %g calls a second may begin, and those until then are taken", key.Rate)
		reason.Until = next
	}
	return reason
}

// rateReasons returns the rates whose next calls are reserved for others.
func (f *facts) rateReasons() (all []Reason) {
	for _, rate := range []struct {
		code ReasonCode
		of   string
		next *time.Time
	}{
		{ReasonKindRate, "its kind", f.KindNextCallAt},
		{ReasonNamespaceRate, fmt.Sprintf("its namespace %q", f.row.Namespace), f.NamespaceNextCallAt},
	} {
		if next := db.UTC(rate.next); next != nil && next.After(f.Now) {
			all = append(all, Reason{
				Code: rate.code, Since: f.row.DueAt, Until: next, Remedy: remedy.RaiseRateLimit,
				Text: "the RateLimit of " + rate.of + " lets no call begin at the moment: those until then are reserved, this one's among them or after them",
			})
		}
	}
	slices.SortStableFunc(all, func(a, b Reason) int { return cmp.Compare(b.Until.UnixNano(), a.Until.UnixNano()) })
	return all
}
