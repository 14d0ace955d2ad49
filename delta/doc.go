// Package delta keeps rows of a Postgres table true to a system outside it.
//
// An [Object] stands for something outside; a [Controller] knows how to bring one in line (Work) and how to list them
// all (List, or Inform on a channel). Delta does the rest: the row, retries, expiry, retention, periodic listings and recovery from faults.
// Postgres is the truth and Temporal the engine: each resource's lifecycle is a durable workflow, which keeps no
// state of its own: it reads the row. Postgres decides which worker has a resource, Temporal only which should try.
//
// # The life of a resource
//
//	Inform: new or changed ──► scheduled ──claim──► pending ──► synced ──expiry──► expired ──claim──► pending
//	                                                 ▲   │          └──retention──► row removed
//	                                                 │   ├─ error, panic, timeout ──► failed ──backoff, claim─┐
//	                                                 └───┼────────────────────────────────────────────────────┘
//	                                                     ├─ the same, attempts used up ──► degraded ──retention──► row removed
//	                                                     ├─ ResourceDelete ──► deleted ──retention──► row removed
//	                                                     └─ ResourceSnooze ──► scheduled, later
//
// A new or changed object takes a resource from any state to scheduled, and starts a new generation; for a deleted one
// it takes an explicit Inform, which also revives a degraded one whose object did not change.
//
// The state unknown is for rows that Delta did not write itself.
//
// # What always holds
//
//   - A generation is one sync episode; attempts count within it. Work is called for a resource by the one worker that has a claim
//     on its row, and renews it in Postgres. An outcome is written by the claim that it came from, or not at all: an older one
//     never overwrites a newer one.
//   - A row that is to be worked is found by index and its workflow woken, whatever process died in between. A wake-up carries
//     nothing, so it may come twice.
//   - The newest informed generation is synced in the end, or is visibly degraded.
//   - User code runs in no transaction and holds no lock.
//   - Objects stay in Postgres; their kinds, ids and states reach Temporal, and the beginning of the latest error.
package delta
