package delta

import (
	"context"
	"slices"
	"time"

	"github.com/chariot-giving/delta/db"
)

// crowd notes namespaces with many due rows, which have no room for most of them. A lease looks at each by itself, because
// it would have to step over their rows otherwise, and lock thousands of them, to find those of other namespaces. The rows
// stay due all the while: any client may have room for them at any moment.
type crowd struct {
	// first is when the first row of each became due, by priority; zero for a priority of which it has few, or none.
	first map[string]*[lowestPriority + 1]time.Time
	// since is when the first row of all other namespaces did; zero if that is not known.
	since time.Time
	// notedAt is when that was noted, and took how long that took.
	notedAt time.Time
	took    time.Duration
	// slow is how long a lease takes before a crowd is looked for. wasSlow is set if the latest did.
	slow    time.Duration
	wasSlow bool
}

// lowestPriority is the least urgent priority, the largest number.
const lowestPriority = 5

const (
	// slowLease and slowRow are how long a lease may take, and each of its rows, before a crowd is looked for.
	slowLease = 50 * time.Millisecond
	slowRow   = 200 * time.Microsecond
	// crowdSize is how many due rows make a crowd.
	crowdSize = 50
	// crowdValidity is how long a crowd is valid, at least. Then leases look at all rows again, because some may have become
	// due in the past. That, and noting a crowd, take one part in crowdShare of the time.
	crowdValidity = 10 * time.Second
	crowdShare    = 40
	// crowdMargin is how long a transaction may take that makes rows due, to be seen while a crowd is valid.
	crowdMargin = 10 * time.Second
)

// isOlder reports whether the crowd was noted longer ago than a time, and than share times what noting it took.
func (c *crowd) isOlder(than time.Duration, share time.Duration) bool {
	return time.Since(c.notedAt) > max(than, share*c.took)
}

func (c *crowd) isValid() bool { return !c.since.IsZero() && !c.isOlder(crowdValidity, crowdShare) }

// forget makes leases look at all rows again.
func (c *crowd) forget() { c.first, c.since = nil, time.Time{} }

// firstDue returns since when rows may be due that are in namespaces with room; zero if that is not known.
func (c *crowd) firstDue(room leaseRoom) (since time.Time) {
	if !c.isValid() {
		return time.Time{}
	}
	since = c.since
	for namespace, firsts := range c.first {
		if slices.Contains(room.full, namespace) {
			continue
		}
		for _, first := range firsts {
			if !first.IsZero() && first.Before(since) {
				since = first
			}
		}
	}
	return since
}

// leasePlan lists the entries of a lease, in their order: a priority of a crowded namespace, or of all namespaces (an empty
// name) that are not passed by.
type leasePlan struct {
	priorities []int16
	namespaces []string
	since      []time.Time
	most       []int32
	passedBy   []string
}

func (p *leasePlan) add(priority int16, namespace string, since time.Time, most int32) {
	p.priorities, p.namespaces = append(p.priorities, priority), append(p.namespaces, namespace)
	p.since, p.most = append(p.since, since), append(p.most, most)
}

// plan returns the plan of a lease of size rows.
func (c *crowd) plan(priorities []int16, room leaseRoom, size int32) (p leasePlan) {
	p.passedBy = slices.Clone(room.full)
	if !c.isValid() {
		for _, priority := range priorities {
			p.add(priority, "", time.Time{}, size)
		}
		return p
	}
	rooms := map[string]int32{}
	for namespace := range c.first {
		p.passedBy = append(p.passedBy, namespace)
		if rows := room.rowsOf(namespace, size); rows > 0 {
			rooms[namespace] = rows
		}
	}
	for _, priority := range priorities {
		for namespace, rows := range rooms {
			since := c.first[namespace][priority]
			if since.IsZero() {
				since = c.since
			}
			p.add(priority, namespace, since, rows)
		}
		p.add(priority, "", c.since, size)
	}
	return p
}

// noteLease notes whether a lease was slow, and forgets a crowd of which it found less than there was room for.
func (c *crowd) noteLease(p leasePlan, leased []db.LeaseDueRow, size int32, took time.Duration) {
	c.wasSlow = took > c.slow+slowRow*time.Duration(len(leased))
	if len(leased) >= int(size) {
		return
	}
	found := map[string]int32{}
	for _, row := range leased {
		found[row.Namespace]++
	}
	for i, namespace := range p.namespaces {
		if namespace != "" && found[namespace] < p.most[i] {
			c.forget()
			return
		}
	}
}

// noteCrowd looks for a crowd if the latest lease was slow, and namespaces are limited.
func (d *dispatcher) noteCrowd(ctx context.Context, room leaseRoom) {
	c, limited := &d.crowd, slices.Concat(room.full, room.limited)
	if len(limited) == 0 || !c.wasSlow || !c.isOlder(0, crowdShare/4) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, nextTimeout)
	defer cancel()
	began := time.Now()
	found, err := db.New().FirstDue(ctx, d.pool, db.FirstDueParams{Kind: d.kind, LimitedNamespaces: limited, Margin: crowdMargin})
	*c = crowd{first: map[string]*[lowestPriority + 1]time.Time{}, notedAt: time.Now(), took: time.Since(began), slow: c.slow}
	if err != nil {
		c.took *= 4 // it holds up the dispatcher: less often
		d.log.Info("looking for namespaces with many due resources failed; leases look at all of them", "kind", d.kind, "error", err)
		return
	}
	for _, row := range found {
		if row.Namespace != "" && row.Due >= crowdSize {
			if c.first[row.Namespace] == nil {
				c.first[row.Namespace] = &[lowestPriority + 1]time.Time{}
			}
			c.first[row.Namespace][row.Priority] = row.Since
		} else if c.since.IsZero() || row.Since.Before(c.since) {
			c.since = row.Since
		}
	}
	d.log.Debug("namespaces with many due resources are leased by themselves", "kind", d.kind, "namespaces", len(c.first), "since", c.since, "took", c.took)
}
