package messagedb_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chariot-giving/delta/messagedb"
)

type OpenAccount struct {
	Owner string `json:"owner"`
}

// A member of a consumer group. It remembers how far it has come, tries what fails three times more, and skips it then.
func ExampleConsumer() {
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
	command := messagedb.ProposedMessage{Type: "OpenAccount", Data: OpenAccount{Owner: "ann"}}
	if _, err := client.WriteMessage(ctx, "account:command-123", command, messagedb.AnyVersion); err != nil {
		log.Fatal(err)
	}

	consumer, err := client.NewConsumer(messagedb.ConsumerConfig{
		Category:    "account:command",
		Identifier:  "opener",
		Group:       &messagedb.Group{Member: 0, Size: 1},
		ErrorPolicy: messagedb.ErrorPolicy{Retries: 3, Delay: time.Second, Skip: true},
	})
	if err != nil {
		log.Fatal(err)
	}
	messagedb.Handle(consumer, "OpenAccount", func(ctx context.Context, data OpenAccount, m *messagedb.Message) error {
		fmt.Println("opening the account of", data.Owner)
		go consumer.Stop(context.Background()) // a service would do so when it is told to end
		return nil
	})
	if err := consumer.Run(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println("position saved in", consumer.PositionStream())
	// Output:
	// opening the account of ann
	// position saved in account:command+position-opener+0+1
}
