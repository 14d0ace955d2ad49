// Package cdc reads the changes of a Postgres database as a stream, preceded by the rows that the tables had before.
//
//	// The slot keeps the server's log from here on: drop it when you no longer need it.
//	snapshot, err := cdc.CreateSnapshot(ctx, cdc.SnapshotConfig{Conn: config, Slot: "accounts", Publications: []string{"accounts"}})
//	if err != nil {
//		log.Fatal(err)
//	}
//	for row, err := range snapshot.Rows(ctx, "public", "account") {
//		if err != nil {
//			log.Fatal(err)
//		}
//		fmt.Println(row.Kind, row.New)
//	}
//	snapshot.Close()
//
//	stream, err := cdc.Open(ctx, cdc.Config{
//		Conn: config, Slot: "accounts", Publications: []string{"accounts"}, Start: snapshot.LSN, OnlyAcknowledged: true,
//	})
//	if err != nil {
//		log.Fatal(err) // cdc.ErrResyncNeeded: drop the slot and begin with a new snapshot
//	}
//	defer stream.Close()
//	transaction, err := stream.Next(ctx)
//	if err != nil {
//		log.Fatal(err)
//	}
//	for change, err := range transaction.Changes() {
//		if err != nil {
//			log.Fatal(err)
//		}
//		fmt.Println(change.Kind, change.KeyValues(), change.New)
//	}
//	// Now the server may forget the transaction. Without Ack it is delivered again after a restart.
//	if err := stream.Ack(transaction.EndLSN); err != nil {
//		log.Fatal(err)
//	}
//
// It needs a server with wal_level = logical, a role that may replicate, and a publication. Nothing has to be installed, because it reads pgoutput, which every
// Postgres has. It needs Postgres 14 or later; features that need a later version say so.
//
//	         CreateSnapshot ─► Snapshot.Rows ─┐  KindRead, in key order
//	                │                         ├─► your code ─► Stream.Ack(tx.EndLSN)
//	slot ◄──────────┴──► Open ─► Stream.Next ─┘  transactions, in the order of their commits
//	                                 │
//	            walsender ─► assembler ─► memory, or a temporary file beyond Config.MemoryLimit
//
//	Stream.Backfill ─► low watermark, rows of one chunk, high watermark ─► KindRead between the transactions of Stream.Next
//
// # Guarantees
//
//   - Delivery is at least once. A transaction is delivered whole, after its commit, in the order of commits.
//   - The server learns a position only when the transaction that ends there, and all before it, were acknowledged with [Stream.Ack]. After a lost connection the
//     stream goes on behind the last acknowledged transaction; later ones that were delivered come again.
//   - If nothing waits for an acknowledgement, the position follows the server's, so that tables without changes do not keep WAL.
//   - A table that is read beside the stream by [Stream.Backfill] is, at the end, equal to the result of the stream.
//   - A slot that is gone, was invalidated, or was moved by another program can no longer give all changes. Then the error is [ErrResyncNeeded]; changes are
//     never passed over silently.
//
// The [manual] has settings, limits and faults.
//
// [manual]: https://github.com/chariot-giving/delta/blob/main/docs/cdc.md
package cdc
