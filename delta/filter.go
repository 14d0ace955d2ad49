package delta

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/chariot-giving/delta/delta/deltatype"
)

// Filter chooses resources. Within a field any value matches, except for Tags and Labels, which must all match. A field
// that is nil matches everything. A field that is empty and not nil matches nothing, so that a computed list that came out
// empty chooses nothing.
type Filter struct {
	// Kinds, ObjectIDs, Namespaces, Shards ([ObjectWithShard]) and States: the resource has one of the values. No shard
	// matches a resource without one.
	Kinds      []string
	ObjectIDs  []string
	Namespaces []string
	Shards     []string
	States     []deltatype.ResourceState
	// Tags must all be among its tags.
	Tags []string
	// Labels must all be members of its Metadata, by name and value.
	Labels map[string]string
	// Error is a text, 1000 bytes at most, that the latest error of a resource must contain literally. Only failing
	// resources match: degraded ones, those that wait for a retry or are being retried, and deleted ones whose Finalize has
	// failed. Empty matches everything, failing or not.
	Error string
	// Late chooses resources whose next step is more than a minute overdue, or whose worker was lost that long ago, as
	// [KindStatus].Late counts them.
	Late bool
	// All confirms that a filter with no other field, or only with States, is meant to choose everything.
	// [Client.DeleteAll] requires it.
	All bool
}

func (f Filter) validate() error {
	if f.All && f.isNarrowed() {
		return inputError("All", f.All, "must not be set together with fields that choose, other than States")
	}
	for _, state := range f.States {
		if !slices.Contains(deltatype.ResourceStates(), state) {
			var all []string
			for _, s := range deltatype.ResourceStates() {
				all = append(all, string(s))
			}
			return inputError("States", string(state), "must be one of %s", strings.Join(all, ", "))
		}
	}
	for _, shard := range f.Shards {
		if err := checkShard("Shards", shard); err != nil {
			return err
		}
	}
	if len(f.Error) > maxErrorFilter {
		return inputError("Error", fmt.Sprintf("%d bytes", len(f.Error)), "must have at most %d bytes", maxErrorFilter)
	}
	var labels []string
	for _, name := range slices.Sorted(maps.Keys(f.Labels)) {
		labels = append(labels, name, f.Labels[name])
	}
	for _, list := range []struct {
		field  string
		values []string
	}{{"Kinds", f.Kinds}, {"ObjectIDs", f.ObjectIDs}, {"Namespaces", f.Namespaces}, {"Tags", f.Tags}, {"Labels", labels}, {"Error", []string{f.Error}}} {
		for _, value := range list.values {
			if err := checkText(list.field, value); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f Filter) encodeLabels() ([]byte, error) {
	if f.Labels == nil {
		return []byte("{}"), nil
	}
	return json.Marshal(f.Labels)
}

// isOfFew reports whether only failing or late resources match: an index finds these, so they can be sorted in any order.
func (f Filter) isOfFew() bool {
	return f.Late || f.Error != "" || len(f.States) > 0 && !slices.ContainsFunc(f.States, func(s deltatype.ResourceState) bool {
		return s != deltatype.ResourceStateDegraded && s != deltatype.ResourceStateFailed
	})
}

// choosesNothing reports whether a field matches nothing.
func (f Filter) choosesNothing() bool {
	return isEmptyList(f.Kinds) || isEmptyList(f.ObjectIDs) || isEmptyList(f.Namespaces) || isEmptyList(f.Shards) || isEmptyList(f.States) || isEmptyList(f.Tags) ||
		(f.Labels != nil && len(f.Labels) == 0)
}

func isEmptyList[T any](list []T) bool { return list != nil && len(list) == 0 }

// choosesAll reports whether a filter chooses everything in some states.
func (f Filter) choosesAll(states []deltatype.ResourceState) bool {
	if f.isNarrowed() {
		return false
	}
	return f.States == nil || !slices.ContainsFunc(states, func(s deltatype.ResourceState) bool { return !slices.Contains(f.States, s) })
}

// isNarrowed reports whether a field other than States is set.
func (f Filter) isNarrowed() bool {
	return f.Kinds != nil || f.ObjectIDs != nil || f.Namespaces != nil || f.Shards != nil || f.Tags != nil || f.Labels != nil || f.Error != "" || f.Late
}
