package delta_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	"github.com/chariot-giving/delta/delta"
)

// In automatic mode a dozen resources can be watched one by one, however they are informed.
func TestADozenInformsGetAWorkflowEachInAutomaticMode(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		refused bool
		inform  func(g mode, c *delta.Client, names []string)
	}{
		{"one by one", false, func(g mode, c *delta.Client, names []string) {
			for _, name := range names {
				g.informPlan(c, name, "")
			}
		}},
		{"as a set", false, func(g mode, c *delta.Client, names []string) { g.inform(c, nil, names...) }},
		// Each start that is refused is tried again: it counts once.
		{"while Temporal refuses starts", true, func(g mode, c *delta.Client, names []string) { g.inform(c, nil, names...) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			g := automaticMode()
			g.harness = newHarness(t)
			starts := &refusedStarts{}
			starts.over.Store(!c.refused)
			config := g.config(g.controller(func(context.Context, job) error { return nil }))
			config.Temporal = g.refusingRequests(func(_ string, request any) error {
				return starts.refuse(strings.HasPrefix(startedWorkflow(request), g.Prefix+"/"+g.kind), codes.PermissionDenied) // which the SDK does not repeat by itself
			})
			log := &waitsLog{Handler: config.Logger.Handler()}
			config.Logger = slog.New(log)
			client := g.client(config)
			client.SetTiming(2*patience, 0, 0) // what is slow is not leased again, which counts again
			require.NoError(t, client.Start(context.Background()))
			t.Cleanup(func() { _ = client.Stop(context.Background()) })

			dozen := names("one", 12)
			c.inform(g, client, dozen)
			if c.refused {
				until(t, func() bool { return len(log.all()) >= 3 })
				starts.over.Store(true)
			}
			for _, name := range dozen {
				require.Equal(t, g.resourceWorkflow(name), g.await(name, synced(1)).WorkflowID)
			}
		})
	}
}
