package main

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/internal/soak"
)

// provider is the external system, which the test changes. It lists two customers a page.
type provider struct {
	mu        sync.Mutex
	customers map[string]details
	// brokenFrom is the first page that fails; empty for none.
	brokenFrom string
}

func (p *provider) put(all ...details) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range all {
		p.customers[d.ID] = d
	}
}

func (p *provider) remove(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.customers, id)
}

func (p *provider) breakFrom(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.brokenFrom = id
}

func (p *provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if id, ok := strings.CutPrefix(r.URL.Path, "/customers/"); ok {
		found, ok := p.customers[id]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_ = json.NewEncoder(w).Encode(found)
		return
	}
	after := r.URL.Query().Get("after")
	if p.brokenFrom != "" && after >= p.brokenFrom {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	var page struct {
		Customers []customer `json:"customers"`
		Next      string     `json:"next"`
	}
	for _, id := range slices.Sorted(maps.Keys(p.customers)) {
		if id <= after {
			continue
		}
		if len(page.Customers) == 2 {
			page.Next = "/customers?after=" + page.Customers[1].Ref
			break
		}
		page.Customers = append(page.Customers, customer{Ref: id, Version: p.customers[id].Revision})
	}
	_ = json.NewEncoder(w).Encode(page)
}

func TestTheTableIsTrueToTheProvider(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	env := deltatest.New(t)
	_, err := env.Pool.Exec(t.Context(), schema)
	require.NoError(t, err)
	outside := &provider{customers: map[string]details{}}
	server := httptest.NewServer(outside)
	t.Cleanup(server.Close)
	outside.put(
		details{"cus_1", "ann@example.com", "free", 1}, details{"cus_2", "bob@example.com", "free", 1}, details{"cus_3", "eve@example.com", "paid", 1},
	)
	controllers := delta.NewControllers()
	delta.AddController(controllers, &mirror{pool: env.Pool, provider: server.URL})
	client, err := delta.NewClient(env.Pool, &delta.Config{Controllers: controllers, Temporal: env.Temporal, WorkflowIDPrefix: env.Prefix})
	require.NoError(t, err)
	require.NoError(t, client.Start(context.Background()))
	t.Cleanup(func() { _ = client.Stop(context.Background()) })
	list := func() error {
		_, err := client.RunInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "customer"}, nil)
		return err
	}
	becomes := func(want map[string]string) {
		t.Helper()
		require.EventuallyWithT(t, func(c *assert.CollectT) {
			got := map[string]string{}
			rows, err := env.Pool.Query(context.Background(), "SELECT id, plan FROM customer")
			if assert.NoError(c, err) {
				var id, plan string
				_, err = pgx.ForEachRow(rows, []any{&id, &plan}, func() error { got[id] = plan; return nil })
				assert.NoError(c, err)
				assert.Equal(c, want, got)
			}
		}, 3*time.Minute, 20*time.Millisecond)
	}

	require.NoError(t, list())
	becomes(map[string]string{"cus_1": "free", "cus_2": "free", "cus_3": "paid"})

	outside.put(details{"cus_1", "ann@example.com", "paid", 2}, details{"cus_4", "zoe@example.com", "free", 1})
	outside.remove("cus_3")
	require.NoError(t, list())
	becomes(map[string]string{"cus_1": "paid", "cus_2": "free", "cus_4": "free"})

	// A listing that fails after its first page deletes no customer.
	outside.breakFrom("cus_2")
	require.Error(t, list())
	var deleted []string
	err = env.Pool.QueryRow(t.Context(), "SELECT array_agg(object_id) FROM delta_resource WHERE state = 'deleted'").Scan(&deleted)
	require.NoError(t, err)
	require.Equal(t, []string{"cus_3"}, deleted, "what the second page would have named is not gone")
	becomes(map[string]string{"cus_1": "paid", "cus_2": "free", "cus_4": "free"})
	outside.breakFrom("")
	outside.put(details{"cus_2", "bob@example.com", "paid", 2})
	require.NoError(t, list())
	becomes(map[string]string{"cus_1": "paid", "cus_2": "paid", "cus_4": "free"})
}
