package messagedb_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chariot-giving/delta/messagedb"
)

type Ordered struct {
	Total int `json:"total"`
}

// A table of sales by customer. Whatever dies at whatever moment, each order is counted once.
func ExampleProjector() {
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
	if err := messagedb.MigrateProjections(ctx, pool, ""); err != nil {
		log.Fatal(err)
	}
	if _, err := pool.Exec(ctx, "CREATE TABLE IF NOT EXISTS sales (customer text PRIMARY KEY, total bigint NOT NULL)"); err != nil {
		log.Fatal(err)
	}
	for _, total := range []int{10, 30} {
		if _, err := client.WriteMessage(ctx, "order-ann", messagedb.ProposedMessage{Type: "Ordered", Data: Ordered{total}}, messagedb.AnyVersion); err != nil {
			log.Fatal(err)
		}
	}

	projector, err := client.NewProjector(messagedb.ProjectorConfig{Name: "sales", Category: "order"})
	if err != nil {
		log.Fatal(err)
	}
	messagedb.Project(projector, "Ordered", func(ctx context.Context, tx pgx.Tx, data Ordered, m *messagedb.Message) error {
		customer, _ := m.Stream.CardinalID()
		_, err := tx.Exec(ctx, `INSERT INTO sales AS s VALUES ($1, $2) ON CONFLICT (customer) DO UPDATE SET total = s.total + $2`, customer, data.Total)
		if m.Position == 1 {
			go projector.Stop(context.Background()) // a service would do so when it is told to end
		}
		return err
	})
	if err := projector.Run(ctx); err != nil {
		log.Fatal(err)
	}

	var total int
	if err := pool.QueryRow(ctx, "SELECT total FROM sales WHERE customer = 'ann'").Scan(&total); err != nil {
		log.Fatal(err)
	}
	fmt.Println("ann has ordered for", total)
	// Output:
	// ann has ordered for 40
}
