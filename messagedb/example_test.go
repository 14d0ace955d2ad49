package messagedb_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chariot-giving/delta/messagedb"
)

type Deposited struct {
	Amount int `json:"amount"`
}

// Write with an expected version, read, and write in the caller's transaction.
func Example() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	client, err := messagedb.NewClient(pool, nil)
	if err != nil {
		log.Fatal(err)
	}

	stream, err := messagedb.NewStreamName("account", "123")
	if err != nil {
		log.Fatal(err)
	}
	deposits := []messagedb.ProposedMessage{
		{Type: "Deposited", Data: Deposited{Amount: 10}},
		{Type: "Deposited", Data: Deposited{Amount: 20}},
	}
	position, err := client.Write(ctx, stream, deposits, messagedb.NoStreamVersion)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("written up to position", position)

	// A writer that has not seen these messages gets a conflict.
	var conflict *messagedb.VersionConflictError
	_, err = client.Write(ctx, stream, deposits, messagedb.NoStreamVersion)
	fmt.Println("conflict:", errors.As(err, &conflict), conflict.Actual)

	// The message is there if, and only if, the transaction commits.
	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		// … write rows of your own with tx …
		_, err := client.WriteTx(ctx, tx, stream, deposits[:1], position)
		return err
	})
	if err != nil {
		log.Fatal(err)
	}

	balance := 0
	for message, err := range client.StreamMessages(ctx, stream, messagedb.StreamOptions{}) {
		if err != nil {
			log.Fatal(err)
		}
		deposited, err := messagedb.Decode[Deposited](message)
		if err != nil {
			log.Fatal(err)
		}
		balance += deposited.Amount
	}
	fmt.Println("balance:", balance)
	// Output:
	// written up to position 1
	// conflict: true 1
	// balance: 40
}
