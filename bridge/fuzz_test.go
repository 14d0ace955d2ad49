package bridge

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"testing"
)

// Anybody can call a webhook. No signature is right but one that was made with the secret.
func FuzzWebhookSignature(f *testing.F) {
	const zeros = "0000000000000000000000000000000000000000000000000000000000000000"
	f.Add("sha256="+zeros, "t=1,v1="+zeros, []byte(`{"id":"evt_1"}`))
	f.Add("sha256=", "t=,v1=,t=-1,v0=x", []byte(`{"id":1}`))
	f.Add("v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= v2,x", "-1", []byte("x"))
	f.Add("", "t=9223372036854775807, v1="+zeros+",v1="+zeros, []byte(`[`))
	f.Fuzz(func(t *testing.T, hub, event string, body []byte) {
		header := http.Header{
			"X-Hub-Signature-256": {hub}, "Stripe-Signature": {event}, "X-Github-Delivery": {hub},
			"Webhook-Signature": {hub}, "Webhook-Timestamp": {event}, "Webhook-Id": {hub},
		}
		for _, scheme := range []WebhookScheme{GitHub(), Stripe(), StandardWebhooks()} {
			signature, err := scheme.Parse(header)
			if err == nil {
				if len(signature.Sums) == 0 || len(signature.Sums) > maxSums {
					t.Fatalf("%q %q: %d signatures", hub, event, len(signature.Sums))
				}
				if signature.IsBy("a secret that no input knows", body) {
					t.Fatalf("%q %q: it is by the secret", hub, event)
				}
				mac := hmac.New(sha256.New, []byte("secret"))
				mac.Write([]byte(signature.Prefix))
				mac.Write(body)
				sum, err := parseSum(hex.EncodeToString(mac.Sum(nil)))
				if signature.Sums = append(signature.Sums, sum); err != nil || !signature.IsBy("secret", body) {
					t.Fatalf("%q %q: it is not by its secret: %v", hub, event, err)
				}
			}
			if id, err := scheme.ID(header, body); err == nil && id == "" {
				t.Fatalf("%q: no id", body)
			}
		}
	})
}
