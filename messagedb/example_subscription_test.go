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

// A subscription that polls less while nothing comes, and is woken by writes of clients that notify.
func ExampleClient_SubscribeToCategory() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	client, err := messagedb.NewClient(pool, &messagedb.Config{
		Notify:  true,
		Polling: messagedb.ExpBackoffPolling(50*time.Millisecond, 5*time.Second, 2),
	})
	if err != nil {
		log.Fatal(err)
	}

	received := make(chan string)
	subscription, err := client.SubscribeToCategory(ctx, "user",
		func(ctx context.Context, m *messagedb.Message) error {
			received <- m.Type + " in " + m.Stream.String()
			return nil
		},
		messagedb.CategoryOptions{},
		messagedb.SubscriptionOptions{
			Notify: true,
			Dropped: func(err error) { // nil after Stop
				if err != nil {
					log.Print("the subscription ended: ", err)
				}
			},
		},
	)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := client.WriteMessage(ctx, "user-1", messagedb.ProposedMessage{Type: "Registered", Data: messagedb.NoData}, messagedb.AnyVersion); err != nil {
		log.Fatal(err)
	}
	fmt.Println(<-received)
	subscription.Stop()
	if err := subscription.Err(); err != nil {
		log.Fatal(err)
	}
	// Output: Registered in user-1
}
