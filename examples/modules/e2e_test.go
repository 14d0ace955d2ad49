package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
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

func TestEachModuleBecomesWhatItIs(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	w := newWorld(t, `
require (
	example.com/current v1.1.0
	example.com/behind v1.0.0
	example.com/deep v1.0.0 // indirect
	example.com/gone v1.0.0
	example.com/forbidden v1.0.0
	example.com/flaky v1.0.0
	corp.example/secret v1.0.0
	example.com/local v1.0.0
	example.com/forked v1.0.0
)
replace example.com/local => ../local
replace example.com/forked => example.com/fork v1.1.0
`, time.Hour, func(p *fakeProxy) {
		p.setVersions("example.com/current", "v1.0.0", "v1.1.0")
		p.setVersions("example.com/behind", "v1.0.0", "v1.1.0", "v1.2.0", "v1.3.0")
		p.setVersions("example.com/deep", "v1.0.0", "v1.0.1")
		p.setVersions("example.com/flaky", "v1.0.0")
		p.setVersions("example.com/fork", "v1.1.0", "v1.2.0")
		p.setStatus("example.com/forbidden", 403)
		p.setStatus("example.com/flaky", 503)
	})

	s := w.waitForSnapshot(func(s snapshot) bool {
		return s.countSettled() == 9 && s.countOutcomes(outcomeFailed) == 1 && s.countOutcomes(outcomeRefused) == 1
	})
	outcomes := map[string]outcome{}
	for _, r := range s.rows {
		outcomes[r.Path] = r.outcome()
	}
	require.Equal(t, map[string]outcome{
		"example.com/current":   outcomeCurrent,
		"example.com/behind":    outcomeBehind,
		"example.com/deep":      outcomeBehind,
		"example.com/forked":    outcomeBehind,
		"example.com/gone":      outcomeMissing,
		"example.com/forbidden": outcomeRefused,
		"example.com/flaky":     outcomeFailed,
		"corp.example/secret":   outcomeSkipped,
		"example.com/local":     outcomeSkipped,
	}, outcomes)

	// The results of the failures, and the modules that were not looked up.
	gone := w.waitForModule("example.com/gone", isNow(outcomeMissing))
	require.Equal(t, deltatype.ResourceStateDeleted, gone.state)
	require.Contains(t, gone.reason(), "404 Not Found: not found (then comes direct")
	forbidden := w.waitForModule("example.com/forbidden", isNow(outcomeRefused))
	require.Equal(t, refusals, forbidden.attempt, "asked a few times, and then no more")
	require.Equal(t, refusals, w.proxy.countRequests("example.com/forbidden"))
	require.Contains(t, forbidden.reason(), "403 Forbidden: as told")
	require.Contains(t, w.waitForModule("example.com/flaky", isNow(outcomeFailed)).reason(), "503 Service Unavailable: as told")
	require.Zero(t, w.proxy.countRequests("corp.example/secret"))
	require.Zero(t, w.proxy.countRequests("example.com/local"))
	require.Zero(t, w.proxy.countRequests("example.com/forked"))

	// A failure is retried automatically.
	w.proxy.setStatus("example.com/flaky", 0)
	w.waitForModule("example.com/flaky", isNow(outcomeCurrent))

	// The table has all results.
	type line struct {
		Path, Version                           string
		Latest, Behind, Status, ReplacedBy, Age string
		Newer                                   int
		Indirect                                bool
	}
	found, err := w.env.Pool.Query(t.Context(), `SELECT path, version, coalesce(latest, '') AS latest, coalesce(behind, '') AS behind,
		status, coalesce(replaced_by, '') AS replaced_by, CASE WHEN age = checked_at - released_at THEN 'ok' ELSE '' END AS age,
		coalesce(newer, 0) AS newer, indirect FROM module ORDER BY path`)
	require.NoError(t, err)
	lines, err := pgx.CollectRows(found, pgx.RowToStructByName[line])
	require.NoError(t, err)
	require.Equal(t, []line{
		{Path: "corp.example/secret", Version: "v1.0.0", Status: statusSkipped},
		{Path: "example.com/behind", Version: "v1.0.0", Latest: "v1.3.0", Behind: "3 releases, 2 months", Status: statusKnown, Newer: 3, Age: "ok"},
		{Path: "example.com/current", Version: "v1.1.0", Latest: "v1.1.0", Status: statusKnown, Age: "ok"},
		{Path: "example.com/deep", Version: "v1.0.0", Latest: "v1.0.1", Behind: "1 release, 31 days", Status: statusKnown, Newer: 1, Indirect: true, Age: "ok"},
		{Path: "example.com/flaky", Version: "v1.0.0", Latest: "v1.0.0", Status: statusKnown, Age: "ok"},
		{Path: "example.com/forbidden", Version: "v1.0.0", Status: statusRefused},
		{Path: "example.com/forked", Version: "v1.0.0", Latest: "v1.2.0", Behind: "1 release, 31 days", Status: statusKnown, ReplacedBy: "example.com/fork v1.1.0", Newer: 1, Age: "ok"},
		{Path: "example.com/gone", Version: "v1.0.0", Status: statusMissing},
		{Path: "example.com/local", Version: "v1.0.0", Status: statusSkipped, ReplacedBy: "../local"},
	}, lines)
}

// TestOutage is the demo without a network: everything fails with the reason, and recovers automatically.
func TestOutage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "require (\nexample.com/a v1.0.0\nexample.com/b v1.0.0\nexample.com/c v1.0.0\n)\n", time.Hour, func(p *fakeProxy) {
		for _, path := range []string{"example.com/a", "example.com/b", "example.com/c"} {
			p.setVersions(path, "v1.0.0", "v1.1.0")
		}
		p.stopServing()
	})
	var out lockedBuffer
	v := &viewer{keeper: w.keeper, show: newScreen(&out), proxies: w.proxy.url()}
	s, err := v.firstPass(t.Context())
	require.NoError(t, err)
	require.Equal(t, 3, s.countOutcomes(outcomeFailed))
	require.Contains(t, out.String(), "FAILED, and retried automatically")
	require.Contains(t, out.String(), w.proxy.url()+": dial tcp "+w.proxy.address+": connect: connection refused\n    example.com/a  v1.0.0  tried ")

	w.proxy.startServing()
	following, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- v.followChanges(following, s) }()
	recovered := w.waitForSnapshot(func(s snapshot) bool { return s.countOutcomes(outcomeBehind) == 3 })
	require.Equal(t, "3 synced", recovered.formatStates())
	require.Eventually(t, func() bool {
		_, after, _ := strings.Cut(out.String(), "recovered: ")
		return strings.Contains(after, "1 release, 31 days")
	}, patience, 20*time.Millisecond, "the report is written again")
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
}

func TestEverythingIsCheckedAgain(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	w := newWorld(t, "require (\nexample.com/a v1.0.0\nexample.com/gone v1.0.0\nexample.com/forbidden v1.0.0\n)\n", time.Second, func(p *fakeProxy) {
		p.setVersions("example.com/a", "v1.0.0")
		p.setStatus("example.com/forbidden", 403)
	})
	first := w.waitForModule("example.com/a", isNow(outcomeCurrent))
	w.waitForModule("example.com/gone", isNow(outcomeMissing))
	w.waitForModule("example.com/forbidden", isNow(outcomeRefused))
	// If the proxy refused last time, one more refusal is final.
	require.Equal(t, 1, w.waitForModule("example.com/forbidden", func(r row) bool {
		return r.outcome() == outcomeRefused && r.state == deltatype.ResourceStateSynced && r.attempt < refusals
	}).attempt)

	// A new release, a module that appears, and a proxy that no longer refuses.
	w.proxy.setVersions("example.com/a", "v1.0.0", "v1.1.0")
	w.proxy.setVersions("example.com/gone", "v1.0.0")
	w.proxy.setVersions("example.com/forbidden", "v1.0.0")
	w.proxy.setStatus("example.com/forbidden", 0)
	second := w.waitForModule("example.com/a", isNow(outcomeBehind))
	require.Equal(t, "v1.1.0", second.latest)
	require.Less(t, *first.checked, *second.checked)
	w.waitForModule("example.com/gone", isNow(outcomeCurrent))
	w.waitForModule("example.com/forbidden", isNow(outcomeCurrent))
}

func TestFollowsTheGoMod(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	w := newWorld(t, "require (\nexample.com/a v1.0.0\nexample.com/b v1.0.0\n)\n", time.Second, func(p *fakeProxy) {
		for _, path := range []string{"example.com/a", "example.com/b", "example.com/c"} {
			p.setVersions(path, "v1.0.0", "v1.1.0")
		}
	})
	w.waitForSnapshot(func(s snapshot) bool { return s.countOutcomes(outcomeBehind) == 2 })

	writeGoMod(t, w.project.file, "require (\nexample.com/a v1.1.0\nexample.com/c v1.0.0\n)\n")
	w.waitForModule("example.com/a", func(r row) bool { return r.Version == "v1.1.0" && r.outcome() == outcomeCurrent })
	w.waitForModule("example.com/c", isNow(outcomeBehind))
	require.Eventually(t, func() bool {
		var left int
		err := w.env.Pool.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM module WHERE path = 'example.com/b')
			+ (SELECT count(*) FROM delta_resource WHERE object_id = 'example.com/b')`).Scan(&left)
		return err == nil && left == 0
	}, patience, 50*time.Millisecond, "what is not required any more goes, from the table and from Delta")

	// While the go.mod cannot be read, nothing is lost.
	require.NoError(t, os.WriteFile(w.project.file, []byte("<<<<<<< HEAD"), 0o600))
	_, err := w.readSnapshot(t.Context())
	require.ErrorContains(t, err, "go.mod")
	writeGoMod(t, w.project.file, "require example.com/a v1.0.0\n")
	w.waitForModule("example.com/a", func(r row) bool { return r.Version == "v1.0.0" && r.outcome() == outcomeBehind })
}

func TestAnOlderWriteDoesNotOverwriteANewerOne(t *testing.T) {
	t.Parallel()
	env := deltatest.New(t)
	s := &store{env.Pool}
	require.NoError(t, s.createTable(t.Context()))
	require.NoError(t, s.createTable(t.Context()), "a second time")
	resource := func(id, generation int64, attempt int) *delta.Resource[Module] {
		return &delta.Resource[Module]{
			ResourceRow: &deltatype.ResourceRow{ID: id, Generation: generation, Attempt: attempt},
			Object:      Module{Path: "example.com/a", Version: "v1.0.0"},
		}
	}
	write := func(id, generation int64, attempt int, reason string) error {
		return s.saveFinding(t.Context(), resource(id, generation, attempt), finding{status: statusSkipped, reason: reason})
	}
	stored := func() (reason string) {
		err := env.Pool.QueryRow(t.Context(), "SELECT reason FROM module").Scan(&reason)
		if errors.Is(err, pgx.ErrNoRows) {
			return "no row"
		}
		require.NoError(t, err)
		return reason
	}

	require.NoError(t, write(7, 2, 2, "first"))
	for _, older := range [][3]int64{{7, 2, 1}, {7, 1, 9}, {6, 9, 9}} {
		require.ErrorContains(t, write(older[0], older[1], int(older[2]), "older"), "has a newer check of example.com/a")
		require.NoError(t, s.removeModule(t.Context(), resource(older[0], older[1], int(older[2]))))
		require.Equal(t, "first", stored())
	}
	for _, newer := range [][3]int64{{7, 2, 2}, {7, 2, 3}, {7, 3, 1}, {8, 1, 1}} {
		require.NoError(t, write(newer[0], newer[1], int(newer[2]), "newer"))
		require.Equal(t, "newer", stored())
	}
	require.NoError(t, s.removeModule(t.Context(), resource(8, 1, 1)))
	require.Equal(t, "no row", stored())
}

// TestTheWholeProgram runs the program of `make demo` on existing servers. It sets the environment, so it does not run in parallel.
func TestTheWholeProgram(t *testing.T) {
	env := deltatest.New(t)
	p := newFakeProxy(t)
	p.setVersions("example.com/a", "v1.0.0", "v1.1.0")
	p.setStatus("example.com/b", 500)
	file := filepath.Join(t.TempDir(), "go.mod")
	writeGoMod(t, file, "require (\nexample.com/a v1.0.0\nexample.com/b v1.0.0\n)\n")
	t.Setenv("GOPROXY", p.url())
	t.Setenv("GONOPROXY", "")
	t.Setenv("GOPRIVATE", "")
	t.Setenv("DELTA_DATABASE_URL", env.DatabaseURL)
	t.Setenv("TEMPORAL_ADDRESS", env.TemporalAddress)
	arguments := []string{"--modfile", file, "--prefix", env.Prefix, "--every", "1s"}

	// With DEMO_ONCE it succeeds although a module failed.
	t.Setenv("DEMO_ONCE", "1")
	var out, problems bytes.Buffer
	require.Equal(t, exitOK, run(t.Context(), arguments, &out, &problems), problems.String())
	require.Empty(t, problems.String())
	require.Contains(t, out.String(), file+" requires 2 modules, looked up at "+p.url()+"\n")
	require.Contains(t, out.String(), "example.com/a      v1.0.0  v1.1.0")
	require.Contains(t, out.String(), p.url()+": 500 Internal Server Error: as told\n    example.com/b  v1.0.0  tried ")
	require.NotContains(t, out.String(), "things to try")

	// Without DEMO_ONCE it runs until it is stopped, and continues with the database's state.
	t.Setenv("DEMO_ONCE", "")
	p.setStatus("example.com/b", 0)
	p.setVersions("example.com/b", "v1.0.0")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	shown := &lockedBuffer{}
	ended := make(chan int, 1)
	go func() { ended <- run(ctx, arguments, shown, &problems) }()
	require.Eventually(t, func() bool {
		text := shown.String()
		return strings.Contains(text, "Three things to try") && strings.Contains(text, "1 module is up to date.")
	}, patience, 20*time.Millisecond)
	cancel()
	require.Equal(t, exitOK, <-ended, problems.String())
	require.Empty(t, problems.String())
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func TestWrongUse(t *testing.T) {
	t.Setenv("GOPROXY", "nonsense")
	file := filepath.Join(t.TempDir(), "go.mod")
	writeGoMod(t, file, "")
	for _, tt := range []struct {
		args []string
		code int
		text string
	}{
		{[]string{"--every", "0s"}, exitUsage, "--every 0s: must be more than 0"},
		{[]string{"--rate", "0"}, exitUsage, "--rate 0: must be more than 0"},
		{[]string{"--rate", "NaN"}, exitUsage, "--rate NaN: must be more than 0"},
		{[]string{"surplus"}, exitUsage, "unknown command \"surplus\""},
		{[]string{"--modfile", "/nowhere/go.mod"}, exitFailure, "open /nowhere/go.mod: no such file or directory"},
		{[]string{"--modfile", file}, exitFailure, `GOPROXY: "nonsense" is neither a URL`},
	} {
		var out, problems bytes.Buffer
		require.Equal(t, tt.code, run(t.Context(), tt.args, &out, &problems), tt.args)
		require.Contains(t, problems.String(), tt.text)
		require.Empty(t, out.String())
	}
	require.Equal(t, exitOK, run(t.Context(), []string{"--help"}, &bytes.Buffer{}, &bytes.Buffer{}))
}
