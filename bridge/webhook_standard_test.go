package bridge_test

import (
	"context"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/bridge"
	"github.com/chariot-giving/delta/sinks"
	sink "github.com/chariot-giving/delta/sinks/webhook"
)

// The example of https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md.
func TestTheExampleOfStandardWebhooksIsRight(t *testing.T) {
	t.Parallel()
	scheme := bridge.StandardWebhooks()
	key, err := scheme.(bridge.WebhookSecretDecoder).DecodeSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	require.NoError(t, err)
	header := http.Header{
		"Webhook-Id": {"msg_p5jXN8AQM9LWM0D4loKWxJek"}, "Webhook-Timestamp": {"1614265330"},
		"Webhook-Signature": {"v1a,AAAA v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="},
	}
	signed, err := scheme.Parse(header)
	require.NoError(t, err)
	require.Equal(t, time.Unix(1614265330, 0), signed.At)
	require.True(t, signed.IsBy(key, []byte(`{"test": 2432232314}`)))
	require.False(t, signed.IsBy(key, []byte(`{"test": 2432232315}`)))
	for name, value := range map[string]string{"Webhook-Id": "other", "Webhook-Timestamp": "1614265331"} {
		changed := header.Clone()
		changed.Set(name, value)
		signed, err := scheme.Parse(changed)
		require.NoError(t, err)
		require.False(t, signed.IsBy(key, []byte(`{"test": 2432232314}`)), "%s is signed, too", name)
	}
	for name, value := range map[string]string{"Webhook-Id": "", "Webhook-Timestamp": "soon", "Webhook-Signature": "v1,AAAA"} {
		changed := header.Clone()
		changed.Set(name, value)
		_, err := scheme.Parse(changed)
		require.Error(t, err, name)
	}
}

// One installation accepts the deliveries of another one's sink, also while the secret is rotated on either side.
func TestStandardWebhooksTakesWhatASinkSends(t *testing.T) {
	t.Parallel()
	former, next := "whsec_"+base64.StdEncoding.EncodeToString([]byte("the former secret")), "a secret that is not encoded"
	h := newHook(t, bridge.StandardWebhooks(), informOf, next, former)
	server := httptest.NewServer(h.handler)
	t.Cleanup(server.Close)
	send := func(secrets []string, messages ...sinks.Message) []error {
		made, err := sink.New(sink.Config{URL: server.URL, Secrets: secrets})
		require.NoError(t, err)
		return made.Deliver(t.Context(), messages)
	}
	plan := func(number int) string {
		return "SELECT generation FROM delta_resource WHERE object_id = '" + strconv.Itoa(number) + "'"
	}
	first := sinks.Message{ID: "changes/1,7 \u00fc", Body: []byte(`{"number": 1, "plan": "free"}`)}
	newer := sinks.Message{ID: "changes/2", Body: []byte(`{"number": 1, "plan": "paid"}`)}
	require.Equal(t, []error{nil}, send([]string{former}, first))
	require.Equal(t, []error{nil}, send([]string{"another", next}, newer))
	require.Equal(t, 2, h.countRows(plan(1)))
	require.Equal(t, []error{nil}, send([]string{former, next}, first), "one that comes again is taken, and does nothing")
	require.Equal(t, 2, h.countRows(plan(1)))
	require.Equal(t, 2, h.countRows(`SELECT count(*) FROM delta_delivery`))
	require.ErrorContains(t, send([]string{"another"}, sinks.Message{ID: "3", Body: newer.Body})[0], "401")
	require.ErrorContains(t, send(nil, sinks.Message{ID: "3", Body: newer.Body})[0], "400")

	_, err := bridge.Webhook(bridge.WebhookConfig{
		Endpoint: "test", Client: h.client, Scheme: bridge.StandardWebhooks(), Secrets: []string{"whsec_?secret?"},
		Handle: func(context.Context, bridge.WebhookDelivery) ([]bridge.WebhookAction, error) { return nil, nil },
	})
	require.ErrorContains(t, err, "must be base64 behind whsec_")
	require.NotContains(t, err.Error(), "?secret?")
}
