package messagedb_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chariot-giving/delta/messagedb"
)

type Account struct {
	Balance int `json:"balance"`
}

type Withdrawn struct {
	Amount int `json:"amount"`
}

// The state of an account is folded from its events. The next event is written with the version of the state as the expected one.
func ExampleEntity() {
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
	accounts, err := messagedb.NewEntity(client, messagedb.EntityConfig[Account]{Category: "account", SnapshotInterval: 100})
	if err != nil {
		log.Fatal(err)
	}
	messagedb.Fold(accounts, "Deposited", func(a *Account, event Deposited, m *messagedb.Message) error {
		a.Balance += event.Amount
		return nil
	})
	messagedb.Fold(accounts, "Withdrawn", func(a *Account, event Withdrawn, m *messagedb.Message) error {
		a.Balance -= event.Amount
		return nil
	})

	deposit := messagedb.ProposedMessage{Type: "Deposited", Data: Deposited{Amount: 100}}
	if _, err := client.WriteMessage(ctx, "account-456", deposit, messagedb.NoStreamVersion); err != nil {
		log.Fatal(err)
	}
	for _, amount := range []int{70, 70} {
		account, version, err := accounts.Get(ctx, "456")
		if err != nil {
			log.Fatal(err)
		}
		if account.Balance < amount {
			fmt.Println("only", account.Balance, "at version", version)
			continue
		}
		withdrawal := messagedb.ProposedMessage{Type: "Withdrawn", Data: Withdrawn{Amount: amount}}
		_, err = client.WriteMessage(ctx, "account-456", withdrawal, version)
		if conflict := new(messagedb.VersionConflictError); errors.As(err, &conflict) {
			continue // somebody else wrote meanwhile: a program would decide again
		}
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("withdrew", amount)
	}
	// Output:
	// withdrew 70
	// only 30 at version 1
}
