package main

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/internal/soak"
)

// Informers list at the start, all resources expire and are synced again, and the third call of Work deletes the letter.
func TestThePortTellsCreatedFromUpdated(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	env := deltatest.New(t)
	config := newConfig()
	config.Temporal, config.TemporalNamespace, config.WorkflowIDPrefix = env.Temporal, env.TemporalNamespace, env.Prefix
	config.Namespaces["events"] = delta.NamespaceConfig{ResourceExpiry: time.Second}

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	lines, ended := make(chan string, 10_000), make(chan error, 1)
	go func() { ended <- run(ctx, env.Pool, config, func(line string) { lines <- line }) }()
	told := map[string][]string{}
	tell := func() {
		select {
		case line := <-lines:
			what, which := line[:len("updated")], line[len("updated "):]
			if all := told[which]; len(all) < 3 {
				told[which] = append(all, what)
			}
		case err := <-ended:
			require.FailNow(t, "it has ended", "%v", err)
		case <-time.After(3 * time.Minute):
			require.FailNow(t, "nothing more is told", "%v", told)
		}
	}
	for len(told["email:in-1"]) < 3 || len(told["email:in-2"]) < 3 || len(told["mail:letter-1"]) < 3 {
		tell()
	}
	require.Equal(t, map[string][]string{
		"email:in-1":    {"created", "updated", "updated"},
		"email:in-2":    {"created", "updated", "updated"},
		"mail:letter-1": {"created", "updated", "deleted"},
	}, told)
	cancel()
	require.NoError(t, <-ended)
}
