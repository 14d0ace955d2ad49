package webhook

import (
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/sinks"
)

// The example of the specification: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md.
func TestSignaturesAreThoseOfStandardWebhooks(t *testing.T) {
	t.Parallel()
	made, err := New(Config{URL: "http://localhost", Secrets: []string{"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}})
	require.NoError(t, err)
	require.Equal(t, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
		signMessage(made.(*sink).keys[0], "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", []byte(`{"test": 2432232314}`)))
}

func TestMessagesArePostedAndAnswersAreRead(t *testing.T) {
	t.Parallel()
	var inFlight, most atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := inFlight.Add(1)
		defer inFlight.Add(-1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		body, _ := io.ReadAll(r.Body)
		if len(r.Header.Values(headerSignature)) != 1 || len(strings.Fields(r.Header.Get(headerSignature))) != 2 ||
			!strings.Contains(r.Header.Get(headerSignature), signMessage([]byte("new"), r.Header.Get(headerID), r.Header.Get(headerTimestamp), body)) {
			http.Error(w, "signature", http.StatusUnauthorized)
			return
		}
		switch string(body) {
		case "bad":
			http.Error(w, "no such field\n", http.StatusBadRequest)
		case "moved":
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
		case "busy":
			w.Header().Set("Retry-After", "70")
			w.WriteHeader(http.StatusTooManyRequests)
		case "broken":
			panic(http.ErrAbortHandler)
		default:
			w.Header().Set("X", r.Header.Get(headerKey)+r.Header.Get("Authorization")+r.Header.Get("Content-Type"))
		}
	}))
	t.Cleanup(server.Close)
	made, err := New(Config{
		URL: server.URL + "/secret", Secrets: []string{"old", "new"}, Headers: http.Header{"authorization": {"Bearer x"}}, Concurrency: 2,
	})
	require.NoError(t, err)
	errs := made.Deliver(t.Context(), []sinks.Message{
		{ID: "1/ü\n", Key: "k", Body: []byte("fine")},
		{ID: "2", Body: []byte("bad")},
		{ID: "3", Body: []byte("moved")},
		{ID: "4", Body: []byte("busy")},
		{ID: "5", Body: []byte("broken")},
		{ID: "6"},
	})
	require.NoError(t, errs[0])
	require.ErrorContains(t, errs[1], "answered 400 Bad Request")
	require.True(t, sinks.IsPermanent(errs[1]))
	require.ErrorContains(t, errs[2], "302")
	require.ErrorContains(t, errs[3], "429")
	require.ErrorContains(t, errs[4], "EOF")
	require.NotContains(t, errs[1].Error()+errs[4].Error(), "/secret")
	require.NotContains(t, errs[1].Error(), "no such field")
	require.NoError(t, errs[5])
	for _, err := range errs[2:5] {
		require.False(t, sinks.IsPermanent(err))
	}
	require.LessOrEqual(t, most.Load(), int32(2))
}

// A receiver whose certificate cannot be verified gets no message.
func TestAReceiverIsVerified(t *testing.T) {
	t.Parallel()
	var requests atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests.Add(1) }))
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // it logs the handshake that failed
	server.StartTLS()
	t.Cleanup(server.Close)
	made, err := New(Config{URL: server.URL + "/secret"})
	require.NoError(t, err)
	errs := made.Deliver(t.Context(), []sinks.Message{{ID: "1"}})
	require.ErrorContains(t, errs[0], "certificate signed by unknown authority")
	require.NotContains(t, errs[0].Error(), "secret")
	require.False(t, sinks.IsPermanent(errs[0]))
	require.Zero(t, requests.Load())

	made, err = New(Config{URL: server.URL, Client: server.Client()})
	require.NoError(t, err)
	require.NoError(t, made.Deliver(t.Context(), []sinks.Message{{ID: "1"}})[0])
	require.EqualValues(t, 1, requests.Load())
}

// If the receiver is slow, messages that there is no time for are not tried.
func TestMessagesWithoutTimeLeftAreNotTried(t *testing.T) {
	t.Parallel()
	var requests atomic.Int32
	ctx, cancel := context.WithCancel(t.Context())
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		_, _ = io.ReadAll(r.Body) // so that the server notices that the client is gone
		cancel()
		<-r.Context().Done()
	}))
	t.Cleanup(server.Close)
	made, err := New(Config{URL: server.URL, Concurrency: 1})
	require.NoError(t, err)
	errs := made.Deliver(ctx, make([]sinks.Message, 5))
	require.ErrorIs(t, errs[0], context.Canceled)
	for _, err := range errs[1:] {
		require.ErrorIs(t, err, sinks.ErrNotTried)
	}
	require.EqualValues(t, 1, requests.Load())
}

func TestRetryAfterIsReadInBothForms(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	for value, delay := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "-7": 0, "soon": 0, "999999999": time.Hour,
		"Sat, 28 Nov 2026 12:00:09 GMT": 9 * time.Second, "Fri, 27 Nov 2026 12:00:09 GMT": 0,
	} {
		require.Equal(t, delay, parseRetryAfter(value, now), value)
	}
}

func TestABadConfigurationNamesItsField(t *testing.T) {
	t.Parallel()
	for field, config := range map[string]Config{
		"URL":         {URL: "example.com"},
		"Secrets[1]":  {URL: "http://localhost", Secrets: []string{"fine", "whsec_!"}},
		"Concurrency": {URL: "http://localhost", Concurrency: -1},
	} {
		_, err := New(config)
		var invalid *sinks.InvalidError
		require.ErrorAs(t, err, &invalid)
		require.Equal(t, field, invalid.Field)
		require.NotContains(t, err.Error(), "whsec_!")
	}
}
