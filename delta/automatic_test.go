package delta_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/soak"
)

// In automatic mode a dozen resources can be watched one by one, however they are informed.
func TestADozenInformsGetAWorkflowEachInAutomaticMode(t *testing.T) {
	soak.Long(t)
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
		// Each refused start is retried: it counts once.
		{"while Temporal refuses starts", true, func(g mode, c *delta.Client, names []string) { g.inform(c, nil, names...) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			g := automaticMode()
			g.harness = newHarness(t)
			starts := &refusedStarts{}
			starts.over.Store(!c.refused)
			config := g.config(g.controller(func(context.Context, job) error { return nil }))
			config.Temporal = g.dialRefusingRequests(func(_ string, request any) error {
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
				require.Equal(t, g.resourceWorkflow(name), g.awaitRow(name, synced(1)).WorkflowID)
			}
		})
	}
}

// A large set is worked in one batch, and later informs get their own workflows again. A dispatcher that reads between the commit of the set and its
// wake-up does not know the set, so there are several tries.
func TestASetInAutomaticModeIsABatchAndADozenAfterItAreNot(t *testing.T) {
	t.Parallel()
	g := automaticMode()
	g.harness = newHarness(t)
	isOneBatch := func(names []string) bool {
		batches := map[string]bool{}
		for _, name := range names {
			batches[g.awaitRow(name, synced(1)).WorkflowID] = true
		}
		for batch := range batches {
			return len(batches) == 1 && strings.Contains(batch, ":batch/")
		}
		return false
	}
	haveOwn := func(names []string) bool {
		for _, name := range names {
			if g.awaitRow(name, synced(1)).WorkflowID != g.resourceWorkflow(name) {
				return false
			}
		}
		return true
	}
	try := func(round int) bool {
		// Before any measurement, batches have 100 members: this set is between half a batch and a batch.
		c := g.startWorker(func(context.Context, job) error { return nil })
		defer func() { require.NoError(t, c.Stop(context.Background())) }()
		set, dozen := names(fmt.Sprintf("set-%d-", round), 60), names(fmt.Sprintf("dozen-%d-", round), 12)
		g.inform(c, nil, set...)
		together := isOneBatch(set)
		g.inform(c, nil, dozen...)
		return haveOwn(dozen) && together
	}
	for round := 0; !try(round); round++ {
		require.Less(t, round, 20)
	}
}

// patientlyBatched is a kind whose batches wait long for more members.
type patientlyBatched struct{ account }

func (patientlyBatched) Kind() string { return "patient" }

func (patientlyBatched) Settings() delta.ObjectSettings {
	s := batchSettings(50)
	s.BatchWait = time.Second
	return s
}

// A set that fills half a batch does not wait for more members: a later inform goes into another batch, although BatchWait has not passed.
func TestASetThatFillsHalfABatchDoesNotWaitForOthers(t *testing.T) {
	t.Parallel()
	g := modeFor(0, func(a account) patientlyBatched { return patientlyBatched{a} }, func(o patientlyBatched) account { return o.account })
	g.harness = newHarness(t)
	c := g.startWorker(func(context.Context, job) error { return nil })
	try := func(round int) bool {
		first, second := names(fmt.Sprintf("first-%d-", round), 25), names(fmt.Sprintf("second-%d-", round), 25)
		g.inform(c, nil, first...)
		time.Sleep(patientlyBatched{}.Settings().BatchWait / 5) // longer than a lease takes, and shorter than one that waits
		g.inform(c, nil, second...)
		batches := map[string]bool{}
		for _, name := range append(first, second...) {
			batches[g.awaitRow(name, synced(1)).WorkflowID] = true
		}
		return len(batches) == 2
	}
	for round := 0; !try(round); round++ {
		require.Less(t, round, 20)
	}
}
