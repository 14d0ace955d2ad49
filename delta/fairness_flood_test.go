package delta_test

import (
	"context"
	"crypto/rand"
	mathrand "math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// Rows of a full namespace that no lease has bounded, because more of them than a worker has slots become due by timers of their own, or come with one batch,
// keep no other namespace waiting.
func TestAFloodOfAFullNamespaceKeepsNoOtherWaiting(t *testing.T) {
	soak.Long(t)
	const flood = 130 // a worker lets 64 attempts wait, and Parallelism run
	single := modeFor(0, func(a account) each { return each{a} }, func(o each) account { return o.account })
	batches := modeFor(0, func(a account) batched { return batched{a} }, func(o batched) account { return o.account })
	for name, flooding := range map[string]struct {
		mode
		settings delta.ObjectSettings
		plan     string
		byTimers bool
	}{
		"timers":               {single, delta.ObjectSettings{Parallelism: 2}, "", true},
		"singles of one batch": {batches, delta.ObjectSettings{Parallelism: 2, BatchSize: 200}, randomText(200_000), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := flooding.mode
			g.harness = newHarness(t)
			var isHeld atomic.Bool
			begun, open := make(chan string, 10*flood), make(chan struct{})
			config := g.config(g.controller(func(ctx context.Context, j job) error {
				if j.Namespace != "full" {
					return nil
				}
				if flooding.byTimers && !isHeld.Load() {
					return delta.ResourceSnooze(time.Second)
				}
				begun <- j.ObjectID
				return waitFor(ctx, open)
			}))
			config.ResourceWorkTimeout = 10 * patience
			config.Namespaces = map[string]delta.NamespaceConfig{"full": {MaxWorkers: 1}}
			flooding.settings.HeartbeatTimeout = patience
			config.Kinds = map[string]delta.ObjectSettings{g.kind: flooding.settings}
			c := g.startWithoutPoll(config)
			var crowd []delta.Object
			for _, name := range names("crowd", flood) {
				crowd = append(crowd, g.object(account{Name: name, Plan: flooding.plan}))
			}
			_, err := c.InformMany(t.Context(), crowd, &delta.InformOpts{Namespace: "full"})
			require.NoError(t, err)
			if flooding.byTimers {
				for _, name := range names("crowd", flood) {
					g.awaitRow(name, func(r *deltatype.ResourceRow) bool { return r.AttemptedAt != nil })
				}
				isHeld.Store(true)
			}
			got(t, begun)
			until(t, func() bool {
				return g.countRows("SELECT count(*) FROM delta_resource WHERE namespace = 'full' AND due_at > now()") == 0
			})

			for _, name := range names("free", 5) {
				g.informEach(c, nil, name)
				g.awaitRow(name, synced(1))
			}
			require.Empty(t, begun, "MaxWorkers holds")
			close(open)
			for _, name := range names("crowd", flood) {
				g.awaitRow(name, synced(1))
			}
		})
	}
}

// randomText returns text that Postgres cannot compress to less than five eighths of n bytes.
func randomText(n int) string {
	var text strings.Builder
	for text.Len() < n {
		text.WriteString(rand.Text())
	}
	return text.String()[:n]
}

// Rows of a namespace are dispatched when they have a slot, or a place to wait in. Few are dispatched in vain.
func TestACrowdOfANamespaceIsDispatchedOnce(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	g := modeFor(0, func(a account) each { return each{a} }, func(o each) account { return o.account })
	g.harness = newHarness(t)
	config := g.config(g.controller(func(context.Context, job) error {
		time.Sleep(2*time.Second + mathrand.N(4*time.Second)) // so that the calls end one by one
		return nil
	}))
	var starts atomic.Int64
	config.Temporal = g.dialRefusingRequests(func(_ string, request any) error {
		if startedWorkflow(request) != "" {
			starts.Add(1)
		}
		return nil
	})
	config.Namespaces = map[string]delta.NamespaceConfig{"wide": {MaxWorkers: 60}}
	config.Kinds = map[string]delta.ObjectSettings{g.kind: {Parallelism: 60}}
	c := g.client(config)
	crowd := names("crowd", 300)
	g.inform(c, &delta.InformOpts{Namespace: "wide"}, crowd...)
	require.NoError(t, c.Start(t.Context()))
	t.Cleanup(func() { _ = c.Stop(context.Background()) })
	for _, name := range crowd {
		g.awaitRow(name, synced(1))
	}
	require.Less(t, starts.Load(), int64(len(crowd)*5/4), "workflows are started or woken")
}
