package cdc_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/jackc/pgx/v5"

	"github.com/chariot-giving/delta/cdc"
)

// The rows of a table, and then each change of them.
func Example() {
	ctx := context.Background()
	config, err := pgx.ParseConfig(os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	db, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close(ctx)
	err = cdc.CreatePublication(ctx, db, cdc.Publication{Name: "accounts", Tables: []cdc.PublishedTable{{Table: "account"}}})
	if err != nil {
		log.Fatal(err)
	}

	// The slot keeps the server's log from here on: drop it when you no longer need it.
	snapshot, err := cdc.CreateSnapshot(ctx, cdc.SnapshotConfig{Conn: config, Slot: "accounts", Publications: []string{"accounts"}})
	if err != nil {
		log.Fatal(err)
	}
	for row, err := range snapshot.Rows(ctx, "public", "account") {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(row.Kind, row.New)
	}
	snapshot.Close()

	if _, err := db.Exec(ctx, "UPDATE account SET balance = 15 WHERE id = 1; DELETE FROM account WHERE id = 2"); err != nil {
		log.Fatal(err)
	}
	stream, err := cdc.Open(ctx, cdc.Config{
		Conn: config, Slot: "accounts", Publications: []string{"accounts"}, Start: snapshot.LSN, OnlyAcknowledged: true,
	})
	if err != nil {
		log.Fatal(err) // cdc.ErrResyncNeeded: drop the slot and begin with a new snapshot
	}
	defer stream.Close()
	transaction, err := stream.Next(ctx)
	if err != nil {
		log.Fatal(err)
	}
	for change, err := range transaction.Changes() {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(change.Kind, change.KeyValues(), change.New)
	}
	// Now the server may forget the transaction. Without Ack it is delivered again after a restart.
	if err := stream.Ack(transaction.EndLSN); err != nil {
		log.Fatal(err)
	}
}
