package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/internal/soak"
)

// provider has a number of customers, created a day apart, and lists two a page.
type provider struct {
	count atomic.Int64
	down  atomic.Bool
	mu    sync.Mutex
	since []int64
}

var firstCreated = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func created(n int) int64 { return firstCreated.AddDate(0, 0, n).Unix() }

func (p *provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	since, err := strconv.ParseInt(query.Get("created[gt]"), 10, 64)
	after := query.Get("starting_after")
	if err != nil || r.Header.Get("Authorization") != "Bearer secret" || (p.down.Load() && after != "") {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	if after == "" {
		p.mu.Lock()
		p.since = append(p.since, since)
		p.mu.Unlock()
	}
	type customer struct {
		ID      string `json:"id"`
		Plan    string `json:"plan"`
		Created int64  `json:"created"`
	}
	var answer struct {
		More bool       `json:"has_more"`
		Data []customer `json:"data"`
	}
	for n := range int(p.count.Load()) {
		id := fmt.Sprintf("cus_%d", n)
		if created(n) <= since || id <= after {
			continue
		}
		if answer.More = len(answer.Data) == 2; answer.More {
			break
		}
		answer.Data = append(answer.Data, customer{ID: id, Plan: "free", Created: created(n)})
	}
	_ = json.NewEncoder(w).Encode(answer)
}

// asked has the times of creation after which passes have requested customers.
func (p *provider) asked() []int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]int64{}, p.since...)
}

func TestThePortListsWhatIsNew(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	env := deltatest.New(t)
	outside := &provider{}
	outside.count.Store(3)
	server := httptest.NewServer(outside)
	t.Cleanup(server.Close)
	worked := make(chan string, 100)
	config := newConfig(&customerController{provider: server.URL, key: "secret", worked: func(r *delta.Resource[Customer]) {
		worked <- r.Object.CustomerID
	}})
	config.Temporal, config.TemporalNamespace, config.WorkflowIDPrefix = env.Temporal, env.TemporalNamespace, env.Prefix
	config.Kinds = map[string]delta.ObjectSettings{"customer": {InformInterval: -1}} // the test starts each pass
	client, err := delta.NewClient(env.Pool, config)
	require.NoError(t, err)
	require.NoError(t, client.Start(context.Background()))
	t.Cleanup(func() { _ = client.Stop(context.Background()) })
	pass := func() error {
		_, err := client.RunInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "customer", RunForeground: true}, nil)
		return err
	}

	// The first pass has no cursor: it gets a time in 1970, as in Delta on River, because the program needs a time.
	require.NoError(t, pass())
	require.ElementsMatch(t, []string{"cus_0", "cus_1", "cus_2"}, []string{<-worked, <-worked, <-worked})

	// A failed listing is not a complete pass, so the next pass requests the same customers.
	outside.count.Store(7)
	outside.down.Store(true)
	require.Error(t, pass())
	outside.down.Store(false)
	require.NoError(t, pass())
	require.NoError(t, pass())
	overlap := int64((5 * time.Minute).Seconds())
	asked := outside.asked()
	require.Zero(t, asked[0])
	require.Equal(t, created(2)-overlap, asked[1])
	require.Equal(t, created(2)-overlap, asked[len(asked)-2])
	require.Equal(t, created(6)-overlap, asked[len(asked)-1])
	again := map[string]int{}
	for len(worked) > 0 {
		again[<-worked]++
	}
	require.Equal(t, map[string]int{"cus_3": 1, "cus_4": 1, "cus_5": 1, "cus_6": 1}, again, "what did not change is left alone")

	row, err := client.Invalidate(t.Context(), Customer{CustomerID: "cus_0"})
	require.NoError(t, err)
	require.Equal(t, []string{"billing"}, row.Tags)
	require.Equal(t, "stripe", row.Namespace)
	require.Equal(t, "cus_0", <-worked)
}
