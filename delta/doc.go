// Package delta keeps rows of a Postgres table true to a system outside it.
//
// An [Object] stands for something outside; a [Controller] knows how to bring one in line (Work) and how to list them
// all (Inform). Delta does the rest: the row, retries, expiry, retention, periodic listings and recovery from faults.
// Postgres is the truth and Temporal the engine: each resource's lifecycle is a durable workflow, which finds in the
// row all that it has to know.
//
// # The life of a resource
//
//	                    ┌──────────── new or changed object: a new generation ────────────┐
//	                    ▼                                                                 │
//	Inform ──────► scheduled ──claim──► pending ──Work: nil────────────────► synced ──────┤
//	                    ▲                 │ ▲                                 │  │        │
//	                    │                 │ └─claim─ failed ◄─Work: error─┐   │  │        │
//	                    │                 │            (backoff) ─────────┤   │  └─expiry─► expired ──claim──► pending
//	                    │                 ├──────────────────────────────-┘   │
//	                    │                 ├─Work: error, attempts used up──► degraded ────┤
//	                    │                 └─Work: ResourceDelete───────────► deleted ─────┘ (an explicit Inform)
//	                    │                                                     │
//	                    └─────────────────── the object comes back ◄─── row removed (retention)
//
// The state unknown is for rows that Delta did not write itself.
//
// # What always holds
//
//   - A generation is one sync episode; attempts count within it. Every result is written for the generation and the
//     attempt that it came from, or not at all: an older result never overwrites a newer one.
//   - A row that is to be worked is found by index and its workflow woken, whoever died in between. A wake-up carries
//     nothing, so it may come twice.
//   - The newest informed generation is synced in the end, or is visibly degraded.
//   - User code runs in no transaction and holds no lock.
//   - Only the kind, the id and the generation of an object reach Temporal.
package delta
