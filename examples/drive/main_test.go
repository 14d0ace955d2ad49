package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// provider is the external system. It fails the first call for each subscription, and refuses plans that it does not know.
type provider struct {
	mu            sync.Mutex
	subscriptions map[string]subscription
	called        map[string]bool
}

func (p *provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	id := path.Base(r.URL.Path)
	var s subscription
	switch {
	case !p.called[id]:
		p.called[id] = true
		w.WriteHeader(http.StatusBadGateway)
	case r.Header.Get("Idempotency-Key") == "":
		w.WriteHeader(http.StatusBadRequest)
	case r.Method == http.MethodDelete:
		delete(p.subscriptions, id)
	case json.NewDecoder(r.Body).Decode(&s) != nil || s.Plan == "unknown":
		w.WriteHeader(http.StatusUnprocessableEntity)
	default:
		p.subscriptions[id] = s
	}
}

func (p *provider) has(id string) (s subscription, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, ok = p.subscriptions[id]
	return s, ok
}

func TestTheProviderIsTrueToTheTable(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	env := deltatest.New(t)
	_, err := env.Pool.Exec(t.Context(), schema)
	require.NoError(t, err)
	outside := &provider{subscriptions: map[string]subscription{}, called: map[string]bool{}}
	server := httptest.NewServer(outside)
	t.Cleanup(server.Close)
	controllers := delta.NewControllers()
	delta.AddController(controllers, &driver{pool: env.Pool, provider: server.URL})
	client, err := delta.NewClient(env.Pool, &delta.Config{Controllers: controllers, Temporal: env.Temporal, WorkflowIDPrefix: env.Prefix})
	require.NoError(t, err)
	require.NoError(t, client.Start(context.Background()))
	t.Cleanup(func() { _ = client.Stop(context.Background()) })
	eventually := func(is func() bool) {
		t.Helper()
		require.Eventually(t, is, 3*time.Minute, 20*time.Millisecond)
	}

	first, err := saveSubscription(t.Context(), client, env.Pool, subscription{Plan: "team", Seats: 5})
	require.NoError(t, err)
	eventually(func() bool { s, _ := outside.has(first.Ref); return s == first })
	first.Seats = 7
	first, err = saveSubscription(t.Context(), client, env.Pool, first)
	require.NoError(t, err)
	eventually(func() bool { s, _ := outside.has(first.Ref); return s == first })

	refused, err := saveSubscription(t.Context(), client, env.Pool, subscription{Plan: "unknown", Seats: 1})
	require.NoError(t, err)
	eventually(func() bool {
		row, err := client.Get(t.Context(), "subscription", refused.Ref)
		return err == nil && row.State == deltatype.ResourceStateDegraded
	})

	// A rolled back transaction does not reach the provider.
	err = pgx.BeginFunc(t.Context(), env.Pool, func(tx pgx.Tx) error {
		_, err := client.InformTx(t.Context(), tx, subscription{Ref: "4f6a5a5e-0000-4000-8000-000000000000", Plan: "team"}, nil)
		require.NoError(t, err)
		return context.Canceled
	})
	require.ErrorIs(t, err, context.Canceled)
	_, err = client.Get(t.Context(), "subscription", "4f6a5a5e-0000-4000-8000-000000000000")
	require.ErrorIs(t, err, delta.ErrNotFound)

	require.NoError(t, cancelSubscription(t.Context(), client, env.Pool, first.Ref))
	eventually(func() bool { _, ok := outside.has(first.Ref); return !ok })
}
