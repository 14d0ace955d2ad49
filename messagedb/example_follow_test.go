package messagedb_test

import (
	"context"
	"fmt"
	"log"

	"github.com/chariot-giving/delta/messagedb"
)

// What a message is a reaction to, and which conversation it belongs to. The store is in memory here, as in a test.
func ExampleFollow() {
	ctx := context.Background()
	store := messagedb.NewMemory()
	command := messagedb.ProposedMessage{
		Type: "Ship", Data: messagedb.NoData, Metadata: messagedb.Metadata{CorrelationStreamName: "order-7"},
	}
	if _, err := store.WriteMessage(ctx, "shipment:command-1", command, messagedb.AnyVersion); err != nil {
		log.Fatal(err)
	}

	// Where the command is handled:
	received, err := store.LastMessage(ctx, "shipment:command-1", "")
	if err != nil {
		log.Fatal(err)
	}
	metadata, err := messagedb.Follow(received)
	if err != nil {
		log.Fatal(err)
	}
	event := messagedb.ProposedMessage{Type: "Shipped", Data: messagedb.NoData, Metadata: metadata}
	if _, err := store.WriteMessage(ctx, "shipment-1", event, messagedb.NoStreamVersion); err != nil {
		log.Fatal(err)
	}

	// Orders hear of their shipments only:
	shipped, err := store.ReadCategory(ctx, "shipment", messagedb.CategoryOptions{Correlation: "order"})
	if err != nil {
		log.Fatal(err)
	}
	for _, m := range shipped {
		metadata, err := messagedb.DecodeMetadata[messagedb.Metadata](m)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(m.Type, "for", metadata.CorrelationStreamName, "because of", metadata.CausationMessageStreamName)
	}
	// Output: Shipped for order-7 because of shipment:command-1
}
