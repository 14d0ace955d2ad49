package db

import (
	"context"
	"slices"
	"strings"

	"github.com/chariot-giving/delta/delta/deltatype"
)

const (
	// maxParentDepth and maxParentsRead bound how far parents are followed, and how many resources with parents are
	// read for that.
	maxParentDepth = 32
	maxParentsRead = 10_000
)

// AwaitsParent reports whether a row waits for a parent, the first of those that it awaits.
func (r *Resource) AwaitsParent() bool {
	return r.AwaitedParents != nil && r.DispatchAt == nil && r.QueuedAt == nil && r.State != deltatype.ResourceStateDeleted
}

// formatRefs returns refs as they are stored; nil for none.
func formatRefs(refs []deltatype.Ref) []string {
	if refs == nil {
		return nil
	}
	all := make([]string, len(refs))
	for i, ref := range refs {
		all[i] = ref.String()
	}
	return all
}

// parseRefs returns the refs that are stored as texts; nil for none.
func parseRefs(texts []string) []deltatype.Ref {
	if texts == nil {
		return nil
	}
	all := make([]deltatype.Ref, len(texts))
	for i, text := range texts {
		all[i] = parseRef(text)
	}
	return all
}

func parseRef(text string) deltatype.Ref {
	kind, id, _ := strings.Cut(text, "/")
	return deltatype.Ref{Kind: kind, ObjectID: id}
}

// checkCycles refuses a set with an object that is its own ancestor, by stored or given parents. Objects without
// parents cost nothing; others cost one statement. Two transactions that do not see each other can still make a cycle.
func checkCycles(ctx context.Context, conn DBTX, set []*deltatype.ObjectInformParams) error {
	var asked []string
	given := map[string][]string{}
	for _, o := range set {
		if len(o.Parents) > 0 {
			own := deltatype.Ref{Kind: o.Kind, ObjectID: o.ResourceID}.String()
			given[own] = formatRefs(o.Parents)
			asked = append(asked, given[own]...)
		}
	}
	if len(asked) == 0 {
		return nil
	}
	slices.Sort(asked)
	asked = slices.Compact(asked)
	rows, err := New().ParentsAbove(ctx, Planned(conn, len(asked)), ParentsAboveParams{Resources: asked, Deepest: maxParentDepth, Most: maxParentsRead})
	if err != nil {
		return err
	}
	parents := map[string][]string{}
	for _, row := range rows {
		parents[row.Resource] = row.Parents
	}
	for _, o := range set { // given parents replace stored ones, even if none are left
		own := deltatype.Ref{Kind: o.Kind, ObjectID: o.ResourceID}.String()
		if parents[own] != nil || given[own] != nil {
			parents[own] = given[own]
		}
	}
	for _, o := range set {
		if len(o.Parents) == 0 {
			continue
		}
		own := deltatype.Ref{Kind: o.Kind, ObjectID: o.ResourceID}.String()
		if path := pathTo(own, []string{own}, parents, map[string]bool{}); path != nil {
			return &deltatype.ParentCycleError{Path: parseRefs(path)}
		}
	}
	return nil
}

// pathTo follows parents from the end of a path until it comes to a resource; nil if it never does. Cycles that do not
// contain the resource are ignored.
func pathTo(resource string, path []string, parents map[string][]string, seen map[string]bool) []string {
	for _, parent := range parents[path[len(path)-1]] {
		if parent == resource {
			return append(path, parent)
		}
		if seen[parent] {
			continue
		}
		seen[parent] = true
		if found := pathTo(resource, append(slices.Clone(path), parent), parents, seen); found != nil {
			return found
		}
	}
	return nil
}

// Awaited is a resource that another one waits for.
type Awaited struct {
	AwaitedAboveRow
	// Path leads to it, from a parent of the waiting resource on: each waits for the next.
	Path []deltatype.Ref
	// IsCycle reports whether the path ends at one of its earlier resources, or at the waiting one.
	IsCycle bool
}

// IsOnItsWay reports whether the resource is being synced, or waits to be.
func (a *Awaited) IsOnItsWay() bool {
	switch a.State {
	case deltatype.ResourceStateScheduled, deltatype.ResourceStatePending, deltatype.ResourceStateFailed, deltatype.ResourceStateExpired:
		return a.IsThere && !a.IsCycle && !a.Paused && !a.KindPaused
	default:
		return false
	}
}

// AwaitedResources are resources that others wait for, directly or not, each by kind/id.
type AwaitedResources map[string]AwaitedAboveRow

// ReadAwaited reads awaited parents, and the resources that they wait for, in one statement.
func ReadAwaited(ctx context.Context, conn DBTX, parents []string) (AwaitedResources, error) {
	rows, err := New().AwaitedAbove(ctx, conn, AwaitedAboveParams{Resources: parents, Deepest: maxParentDepth, Most: maxParentsRead})
	if err != nil {
		return nil, err
	}
	all := make(AwaitedResources, len(rows))
	for _, row := range rows {
		all[row.Resource] = row
	}
	return all, nil
}

// Find returns the resource that a resource waits for in the end: one of the ancestors that is not on its way, if there
// is any, and otherwise the first parent. It returns nil if all of them were synced meanwhile.
func (all AwaitedResources) Find(own deltatype.Ref, parents []string) *Awaited {
	var first *Awaited
	seen := map[string]bool{}
	for _, parent := range parents {
		if blocking := all.findBlocking([]string{own.String(), parent}, seen); blocking != nil {
			return blocking
		}
		if row, found := all[parent]; found && !row.Synced && first == nil {
			first = &Awaited{AwaitedAboveRow: row, Path: parseRefs([]string{parent})}
		}
	}
	return first
}

// findBlocking returns a resource that is not on its way, at the end of a path or beyond it.
func (all AwaitedResources) findBlocking(path []string, seen map[string]bool) *Awaited {
	end := len(path) - 1
	row, found := all[path[end]]
	if !found || row.Synced { // resources beyond the bounds were not read
		return nil
	}
	a := &Awaited{AwaitedAboveRow: row, Path: parseRefs(path[1:]), IsCycle: slices.Contains(path[:end], path[end])}
	if !a.IsOnItsWay() {
		return a
	}
	if seen[path[end]] {
		return nil
	}
	seen[path[end]] = true
	for _, parent := range row.AwaitedParents {
		if blocking := all.findBlocking(append(slices.Clone(path), parent), seen); blocking != nil {
			return blocking
		}
	}
	return nil
}

// Describe describes the wait, for a sentence that begins with the waiting resource.
func (a *Awaited) Describe() string {
	var b strings.Builder
	for i, ref := range a.Path {
		if i == 0 {
			b.WriteString("waits for its parent ")
		} else {
			b.WriteString(", which waits for ")
		}
		b.WriteString(ref.String())
	}
	switch {
	case a.IsCycle:
		b.WriteString(": a cycle, in which none is synced first")
	case !a.IsThere:
		b.WriteString(", which is not there: it was not informed yet, or its row was removed")
	case a.Paused:
		b.WriteString(", which is " + string(a.State) + " and paused")
	case a.KindPaused:
		b.WriteString(", which is " + string(a.State) + ", and its kind is paused")
	default:
		b.WriteString(", which is " + string(a.State) + " and was never synced")
	}
	return b.String()
}
