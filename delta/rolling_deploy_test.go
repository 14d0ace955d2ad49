package delta_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// Two old clients are replaced one after the other while objects are informed. The new ones come after a migration that adds to tables, have another
// type of the object, other settings, and a version of a worker deployment in the end. Nothing is lost, and no attempt is spent on the deploy.
func TestARollingDeployLosesNothing(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	inBothModes(t, testRollingDeployUnderLoad[single], testRollingDeployUnderLoad[batches])
}

func testRollingDeployUnderLoad[M batchSized](t *testing.T) {
	h := newHarness(t)
	d := deploymentOf(h)
	var byOld, byNew atomic.Int64
	startOld := func() *delta.Client {
		return h.start(h.config(with(&controller[payment1[M]]{work: func(context.Context, *delta.Resource[payment1[M]]) error {
			byOld.Add(1)
			return nil
		}})))
	}
	startNew := func(versioned bool) *delta.Client {
		added := &upgrading[M]{controller[payment3[M]]{work: func(context.Context, *delta.Resource[payment3[M]]) error {
			byNew.Add(1)
			return nil
		}}}
		config := h.config(func(cs *delta.Controllers) { delta.AddController(cs, added) })
		config.Kinds = map[string]delta.ObjectSettings{"payment": {Parallelism: 3, BatchSize: 7}}
		if versioned {
			config.WorkerVersion = d.version("new")
		}
		return h.start(config)
	}
	first, second := startOld(), startOld()

	// The load goes on until the deploy is over. A sender sends the type of its own program, and takes any client.
	informer := h.client(&delta.Config{})
	var informed int
	var isNew bool
	inform := func() {
		var objects []delta.Object
		for range 4 {
			key := fmt.Sprintf("p%03d", informed)
			informed++
			if isNew && informed%2 == 0 {
				objects = append(objects, payment3[M]{key, 100})
			} else {
				objects = append(objects, payment1[M]{key, "12"})
			}
		}
		_, err := informer.InformMany(t.Context(), objects, &delta.InformOpts{MaxAttempts: 1})
		require.NoError(t, err)
	}
	loadUntil := func(is func() bool) {
		began := time.Now()
		for n := 0; n < 3 || !is(); n++ {
			inform()
			pause(began)
			require.Less(t, time.Since(began), patience)
		}
	}
	loadUntil(func() bool { return byOld.Load() > 0 })

	// The migration of a newer version adds columns and a table.
	for _, table := range []string{"delta_resource", "delta_controller", "delta_installation", "delta_inform"} {
		h.exec("ALTER TABLE " + table + " ADD COLUMN of_a_newer_version text NOT NULL DEFAULT ''")
	}
	h.exec("CREATE TABLE delta_newer (id bigint)")
	loadUntil(func() bool { return true })

	third := startNew(false)
	isNew = true
	loadUntil(func() bool { return byNew.Load() > 0 })
	require.NoError(t, first.Stop(t.Context()))
	loadUntil(func() bool { return true })
	startOld() // a process of the old version is restarted meanwhile
	require.NoError(t, second.Stop(t.Context()))
	startNew(true)
	d.setCurrent("payment", "new")
	loadUntil(func() bool { return true })
	require.NoError(t, third.Stop(t.Context()))

	for i := range informed {
		row := h.eventually("payment", fmt.Sprintf("p%03d", i), inState(deltatype.ResourceStateSynced))
		require.Equal(t, 1, row.Attempt, row.ObjectID)
		require.EqualValues(t, 1, row.SyncCount, row.ObjectID)
		for _, e := range row.Errors { // an object may have waited for a worker of its type
			require.Zero(t, e.Attempt, "%s: %s", row.ObjectID, e.Error)
		}
	}
	require.EqualValues(t, informed, byOld.Load()+byNew.Load(), "each is worked once")
	t.Logf("%d resources: %d by the old version, %d by the new one", informed, byOld.Load(), byNew.Load())
}

// Workers get versions, and lose them again, while resources are worked.
func TestWorkersMoveToVersionsAndBack(t *testing.T) {
	soak.Long(t)
	inEachModeBut(t, "batched", func(t *testing.T, g mode) {
		d, calls := deploymentOf(g.harness), &buildCalls{}
		work := func(build string) func(*delta.Controllers) {
			return g.controller(func(_ context.Context, j job) error {
				calls.note(build, j)
				return nil
			})
		}
		config := g.config(work("none"))
		config.Temporal = g.temporalWith((&sentCalls{}).intercept) // an eager start takes any worker of its connection
		c := g.start(config)
		all := names("r", 10)
		g.inform(c, nil, all...)
		for _, name := range all {
			g.awaitRow(name, synced(1))
			require.Equal(t, []string{"none"}, calls.of(name, 1), name)
		}
		versioned := g.start(d.config("a", work("a")))
		invalidate := func(generation int64) {
			_, err := c.InvalidateAll(t.Context(), delta.Filter{Kinds: []string{g.kind}})
			require.NoError(t, err)
			for _, name := range all {
				row := g.awaitRow(name, synced(generation))
				require.Equal(t, 1, row.Attempt, name)
				require.Empty(t, row.Errors, name)
				require.Len(t, calls.of(name, generation), 1, name)
			}
		}
		d.setCurrent(g.kind, "a")
		invalidate(2)
		for _, name := range all {
			require.Equal(t, []string{"a"}, calls.of(name, 2), name)
		}

		// On the way back, a versioned worker keeps workflows that it has in its cache until it stops. It gets no new ones.
		g.mustTemporal("worker", "deployment", "set-current-version", "--deployment-name", d.name, "--unversioned", "--yes")
		d.awaitRouting(g.kind, func(r delta.QueueRouting) bool { return r.Current == delta.WorkerVersion{} })
		added := names("new", 4)
		g.inform(c, nil, added...)
		for _, name := range added {
			g.awaitRow(name, synced(1))
			require.Equal(t, []string{"none"}, calls.of(name, 1), name)
		}
		invalidate(3)
		kept := 0
		for _, name := range all {
			if calls.of(name, 3)[0] == "a" {
				kept++
			}
		}
		t.Logf("%d of %d workflows took another step on the version", kept, len(all))
		require.NoError(t, versioned.Stop(t.Context()))
		invalidate(4)
		for _, name := range all {
			require.Equal(t, []string{"none"}, calls.of(name, 4), name)
		}
	})
}

// Fields that a newer version adds to the input of a workflow do not disturb an older one.
func TestAnInputOfANewerVersionIsUnderstood(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.startWorker(nil)
	h.startBySignal("ann", map[string]any{"kind": "account", "object_id": "ann", "of_a_newer_version": map[string]any{"a": 1}})
	h.eventually("account", "ann", synced(1))
}

// The table of what may differ during a deploy names a test for each row.
func TestTheTableOfDeploysNamesTestsThatExist(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/temporal.md")
	require.NoError(t, err)
	_, table, found := strings.Cut(string(page), "### What may differ, and for how long\n")
	require.True(t, found)
	table, _, _ = strings.Cut(table, "\n## ")
	tests := ""
	for _, folder := range []string{".", "../workflows"} {
		files, err := filepath.Glob(folder + "/*_test.go")
		require.NoError(t, err)
		for _, file := range files {
			source, err := os.ReadFile(file)
			require.NoError(t, err)
			tests += string(source)
		}
	}
	rows := 0
	for line := range strings.Lines(table) {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| what") {
			continue
		}
		rows++
		names := regexp.MustCompile("`(Test\\w+)`").FindAllStringSubmatch(line, -1)
		require.NotEmpty(t, names, line)
		for _, name := range names {
			require.Contains(t, tests, "\nfunc "+name[1]+"(t *testing.T) {", line)
		}
	}
	require.Greater(t, rows, 8)
}
