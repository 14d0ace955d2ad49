package sinks_test

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/sinks"
	"github.com/chariot-giving/delta/sinks/webhook"
)

// postOrders posts each change of the publication's tables, until the context ends.
func postOrders(ctx context.Context, database *pgx.ConnConfig, secret string) error {
	stream, err := cdc.Open(ctx, cdc.Config{Conn: database, Slot: "orders", Publications: []string{"orders"}, OnlyAcknowledged: true})
	if err != nil {
		return err
	}
	defer stream.Close()
	sink, err := webhook.New(webhook.Config{URL: "https://example.com/hooks", Secrets: []string{secret}})
	if err != nil {
		return err
	}
	relay, err := sinks.NewRelay(sinks.Config{Source: sinks.NewStreamSource(stream, sinks.StreamConfig{Name: "orders"}), Sink: sink})
	if err != nil {
		return err
	}
	return relay.Run(ctx)
}

var _ = postOrders // shown in docs/sinks.md
