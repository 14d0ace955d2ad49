package main

import (
	"bytes"
	"flag"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/examples/modules/proxy"
)

var update = flag.Bool("update", false, "write the golden files")

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func timeAgo(d time.Duration) *time.Time {
	at := noon.Add(-d)
	return &at
}

// knownRow returns the row of a module that the proxy knows.
func knownRow(path, has, latest string, newer int, behind string, released time.Duration) row {
	return row{
		Module: Module{Path: path, Version: has}, state: deltatype.ResourceStateSynced, attempt: 1,
		synced: timeAgo(time.Minute), attempted: timeAgo(time.Minute), checked: timeAgo(time.Minute), status: statusKnown,
		latest: latest, newer: newer, behind: behind, released: timeAgo(released),
	}
}

func asIndirect(r row) row {
	r.Indirect = true
	return r
}

// settledRow returns the row of a module with a problem.
func settledRow(path string, state deltatype.ResourceState, status, reason string) row {
	return row{
		Module: Module{Path: path, Version: "v1.0.0"}, state: state, attempt: 1, synced: timeAgo(0), attempted: timeAgo(0),
		status: status, reasonStored: reason,
	}
}

func failingRow(path string, attempt int, again time.Duration, why string) row {
	return row{
		Module: Module{Path: path, Version: "v1.0.0"}, state: deltatype.ResourceStateFailed, attempt: attempt,
		due: timeAgo(-again), attempted: timeAgo(again), failure: why,
	}
}

func TestReport(t *testing.T) {
	t.Parallel()
	const refused = "https://proxy.example: dial tcp 192.0.2.1:443: connect: connection refused"
	mixed := []row{
		knownRow("example.com/current", "v1.0.0", "v1.0.0", 0, "", 400*day),
		knownRow("example.com/also/current", "v1.0.0", "v1.0.0", 0, "", 400*day),
		knownRow("example.com/a", "v1.0.0", "v1.3.0", 3, "3 releases, 4 months", 20*day),
		knownRow("example.com/more/behind", "v1.0.0", "v1.12.0", 12, "12 releases, 18 months", 300*day),
		asIndirect(knownRow("example.com/with-a-very-long-name/that-does-not-fit/and-goes-on/v2", "v2.0.0-20240102030405-0123456789ab",
			"v2.0.0-20260102030405-0123456789ab", 0, "new commits, 2 years", 300*day)),
		asIndirect(knownRow("example.com/b", "v3.0.0+incompatible", "v3.1.0+incompatible", 1, "1 release, <1 day", time.Hour)),
		failingRow("example.com/down", 3, 4*time.Second, refused),
		failingRow("example.com/down/too", 1, time.Second, refused),
		{Module: Module{Path: "example.com/right/now", Version: "v1.0.0"}, state: deltatype.ResourceStatePending, attempt: 2, failure: refused},
		failingRow("example.com/broken", 2, 90*time.Second, "https://proxy.example: 500 Internal Server Error: "+strings.Repeat("something went wrong, ", 8)),
		settledRow("example.com/gone", deltatype.ResourceStateDeleted, statusMissing, "https://proxy.example: 410 Gone"),
		settledRow("example.com/forbidden", deltatype.ResourceStateSynced, statusRefused, "https://proxy.example: 403 Forbidden"),
		settledRow("corp.example/secret", deltatype.ResourceStateSynced, statusSkipped, "the module is private: GONOPROXY or GOPRIVATE (corp.example) keeps it from proxies"),
		settledRow("example.com/local", deltatype.ResourceStateSynced, statusSkipped, "replaced by a directory"),
		{Module: Module{Path: "example.com/new", Version: "v1.0.0"}},
	}
	forked := knownRow("example.com/forked", "v1.0.0", "v1.6.0", 1, "1 release, 30 days", 10*day)
	forked.Replacement = &Replacement{Path: "example.com/fork", Version: "v1.5.0"}
	mixed = append(mixed, forked)

	var dark []row
	for _, name := range strings.Fields("a b c d e f g h i j") {
		dark = append(dark, failingRow("example.com/"+name, 1, time.Second, refused))
	}
	for name, rows := range map[string][]row{
		"mixed": mixed, "dark": dark, "fine": {knownRow("example.com/current", "v1.0.0", "v1.0.0", 0, "", day)}, "nothing": nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var b bytes.Buffer
			writeReport(&b, "/src/app/go.mod", "https://proxy.example,direct", snapshot{at: noon, rows: rows})
			for line := range strings.Lines(b.String()) {
				require.LessOrEqual(t, utf8.RuneCountInString(strings.TrimSuffix(line, "\n")), maxWidth, line)
			}
			golden := "testdata/report_" + name + ".txt"
			if *update {
				require.NoError(t, os.WriteFile(golden, b.Bytes(), 0o600))
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err)
			require.Equal(t, string(want), b.String())
		})
	}
}

func TestBehind(t *testing.T) {
	t.Parallel()
	version := func(v string, after time.Duration) proxy.Version {
		return proxy.Version{Version: v, Time: noon.Add(after)}
	}
	const commit1, commit2 = "v0.0.0-20240101000000-0123456789ab", "v0.0.0-20240301000000-0123456789ab"
	for _, tt := range []struct {
		answer proxy.Answer
		want   string
	}{
		{proxy.Answer{Current: version("v1.0.0", 0), Latest: version("v1.0.0", 0)}, ""},
		{proxy.Answer{Current: version("v1.1.0-rc.1", 0), Latest: version("v1.0.0", 0)}, ""},
		{proxy.Answer{Current: version("v1.0.0", 0), Latest: version("v1.3.0", 124*day), Newer: 3}, "3 releases, 4 months"},
		{proxy.Answer{Current: version("v1.0.0", 0), Latest: version("v1.1.0", time.Hour), Newer: 1}, "1 release, <1 day"},
		{proxy.Answer{Current: version("v1.0.0", 0), Latest: version("v1.1.0", -day), Newer: 1}, "1 release, <1 day"},
		{proxy.Answer{Current: version("v1.0.0", 0), Latest: version("v1.1.0", 40*day), Newer: 1}, "1 release, 40 days"},
		{proxy.Answer{Current: version("v1.0.0", 0), Latest: version("v9.0.0", 3000*day), Newer: 99}, "99 releases, 8 years"},
		{proxy.Answer{Current: proxy.Version{Version: "v1.0.0"}, Latest: version("v1.1.0", 0), Newer: 1}, "1 release"},
		{proxy.Answer{Current: version(commit1, 0), Latest: version(commit2, 60*day)}, "new commits, 60 days"},
	} {
		require.Equal(t, tt.want, formatBehind(tt.answer))
	}
}

func TestSqueeze(t *testing.T) {
	t.Parallel()
	require.Equal(t, "example.com/short", truncateMiddle("example.com/short", 17))
	require.Equal(t, "examp…om/long/v2", truncateMiddle("example.com/a/b/com/long/v2", 16))
	require.Equal(t, "…", truncateMiddle("abc", 1))
	require.Equal(t, "é…", truncateEnd("éééé", 2))
}

func TestWrap(t *testing.T) {
	t.Parallel()
	require.Equal(t, []string{"one two", "three", "fourfourfo", "ur five"}, wrapText("one two three fourfourfour five", 10))
	require.Equal(t, []string{""}, wrapText("", 10))
}

func TestChanges(t *testing.T) {
	t.Parallel()
	fine := func(path, latest string) row { return knownRow(path, "v1.0.0", latest, 0, "", day) }
	down := func(path string) row { return failingRow(path, 1, time.Second, "down") }
	edited := fine("e", "v1.0.0")
	edited.Version = "v1.1.0"
	before := snapshot{rows: []row{fine("a", "v1.0.0"), down("b"), fine("c", "v1.0.0"), fine("d", "v1.0.0"), fine("e", "v1.0.0"), down("f")}}
	after := snapshot{rows: []row{
		fine("a", "v1.1.0"), fine("b", "v1.0.0"), down("c"), edited,
		settledRow("f", deltatype.ResourceStateDeleted, statusMissing, "410"), fine("g", "v1.0.0"),
	}}
	require.Equal(t, []string{
		"a has a new latest version: v1.1.0, it was v1.0.0",
		"e went from v1.0.0 to v1.1.0 in the go.mod",
		"g v1.0.0 is required now",
		"d is not required any more",
		"failed: c",
		"recovered: b",
		"missing: f",
	}, describeChanges(before, after))
	require.Empty(t, describeChanges(before, before))
	require.Equal(t, "aaa, bbb, ccc", someOf([]string{"aaa", "bbb", "ccc"}, 13))
	require.Equal(t, "aaa and 2 more", someOf([]string{"aaa", "bbb", "ccc"}, 12))
	require.Equal(t, "aaa, bbb and 3 more", someOf([]string{"aaa", "bbb", "ccc", "ddd", "eee"}, 20))
	require.Equal(t, "far too long", someOf([]string{"far too long"}, 5))
}
