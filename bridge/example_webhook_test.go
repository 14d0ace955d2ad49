package bridge_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"

	"github.com/chariot-giving/delta/bridge"
	"github.com/chariot-giving/delta/delta"
)

// handleStripe is a handler of the events of Stripe: the customer has changed, and Work looks for itself.
func handleStripe(client *delta.Client) (http.Handler, error) {
	return bridge.Webhook(bridge.WebhookConfig{
		Endpoint: "stripe", Client: client, Scheme: bridge.Stripe(), Secrets: []string{os.Getenv("STRIPE_WEBHOOK_SECRET")},
		Handle: func(_ context.Context, d bridge.WebhookDelivery) ([]bridge.WebhookAction, error) {
			var event struct {
				Data struct {
					Object struct{ Customer string }
				}
			}
			if err := json.Unmarshal(d.Body, &event); err != nil {
				return nil, fmt.Errorf("%w: %w", bridge.ErrRejected, err)
			}
			return []bridge.WebhookAction{{Touch: &bridge.WebhookTouch{Kind: "customer", ID: event.Data.Object.Customer}}}, nil
		},
	})
}

var _ = handleStripe
