package console

import (
	"fmt"
	"slices"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// attentionItem is a finding to look at, with the buttons that can mend it.
type attentionItem struct {
	delta.Check
	Buttons []button
	// Link is the address of a page that helps, LinkText its label; both are empty if there is none.
	Link, LinkText string
}

// attentionItems lists what needs attention, failures first: findings of the doctor, and degraded resources, which the doctor does not report because
// the installation works.
func (p *commandPage) attentionItems(f *surveyResult, of func(kind string) bool) (items []attentionItem) {
	for _, state := range []delta.CheckState{delta.CheckFailure, delta.CheckWarning} {
		for _, check := range f.Checks {
			if check.State == state && of(check.Kind) {
				items = append(items, p.checkItem(check, f))
			}
		}
	}
	for i := range f.Kinds {
		k := &f.Kinds[i]
		n := k.Counts[deltatype.ResourceStateDegraded]
		if n == 0 || !of(k.Kind) {
			continue
		}
		items = append(items, attentionItem{
			Check: delta.Check{
				Name: "degraded", Kind: k.Kind, State: delta.CheckWarning,
				Detail: fmt.Sprintf("%s of %s resources are degraded: their attempts are used up, or Work gave up", countText(k, n), countText(k, countResources(k))),
				Remedy: "when the reason is gone: retry them",
			},
			Link: listAddress(k.Kind, deltatype.ResourceStateDegraded), LinkText: "See the degraded resources of " + k.Kind,
		})
	}
	return items
}

// checkItem adds links and the buttons that can mend it to a check.
func (p *commandPage) checkItem(check delta.Check, f *surveyResult) attentionItem {
	it := attentionItem{Check: check}
	if check.Namespace != "" {
		it.Buttons = p.offerButtons(resumeNamespaceButton(check.Namespace))
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
			it.Buttons = p.offerButtons(resumeKindButton(k.Kind))
		}
	case "informer", "full listing":
		switch {
		case isInformerPaused(k, f.Temporal):
			it.Buttons = p.offerButtons(resumeInformerButton(k.Kind))
		case isInformerKnown(k):
			it.Buttons = p.offerButtons(runInformerButton(k.Kind))
		}
	case "deletions":
		if k.Withheld != nil {
			it.Buttons = p.offerButtons(decisionButtons(k.Withheld)...)
		}
	case "late":
		it.Link, it.LinkText = listAddress(k.Kind, ""), "See the resources of "+k.Kind
	}
	return it
}

// isInformerPaused reports whether the informer of a kind is paused, by Delta or in Temporal.
func isInformerPaused(k *delta.KindStatus, temporal *delta.TemporalStatus) bool {
	if k.InformerPaused || temporal == nil {
		return k.InformerPaused
	}
	there := temporal.Kinds[k.Kind]
	return there.Schedule != nil && there.Schedule.Paused || there.FullSchedule != nil && there.FullSchedule.Paused
}

// isInformerKnown reports whether a client that runs the informer of the kind has ever started.
func isInformerKnown(k *delta.KindStatus) bool {
	return !k.ListsNothing && (k.InformInterval != 0 || k.InformSchedule != nil)
}

// countResources returns how many resources a kind has, in all states.
func countResources(k *delta.KindStatus) (n int64) {
	for _, count := range k.Counts {
		n += count
	}
	return n
}
