// Package cdc reads the changes of a Postgres database as a stream, with what was in the tables before.
//
//	         CreateSnapshot ─► Snapshot.Rows ─┐  KindRead, in key order
//	                │                         ├─► your code ─► Stream.Ack(tx.EndLSN)
//	slot ◄──────────┴──► Open ─► Stream.Next ─┘  transactions, in the order of their commits
//	                                 │
//	            walsender ─► assembler ─► memory, or a temporary file beyond Config.MemoryLimit
//
//	Stream.Backfill ─► low watermark, rows of one chunk, high watermark ─► KindRead between the transactions of Stream.Next
//
// It needs a server with wal_level = logical, a role that may replicate, a publication, and nothing installed: it reads
// pgoutput, which every Postgres has. It needs Postgres 14 or later; what needs more says so.
//
// # Guarantees
//
// Delivery is at least once. A transaction is delivered whole, after its commit, in the order of commits. The server is
// told of a position only when the transaction that ends there, and all before it, were acknowledged with [Stream.Ack]. After
// a lost connection the stream goes on behind the last acknowledged one; transactions that were delivered and not
// acknowledged come again.
//
// Where nothing is waiting for an acknowledgement, the position follows what the server has read, so that tables
// without changes do not keep WAL.
//
// A table that is read beside the stream by [Stream.Backfill] is, when that is done, equal to what the stream has made of it.
//
// A slot that is gone, was invalidated, or was moved by somebody else can no longer give all changes: that is
// [ErrResyncNeeded], and never passed over.
package cdc
