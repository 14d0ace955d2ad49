package console

import (
	"fmt"
	"slices"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// item is something to look at, with the buttons that mend it.
type item struct {
	delta.Check
	Buttons []button
	// Link is a page that helps, LinkText what it is; empty where there is none.
	Link, LinkText string
}

// attention lists what needs somebody, failures first: findings of the doctor, and resources that have degraded, of which the doctor says nothing because the
// installation works.
func (p *page) attention(f *found, of func(kind string) bool) (items []item) {
	for _, state := range []delta.CheckState{delta.CheckFailure, delta.CheckWarning} {
		for _, check := range f.Checks {
			if check.State == state && of(check.Kind) {
				items = append(items, p.itemOf(check, f))
			}
		}
	}
	for i := range f.Kinds {
		k := &f.Kinds[i]
		n := k.Counts[deltatype.ResourceStateDegraded]
		if n == 0 || !of(k.Kind) {
			continue
		}
		items = append(items, item{
			Check: delta.Check{
				Name: "degraded", Kind: k.Kind, State: delta.CheckWarning,
				Detail: fmt.Sprintf("%s of %s resources are degraded: their attempts are used up, or hopeless", numberOf(k, n), numberOf(k, total(k))),
				Remedy: "when the reason is gone: retry them",
			},
			Link: listAddress(k.Kind, deltatype.ResourceStateDegraded), LinkText: "See the degraded resources of " + k.Kind,
		})
	}
	return items
}

// itemOf is a check with what mends it.
func (p *page) itemOf(check delta.Check, f *found) item {
	it := item{Check: check}
	if check.Namespace != "" {
		it.Buttons = p.offer(resumeNamespace(check.Namespace))
		return it
	}
	at := slices.IndexFunc(f.Kinds, func(k delta.KindStatus) bool { return k.Kind == check.Kind })
	if check.State == delta.CheckOK || check.State == delta.CheckSkipped || at < 0 || check.Name == "consumer of changes" {
		return it
	}
	k := &f.Kinds[at]
	it.Link, it.LinkText = kindAddress(k.Kind), "See "+k.Kind
	if p.back == "kind" {
		it.Link = ""
	}
	switch check.Name {
	case "kind":
		if k.Paused || k.SnoozedUntil != nil {
			it.Buttons = p.offer(resumeKind(k.Kind))
		}
	case "informer", "full listing":
		switch {
		case isInformerPaused(k, f.Temporal):
			it.Buttons = p.offer(resumeInformer(k.Kind))
		case isInformerKnown(k):
			it.Buttons = p.offer(runInformer(k.Kind))
		}
	case "deletions":
		if k.Withheld != nil {
			it.Buttons = p.offer(decide(k.Withheld)...)
		}
	case "late":
		it.Link, it.LinkText = listAddress(k.Kind, ""), "See the resources of "+k.Kind
	}
	return it
}

// isInformerPaused reports whether the informer of a kind is, by Delta or in Temporal.
func isInformerPaused(k *delta.KindStatus, temporal *delta.TemporalStatus) bool {
	if k.InformerPaused || temporal == nil {
		return k.InformerPaused
	}
	there := temporal.Kinds[k.Kind]
	return there.Schedule != nil && there.Schedule.Paused || there.FullSchedule != nil && there.FullSchedule.Paused
}

// isInformerKnown reports whether a client has started that runs the informer of the kind.
func isInformerKnown(k *delta.KindStatus) bool {
	return !k.ListsNothing && (k.InformInterval != 0 || k.InformSchedule != nil)
}

// total is how many resources a kind has.
func total(k *delta.KindStatus) (n int64) {
	for _, count := range k.Counts {
		n += count
	}
	return n
}
