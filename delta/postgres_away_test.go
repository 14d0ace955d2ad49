package delta_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	historypb "go.temporal.io/api/history/v1"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// lasting and lastingBatched are a kind in the two modes with claims longer than the test.
type lasting struct{ account }

func (lasting) Kind() string                   { return "lasting" }
func (lasting) Settings() delta.ObjectSettings { return lastingSettings(1) }

type lastingBatched struct{ account }

func (lastingBatched) Kind() string                   { return "lasting-batched" }
func (lastingBatched) Settings() delta.ObjectSettings { return lastingSettings(50) }

func lastingSettings(size int) delta.ObjectSettings {
	s := batchSettings(size)
	s.HeartbeatTimeout = patience
	return s
}

func inLastingModes(t *testing.T, test func(t *testing.T, g mode)) {
	t.Helper()
	inModes(t, test,
		modeFor(-1, func(a account) lasting { return lasting{a} }, func(o lasting) account { return o.account }),
		modeFor(-1, func(a account) lastingBatched { return lastingBatched{a} }, func(o lastingBatched) account { return o.account }))
}

// Postgres is down for all clients when Work ends. When it is back, dispatchers find the rows as soon as the worker has written its outcome.
func TestAnOutcomeIsWrittenWhenPostgresIsBackAndWorkRunsOnce(t *testing.T) {
	soak.Long(t)
	inLastingModes(t, func(t *testing.T, g mode) {
		w := newHeldWork(t, &meter{})
		var logs logBuffer
		var away []*cutProxy
		for range 2 {
			pool, p := g.poolByProxy()
			config := g.config(g.controller(w.work))
			config.Logger = logs.logger()
			c, err := delta.NewClient(pool, config)
			require.NoError(t, err)
			c.SetTiming(time.Second, 50*time.Millisecond, 0)
			require.NoError(t, c.Start(context.Background()))
			t.Cleanup(func() { _ = c.Stop(context.Background()) })
			away = append(away, p)
		}
		g.informHeld(g.client(g.config()), w, nil, "ann", "bob")
		for _, p := range away {
			p.refuse()
		}
		w.release()
		until(t, func() bool { return strings.Contains(logs.String(), "an outcome cannot be written") })
		// Their leases have expired.
		g.exec("UPDATE delta_resource SET dispatch_at = now()")
		for _, p := range away {
			p.heal()
		}
		for _, name := range []string{"ann", "bob"} {
			row := g.awaitRow(name, func(r *deltatype.ResourceRow) bool { return r.State != deltatype.ResourceStatePending })
			require.Equal(t, deltatype.ResourceStateSynced, row.State)
			require.Equal(t, 1, row.Attempt)
			require.Empty(t, row.Errors)
			require.Equal(t, 1, w.callsOf(t, name))
		}
	})
}

// An UPDATE by hand must raise the generation, as an inform does: outcomes do not compare names, so the old one would count for the new object.
func TestAnObjectThatIsRenamedByHandWithANewGenerationIsWorked(t *testing.T) {
	soak.Long(t)
	inLastingModes(t, func(t *testing.T, g mode) {
		w := newHeldWork(t, &meter{})
		c := g.startWorker(w.work)
		g.informHeld(c, w, nil, "ann")
		g.exec(`UPDATE delta_resource SET object_id = 'eve', object = jsonb_build_object('name', 'eve', 'plan', 'new'), state = 'scheduled',
			generation = generation + 1, attempt = 0, due_at = now(), dispatch_at = now() WHERE object_id = 'ann'`)
		w.release()
		g.awaitRow("eve", synced(2))
		require.Equal(t, 1, w.callsOf(t, "eve"))
		require.Equal(t, 1, w.callsOf(t, "ann"))
		require.Nil(t, g.row(g.kind, "ann"))
	})
}

// One of two workers is cut off from Postgres, but not from Temporal: it leaves tasks to the other, which gets them at once. Attempts are ordinary
// activities, because of the rate: a local one never leaves its worker.
func TestAWorkerThatDoesNotReachPostgresTakesNoTasks(t *testing.T) {
	soak.Long(t)
	inModes(t, func(t *testing.T, g mode) {
		work := func(context.Context, job) error { return nil }
		var logs logBuffer
		pool, p := g.poolByProxy()
		config := g.config(g.controller(work))
		config.Logger = logs.logger()
		a, err := delta.NewClient(pool, config)
		require.NoError(t, err)
		require.NoError(t, a.Start(context.Background()))
		t.Cleanup(func() {
			ended, cancel := context.WithCancel(context.Background())
			cancel()
			_ = a.Stop(ended)
		})
		b := g.startWorker(work)
		p.refuse()
		// About every second task goes to the cut off worker.
		for _, name := range names("before", 20) {
			g.inform(b, nil, name)
		}
		until(t, func() bool { return strings.Contains(logs.String(), "this client takes no tasks") })
		failed := 0
		for _, name := range names("after", 30) {
			g.inform(b, nil, name)
			g.awaitEvent(g.awaitRow(name, synced(1)).WorkflowID, func(e *historypb.HistoryEvent) bool {
				started := e.GetActivityTaskStartedEventAttributes()
				if started.GetAttempt() > 1 {
					failed++
				}
				return started != nil
			})
			// Each of its 4 pollers may get a task from the poll that was open when the worker noticed, and one in the slot reserved for the next.
			require.LessOrEqual(t, failed, 8)
		}

		p.heal()
		until(t, func() bool { return strings.Contains(logs.String(), "this client takes tasks") })
	},
		modeFor(-1, func(a account) rated { return rated{a} }, func(o rated) account { return o.account }),
		modeFor(-1, func(a account) lastingBatched { return lastingBatched{a} }, func(o lastingBatched) account { return o.account }))
}
