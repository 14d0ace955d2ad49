package bridge

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// WebhookScheme is how a sender signs calls, and names deliveries.
type WebhookScheme interface {
	// Parse reads the signature of a call.
	Parse(header http.Header) (WebhookSignature, error)
	// ID is the sender's id of the delivery. It is asked for once the signature is known to be right.
	ID(header http.Header, body []byte) (string, error)
}

// WebhookSignature is the signature of a call: HMAC-SHA256 of a prefix and the body.
type WebhookSignature struct {
	// Sums are the signatures: one, or several while the sender rotates its secret.
	Sums [][]byte
	// Prefix is signed together with the body, before it.
	Prefix string
	// At is when it was signed; the zero time where the scheme does not say.
	At time.Time
}

// IsBy reports whether a secret, as it signs, has made one of the signatures. It takes as long whichever differs.
func (s WebhookSignature) IsBy(secret string, body []byte) bool {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(s.Prefix))
	mac.Write(body)
	sum, is := mac.Sum(nil), false
	for _, given := range s.Sums {
		is = hmac.Equal(given, sum) || is
	}
	return is
}

// parseSum reads a hexadecimal HMAC-SHA256.
func parseSum(text string) ([]byte, error) {
	sum, err := hex.DecodeString(text)
	if err != nil || len(sum) != sha256.Size {
		return nil, fmt.Errorf("a signature must be %d hexadecimal digits", 2*sha256.Size)
	}
	return sum, nil
}

// GitHub is the scheme of GitHub: the header X-Hub-Signature-256 is HMAC-SHA256 of the body, and X-GitHub-Delivery the id of the delivery. Neither the time nor the
// id is signed. So anybody with a copy of a call can replay it under another id without being noticed. Therefore touch the object, so that Work reads it from its source, or inform
// objects with a revision, because an older revision changes nothing.
//
// See https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries, which has the example that it is tested with.
func GitHub() WebhookScheme { return github{} }

type github struct{}

func (github) Parse(header http.Header) (WebhookSignature, error) {
	text, found := strings.CutPrefix(header.Get("X-Hub-Signature-256"), "sha256=")
	if !found {
		return WebhookSignature{}, errors.New("the header X-Hub-Signature-256 must begin with sha256=")
	}
	sum, err := parseSum(text)
	return WebhookSignature{Sums: [][]byte{sum}}, err
}

func (github) ID(header http.Header, _ []byte) (string, error) {
	id := header.Get("X-GitHub-Delivery")
	if id == "" {
		return "", errors.New("the header X-GitHub-Delivery is missing")
	}
	return id, nil
}

// maxSums bounds how many signatures of a call are looked at.
const maxSums = 16

// Stripe is the scheme of Stripe: the header Stripe-Signature is t=TIME,v1=SIGNATURE, with HMAC-SHA256 of the time, a full stop and the body, once for each
// secret of the endpoint. The id of the delivery is that of the event, in the body. Signatures of other versions than v1 are passed over.
//
// See https://docs.stripe.com/webhooks#verify-manually.
func Stripe() WebhookScheme { return stripe{} }

type stripe struct{}

func (stripe) Parse(header http.Header) (signed WebhookSignature, err error) {
	at := ""
	for part := range strings.SplitSeq(header.Get("Stripe-Signature"), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch name {
		case "t":
			at = value
		case "v1":
			sum, err := parseSum(value)
			if err != nil {
				return signed, err
			}
			if signed.Sums = append(signed.Sums, sum); len(signed.Sums) > maxSums {
				return signed, fmt.Errorf("the header Stripe-Signature has more than %d signatures", maxSums)
			}
		}
	}
	seconds, err := strconv.ParseInt(at, 10, 64)
	if err != nil || len(signed.Sums) == 0 {
		return signed, errors.New("the header Stripe-Signature must be t=TIME,v1=SIGNATURE")
	}
	signed.At, signed.Prefix = time.Unix(seconds, 0), at+"."
	return signed, nil
}

func (stripe) ID(_ http.Header, body []byte) (string, error) {
	var event struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(body, &event); err != nil {
		return "", fmt.Errorf("the body must be the JSON of an event: %w", err)
	}
	if event.ID == "" {
		return "", errors.New("the event has no id")
	}
	return event.ID, nil
}
