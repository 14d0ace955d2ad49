package changelog_test

import (
	"context"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/sinks"
	"github.com/chariot-giving/delta/sinks/changelog"
	"github.com/chariot-giving/delta/sinks/webhook"
)

// postBills posts the changes of each bill, until the context ends.
func postBills(ctx context.Context, client *delta.Client, secret string) error {
	source, err := changelog.New(changelog.Config{Client: client, Consumer: delta.ChangeConsumer{Name: "bills", Kinds: []string{"bill"}}})
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

var _ = postBills // shown in docs/sinks.md
