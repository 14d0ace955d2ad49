// Package webhook delivers messages by HTTP, each as one signed POST.
//
// Requests follow the Standard Webhooks specification, https://github.com/standard-webhooks/standard-webhooks: webhook-id is the message's
// id, by which a receiver recognizes a message that comes again; webhook-timestamp is when the request was made; and webhook-signature has,
// for each secret, an HMAC-SHA256 of both and the body. Any answer from 200 to 299 accepts the message.
package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/chariot-giving/delta/sinks"
)

// Config configures [New]. URL is required.
type Config struct {
	// URL is the address to post messages to.
	URL string
	// Secrets sign each request, each with its own signature. To rotate, add the new secret, change the receiver, and remove the old
	// secret. A secret with the prefix whsec_ is base64, as in Standard Webhooks; any other is used literally. Default: requests are not
	// signed.
	Secrets []string
	// Headers are added to each request, such as Authorization.
	Headers http.Header
	// Concurrency is how many requests of one call of Deliver run at once. Default: 10.
	Concurrency int
	// Client makes the requests. It should have no Timeout, because [sinks.Config.DeliveryTimeout] limits all requests of a call. Default:
	// a client that follows no redirects, because a redirected POST would lose its body.
	Client *http.Client
}

const (
	headerID        = "Webhook-Id"
	headerTimestamp = "Webhook-Timestamp"
	headerSignature = "Webhook-Signature"
	headerType      = "Delta-Type"
	headerKey       = "Delta-Key"
	headerSubject   = "Delta-Subject"
)

// secretPrefix marks a base64 secret of Standard Webhooks.
const secretPrefix = "whsec_"

// longestAnswer limits how much of an answer is read, in bytes.
const longestAnswer = 4 << 10

// New returns a sink, or an [*sinks.InvalidError].
func New(config Config) (sinks.Sink, error) {
	s := &sink{config: config, now: time.Now}
	if u, err := url.Parse(config.URL); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, &sinks.InvalidError{Field: "URL", Value: "hidden", Rule: "must be an address with http or https and a host"}
	}
	for i, secret := range config.Secrets {
		key, err := decodeSecret(secret)
		if err != nil || len(key) == 0 {
			return nil, &sinks.InvalidError{
				Field: fmt.Sprintf("Secrets[%d]", i), Value: "hidden", Rule: "must not be empty, and base64 behind the prefix " + secretPrefix,
			}
		}
		s.keys = append(s.keys, key)
	}
	if config.Concurrency < 0 {
		return nil, &sinks.InvalidError{Field: "Concurrency", Value: strconv.Itoa(config.Concurrency), Rule: "must be positive"}
	}
	if s.config.Concurrency == 0 {
		s.config.Concurrency = 10
	}
	if s.config.Client == nil {
		s.config.Client = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	return s, nil
}

func decodeSecret(secret string) ([]byte, error) {
	encoded, found := strings.CutPrefix(secret, secretPrefix)
	if !found {
		return []byte(secret), nil
	}
	return base64.StdEncoding.DecodeString(encoded)
}

type sink struct {
	config Config
	keys   [][]byte
	now    func() time.Time
}

func (s *sink) Deliver(ctx context.Context, messages []sinks.Message) []error {
	errs := make([]error, len(messages))
	free := make(chan struct{}, s.config.Concurrency)
	var all sync.WaitGroup
	for i, m := range messages {
		select {
		case free <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			errs[i] = sinks.ErrNotTried
			continue
		}
		all.Go(func() {
			defer func() { <-free }()
			errs[i] = s.postMessage(ctx, m)
		})
	}
	all.Wait()
	return errs
}

func (s *sink) postMessage(ctx context.Context, m sinks.Message) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.config.URL, bytes.NewReader(m.Body))
	if err != nil {
		return err
	}
	s.addHeaders(request, m)
	answer, err := s.config.Client.Do(request)
	if err != nil {
		return withoutURL(request, err)
	}
	defer func() { _ = answer.Body.Close() }()
	_, _ = io.CopyN(io.Discard, answer.Body, longestAnswer) // so that the connection can be used again
	if answer.StatusCode/100 == 2 {
		return nil
	}
	return explainAnswer(answer, s.now())
}

func (s *sink) addHeaders(request *http.Request, m sinks.Message) {
	for name, values := range s.config.Headers {
		request.Header[http.CanonicalHeaderKey(name)] = values
	}
	setDefaultHeader(request.Header, "Content-Type", "application/json")
	for name, value := range map[string]string{headerType: m.Type, headerKey: m.Key, headerSubject: m.Subject} {
		if value != "" {
			request.Header.Set(name, escapeHeader(value))
		}
	}
	id, timestamp := escapeHeader(m.ID), strconv.FormatInt(s.now().Unix(), 10)
	request.Header.Set(headerID, id)
	request.Header.Set(headerTimestamp, timestamp)
	var signatures []string
	for _, key := range s.keys {
		signatures = append(signatures, signMessage(key, id, timestamp, m.Body))
	}
	if signatures != nil {
		request.Header.Set(headerSignature, strings.Join(signatures, " "))
	}
}

func setDefaultHeader(header http.Header, name, value string) {
	if header.Get(name) == "" {
		header.Set(name, value)
	}
}

// escapeHeader makes any text one line of ASCII, as a header requires.
func escapeHeader(text string) string { return strings.ReplaceAll(url.PathEscape(text), "%2F", "/") }

// signMessage returns the signature of version 1 of Standard Webhooks.
func signMessage(key []byte, id, timestamp string, body []byte) string {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id + "." + timestamp + "."))
	mac.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// withoutURL names the host only, because addresses of webhooks often have secrets in their paths.
func withoutURL(request *http.Request, err error) error {
	var failed *url.Error
	if errors.As(err, &failed) {
		err = failed.Err
	}
	return fmt.Errorf("posting to %s: %w", request.URL.Host, err)
}

// explainAnswer returns the error for an answer, without its body, which may repeat that of the message. Only an answer that the message
// itself is wrong is permanent. A receiver that does not know the address or the authorization may be fixed, so the message is tried again.
func explainAnswer(answer *http.Response, now time.Time) error {
	err := fmt.Errorf("the receiver answered %s", answer.Status)
	switch answer.StatusCode {
	case http.StatusBadRequest, http.StatusGone, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity:
		return sinks.Permanent(err)
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return sinks.RetryAfter(err, parseRetryAfter(answer.Header.Get("Retry-After"), now))
	}
	return err
}

// parseRetryAfter reads seconds or a date, see https://www.rfc-editor.org/rfc/rfc9110#field.retry-after, up to an hour.
func parseRetryAfter(value string, now time.Time) time.Duration {
	delay := time.Duration(0)
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		delay = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(value); err == nil {
		delay = at.Sub(now)
	}
	return min(max(delay, 0), time.Hour)
}
