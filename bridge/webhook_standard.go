package bridge

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// WebhookSecretDecoder is a [WebhookScheme] by which a secret is written otherwise than as the bytes that sign.
type WebhookSecretDecoder interface {
	// DecodeSecret returns the bytes of a secret that sign. An error refuses the configuration.
	DecodeSecret(secret string) (string, error)
}

// StandardWebhooks is the scheme of Standard Webhooks, by which many senders sign, and sinks/webhook of this module: the header webhook-signature has one or several
// v1,SIGNATURE in base64, of HMAC-SHA256 of the headers webhook-id and webhook-timestamp and the body. Both headers are signed. A secret that begins with whsec_ is
// base64; any other is taken as it is. Signatures of other versions than v1 are passed over.
//
// See https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md, which has the example that it is tested with.
func StandardWebhooks() WebhookScheme { return standardWebhooks{} }

type standardWebhooks struct{}

func (standardWebhooks) DecodeSecret(secret string) (string, error) {
	encoded, isEncoded := strings.CutPrefix(secret, "whsec_")
	if !isEncoded {
		return secret, nil
	}
	decoded, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(decoded) == 0 {
		return "", errors.New("must be base64 behind whsec_") // without the secret
	}
	return string(decoded), nil
}

func (s standardWebhooks) Parse(header http.Header) (signed WebhookSignature, err error) {
	for part := range strings.FieldsSeq(header.Get("Webhook-Signature")) {
		text, isFirst := strings.CutPrefix(part, "v1,")
		if !isFirst {
			continue
		}
		sum, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(sum) != sha256.Size {
			return signed, fmt.Errorf("a signature must be the base64 of %d bytes", sha256.Size)
		}
		if signed.Sums = append(signed.Sums, sum); len(signed.Sums) > maxSums {
			return signed, fmt.Errorf("the header Webhook-Signature has more than %d signatures", maxSums)
		}
	}
	at := header.Get("Webhook-Timestamp")
	seconds, err := strconv.ParseInt(at, 10, 64)
	if err != nil || len(signed.Sums) == 0 {
		return signed, errors.New("the header Webhook-Timestamp must be a Unix time, and Webhook-Signature v1,SIGNATURE")
	}
	id, err := s.ID(header, nil)
	signed.At, signed.Prefix = time.Unix(seconds, 0), id+"."+at+"."
	return signed, err
}

func (standardWebhooks) ID(header http.Header, _ []byte) (string, error) {
	id := header.Get("Webhook-Id")
	if id == "" {
		return "", errors.New("the header Webhook-Id is missing")
	}
	return id, nil
}
