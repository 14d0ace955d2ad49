package db

import (
	"time"

	"github.com/chariot-giving/delta/delta/deltatype"
)

// Outbox leases what is informed to batches as it is written, where whoever starts them is at hand. It saves a dispatcher's
// write of each row.
type Outbox interface {
	// Lease names batches for a set of so many objects of a kind. It is nil where they are to wait for a dispatcher, as in
	// any other set.
	Lease(kind string, count int) *Lease
}

// Lease is a promise to start batches.
type Lease struct {
	// Batches are the ids of their workflows. Each takes up to Size objects of up to Largest bytes; what is left waits.
	Batches       []string
	Size, Largest int
	// For is how long the rows are left alone: if nobody starts their batch, a dispatcher takes them then.
	For time.Duration
	// HashIDs keeps object ids from Temporal.
	HashIDs bool
	// Start is called once the set was written, with the rows that each batch got, which may be none, in the order of
	// object ids. It is called with nil where the call failed: the set was not written, as a rule, or only the answer was lost.
	Start func(members map[string][]*deltatype.ResourceRow)
}

// leases are those of one set.
type leases struct {
	granted []*Lease
	// batches are ids of workflows, in the order of the set; empty for none.
	batches []string
}

// lease asks for leases for a set that is sorted by kind.
func lease(set []*deltatype.ObjectInformParams, outbox Outbox) leases {
	var l leases
	if outbox == nil || len(set) == 1 {
		return l
	}
	for from := 0; from < len(set); {
		to := from + 1
		for to < len(set) && set[to].Kind == set[from].Kind {
			to++
		}
		if granted := outbox.Lease(set[from].Kind, to-from); granted != nil {
			if l.granted = append(l.granted, granted); l.batches == nil {
				l.batches = make([]string, len(set))
			}
			l.name(granted, set, from, to)
		}
		from = to
	}
	return l
}

// name gives each object of a kind its batch.
func (l *leases) name(granted *Lease, set []*deltatype.ObjectInformParams, from, to int) {
	taken := 0
	for i := from; i < to && taken < len(granted.Batches)*granted.Size; i++ {
		if len(set[i].EncodedObject) <= granted.Largest {
			l.batches[i] = granted.Batches[taken/granted.Size]
			taken++
		}
	}
}

// apply puts the leases into the parameters of a statement, for a part of the set.
func (l *leases) apply(p *InformResourcesParams, from, to int) {
	if l.batches == nil {
		return
	}
	p.BatchIds = l.batches[from:to]
	for _, granted := range l.granted {
		p.Lease, p.HashIds = granted.For, granted.HashIDs
	}
}

// start hands over what was leased, if anything.
func (l *leases) start(rows answers) {
	if len(l.granted) == 0 {
		return
	}
	var members map[string][]*deltatype.ResourceRow
	if rows != nil {
		members = map[string][]*deltatype.ResourceRow{}
	}
	for _, r := range rows {
		if r != nil && r.Scheduled && IsLeased(r.Resource) {
			members[r.Resource.WorkflowID] = append(members[r.Resource.WorkflowID], r.Resource)
		}
	}
	for _, granted := range l.granted {
		granted.Start(members)
	}
}

// IsLeased tells of a row that was just scheduled that it does not wait for a dispatcher.
func IsLeased(row *deltatype.ResourceRow) bool {
	return row.DispatchAt != nil && row.DueAt != nil && row.DispatchAt.After(*row.DueAt)
}
