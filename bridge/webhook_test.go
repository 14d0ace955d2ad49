package bridge_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/bridge"
	"github.com/chariot-giving/delta/delta"
)

// The example of GitHub's documentation: "Testing the webhook payload validation", in
// https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries.
const (
	githubSecret    = "It's a Secret to Everybody"
	githubBody      = "Hello, World!"
	githubSignature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
)

// hook is a webhook on a harness.
type hook struct {
	*harness
	client  *delta.Client
	handler http.Handler
	handled atomic.Int64
}

func newHook(t *testing.T, scheme bridge.WebhookScheme, handle func(d bridge.WebhookDelivery) ([]bridge.WebhookAction, error), secrets ...string) *hook {
	t.Helper()
	h := &hook{harness: newHarness(t)}
	var err error
	h.client, err = delta.NewClient(h.Pool, &delta.Config{Logger: h.Logger})
	require.NoError(t, err)
	h.handler, err = bridge.Webhook(bridge.WebhookConfig{
		Endpoint: "test", Client: h.client, Scheme: scheme, Secrets: secrets, MaxBody: 1000, Logger: h.Logger,
		Handle: func(_ context.Context, d bridge.WebhookDelivery) ([]bridge.WebhookAction, error) {
			h.handled.Add(1)
			return handle(d)
		},
	})
	require.NoError(t, err)
	return h
}

func (h *hook) call(method, body string, header map[string]string) (status int, says string) {
	r := httptest.NewRequest(method, "/", strings.NewReader(body))
	for name, value := range header {
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	h.handler.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

// signText computes HMAC-SHA256 in hexadecimal, independently of the tested code.
func signText(secret, text string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(text))
	return hex.EncodeToString(mac.Sum(nil))
}

func byGitHub(secret, id, body string) map[string]string {
	return map[string]string{"X-Hub-Signature-256": "sha256=" + signText(secret, body), "X-GitHub-Delivery": id}
}

// byStripe signs as https://docs.stripe.com/webhooks#verify-manually says.
func byStripe(secret string, at time.Time, body string) map[string]string {
	t := strconv.FormatInt(at.Unix(), 10)
	return map[string]string{"Stripe-Signature": "t=" + t + ",v1=" + signText(secret, t+"."+body) + ",v0=" + signText("another", t)}
}

// informOf is a Handle that informs the account in the body.
func informOf(d bridge.WebhookDelivery) ([]bridge.WebhookAction, error) {
	var a account
	if err := json.NewDecoder(bytes.NewReader(d.Body)).Decode(&a); err != nil {
		return nil, fmt.Errorf("%w: %w", bridge.ErrRejected, err)
	}
	return []bridge.WebhookAction{{Inform: a}}, nil
}

func (h *hook) countRows(sql string) (n int) {
	require.NoError(h.t, h.Pool.QueryRow(context.Background(), sql).Scan(&n))
	return n
}

func TestGitHubsOwnExampleIsTaken(t *testing.T) {
	t.Parallel()
	h := newHook(t, bridge.GitHub(), func(bridge.WebhookDelivery) ([]bridge.WebhookAction, error) { return nil, nil }, githubSecret)
	header := map[string]string{"X-Hub-Signature-256": githubSignature, "X-GitHub-Delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958"}
	status, says := h.call(http.MethodPost, githubBody, header)
	require.Equal(t, http.StatusOK, status, says)
	status, _ = h.call(http.MethodPost, githubBody+" ", header)
	require.Equal(t, http.StatusUnauthorized, status)
}

func TestADeliveryIsCommittedBeforeItIsAnsweredAndOnce(t *testing.T) {
	t.Parallel()
	h := newHook(t, bridge.GitHub(), informOf, "next", "former")
	body := `{"number": 1, "plan": "free"}`
	var calls sync.WaitGroup
	for range 8 {
		calls.Go(func() {
			status, says := h.call(http.MethodPost, body, byGitHub("former", "a", body))
			if status != http.StatusOK || h.countRows(`SELECT generation FROM delta_resource WHERE object_id = '1'`) != 1 {
				t.Errorf("%d %s", status, says)
			}
		})
	}
	calls.Wait()
	require.Equal(t, 1, h.countRows(`SELECT count(*) FROM delta_delivery`))
	newer := `{"number": 1, "plan": "paid"}`
	status, _ := h.call(http.MethodPost, newer, byGitHub("next", "b", newer))
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, 2, h.countRows(`SELECT generation FROM delta_resource WHERE object_id = '1'`))
	// If the first delivery is repeated, the newer object stays.
	status, _ = h.call(http.MethodPost, body, byGitHub("former", "a", body))
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, 2, h.countRows(`SELECT generation FROM delta_resource WHERE object_id = '1'`))
}

func TestStripesSignaturesAreOfATime(t *testing.T) {
	t.Parallel()
	h := newHook(t, bridge.Stripe(), func(d bridge.WebhookDelivery) ([]bridge.WebhookAction, error) {
		return []bridge.WebhookAction{{Inform: account{Number: 7, Plan: d.ID}}}, nil
	}, "whsec_next", "whsec_former")
	body := `{"id": "evt_1"}`
	for name, c := range map[string]struct {
		header map[string]string
		status int
	}{
		"by the former secret": {byStripe("whsec_former", time.Now(), body), http.StatusOK},
		"by another secret":    {byStripe("whsec_none", time.Now(), body), http.StatusUnauthorized},
		"too old":              {byStripe("whsec_next", time.Now().Add(-6*time.Minute), body), http.StatusBadRequest},
		"of the future":        {byStripe("whsec_next", time.Now().Add(6*time.Minute), body), http.StatusBadRequest},
		"without a time":       {map[string]string{"Stripe-Signature": "v1=" + signText("whsec_next", "."+body)}, http.StatusBadRequest},
		"of another version":   {map[string]string{"Stripe-Signature": "t=1,v0=" + signText("whsec_next", "1."+body)}, http.StatusBadRequest},
		"with another time": {map[string]string{"Stripe-Signature": strings.Replace(byStripe("whsec_next", time.Now().Add(-time.Hour), body)["Stripe-Signature"],
			strconv.FormatInt(time.Now().Add(-time.Hour).Unix(), 10), strconv.FormatInt(time.Now().Unix(), 10), 1)}, http.StatusUnauthorized},
	} {
		status, says := h.call(http.MethodPost, body, c.header)
		require.Equal(t, c.status, status, "%s: %s", name, says)
	}
	require.EqualValues(t, 1, h.handled.Load(), "what is not signed reaches no code of the user's")
	require.Equal(t, 1, h.countRows(`SELECT count(*) FROM delta_resource WHERE object ->> 'plan' = 'evt_1'`))
	noID := `{}`
	status, _ := h.call(http.MethodPost, noID, byStripe("whsec_next", time.Now(), noID))
	require.Equal(t, http.StatusBadRequest, status)
}

func TestWhatAWebhookDoesNotTakeIsNotRemembered(t *testing.T) {
	t.Parallel()
	fails := atomic.Bool{}
	h := newHook(t, bridge.GitHub(), func(d bridge.WebhookDelivery) ([]bridge.WebhookAction, error) {
		switch string(d.Body) {
		case "fails":
			if fails.Load() {
				return nil, errors.New("the upstream is away")
			}
			return nil, nil
		case "panics":
			panic("at the disco")
		case "nothing":
			return []bridge.WebhookAction{{}}, nil
		case "touches":
			return []bridge.WebhookAction{{Inform: account{Number: 8, Plan: "free"}}, {Touch: &bridge.WebhookTouch{Kind: "account", ID: "9"}}}, nil
		case "unnamed":
			return []bridge.WebhookAction{{Touch: &bridge.WebhookTouch{Kind: "account", ID: "\x00"}}}, nil
		}
		return nil, bridge.ErrRejected
	}, "secret")
	fails.Store(true)
	for body, want := range map[string]int{
		"fails": http.StatusInternalServerError, "panics": http.StatusInternalServerError, "nothing": http.StatusInternalServerError,
		"touches": http.StatusNotFound, "unnamed": http.StatusUnprocessableEntity, "other": http.StatusUnprocessableEntity,
		strings.Repeat("x", 1001): http.StatusRequestEntityTooLarge,
	} {
		status, says := h.call(http.MethodPost, body, byGitHub("secret", "id", body))
		require.Equal(t, want, status, "%.10s: %s", body, says)
		require.NotContains(t, says, "disco", "the sender is not told what is inside")
	}
	require.Zero(t, h.countRows(`SELECT count(*) FROM delta_delivery`))
	require.Zero(t, h.countRows(`SELECT count(*) FROM delta_resource`), "all of a delivery, or nothing")
	status, _ := h.call(http.MethodGet, "", nil)
	require.Equal(t, http.StatusMethodNotAllowed, status)
	status, _ = h.call(http.MethodPost, "fails", map[string]string{"X-Hub-Signature-256": "sha256=" + signText("secret", "fails")})
	require.Equal(t, http.StatusBadRequest, status, "without an id")

	fails.Store(false)
	status, _ = h.call(http.MethodPost, "fails", byGitHub("secret", "id", "fails"))
	require.Equal(t, http.StatusOK, status, "it is taken when it comes again")
	_, err := h.client.Inform(t.Context(), account{Number: 9, Plan: "free"}, nil)
	require.NoError(t, err)
	status, _ = h.call(http.MethodPost, "touches", byGitHub("secret", "another", "touches"))
	require.Equal(t, http.StatusOK, status)

	h.exec(`ALTER TABLE delta_delivery RENAME TO away`)
	status, _ = h.call(http.MethodPost, "fails", byGitHub("secret", "third", "fails"))
	require.Equal(t, http.StatusServiceUnavailable, status)
}

func TestAWebhookIsRefusedWhereItCannotBe(t *testing.T) {
	t.Parallel()
	client := newHook(t, bridge.GitHub(), informOf, "secret").client
	whole := bridge.WebhookConfig{
		Endpoint: "test", Client: client, Scheme: bridge.GitHub(), Secrets: []string{"secret"},
		Handle: func(context.Context, bridge.WebhookDelivery) ([]bridge.WebhookAction, error) { return nil, nil },
	}
	for field, change := range map[string]func(*bridge.WebhookConfig){
		"Endpoint":  func(c *bridge.WebhookConfig) { c.Endpoint = "" },
		"Client":    func(c *bridge.WebhookConfig) { c.Client = nil },
		"Scheme":    func(c *bridge.WebhookConfig) { c.Scheme = nil },
		"Secrets":   func(c *bridge.WebhookConfig) { c.Secrets = []string{"secret", ""} },
		"Handle":    func(c *bridge.WebhookConfig) { c.Handle = nil },
		"MaxBody":   func(c *bridge.WebhookConfig) { c.MaxBody = -1 },
		"Tolerance": func(c *bridge.WebhookConfig) { c.Tolerance = -1 },
		"Remember":  func(c *bridge.WebhookConfig) { c.Remember = -1 },
	} {
		config := whole
		change(&config)
		_, err := bridge.Webhook(config)
		wrong := new(bridge.ConfigError)
		require.ErrorAs(t, err, &wrong, field)
		require.Equal(t, field, wrong.Field)
	}
	_, err := bridge.Webhook(whole)
	require.NoError(t, err)
}
