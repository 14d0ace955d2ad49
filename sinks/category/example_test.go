package category_test

import (
	"context"

	"github.com/chariot-giving/delta/messagedb"
	"github.com/chariot-giving/delta/sinks"
	"github.com/chariot-giving/delta/sinks/category"
	"github.com/chariot-giving/delta/sinks/webhook"
)

// postAccounts posts each message of the category account, until the context ends.
func postAccounts(ctx context.Context, client *messagedb.Client, secret string) error {
	source, err := category.NewSource(category.SourceConfig{Client: client, Consumer: messagedb.ConsumerConfig{Category: "account", Identifier: "hooks"}})
	if err != nil {
		return err
	}
	sink, err := webhook.New(webhook.Config{URL: "https://example.com/hooks", Secrets: []string{secret}})
	if err != nil {
		return err
	}
	relay, err := sinks.NewRelay(sinks.Config{Source: source, Sink: sink})
	if err != nil {
		return err
	}
	return relay.Run(ctx)
}

var _ = postAccounts // shown in docs/sinks.md

func newSink(client *messagedb.Client) (sinks.Sink, error) {
	return category.NewSink(category.SinkConfig{Client: client, Category: "order"})
}

var _ = newSink // shown in docs/sinks.md
