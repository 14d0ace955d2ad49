package delta

import (
	"crypto/rand"
	mathrand "math/rand/v2"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/workflows"
)

// Temporal starts a schedule's workflow under the schedule's id and the time, and its own workflow of the schedule under a prefix.
const (
	scheduledAt    = "-2006-01-02T15:04:05Z"
	schedulePrefix = "temporal-sys-scheduler:"
)

// idPieces are the parts of ids in the property test.
var idPieces = []string{
	"a", "Z", "0", "/", ":", "+", "%", "%2", "%20", "%25", "~", "~~", " ", "  ", ".", "-", "&", `"`, `\`, "é", "ß", "日本", "👩‍👩‍👧‍👦", "😀", "e\u0301",
	"\u0301", "שלום", "مرحبا", "\u202e", "\u00a0", "\u2028", "\ufeff", "\U0010ffff", "batch/", "inform:", "installation",
}

// anyID returns a valid object id.
func anyID(r *mathrand.Rand) string {
	most := 1 + r.IntN(db.MaxObjectIDBytes)
	if r.IntN(4) == 0 {
		most = db.MaxObjectIDBytes
	}
	var b strings.Builder
	if r.IntN(4) == 0 {
		b.WriteByte(' ')
	}
	for {
		piece := idPieces[r.IntN(len(idPieces))]
		if r.IntN(3) == 0 {
			piece = string(rune(0x20 + r.IntN(0xd7ff-0x20)))
		}
		if r.IntN(8) == 0 {
			piece = strings.Repeat(piece, 1+r.IntN(64)) // so that some ids have one sort of characters only
		}
		if checkObjectID(piece) != nil {
			continue
		}
		if b.Len()+len(piece) > most {
			break
		}
		b.WriteString(piece)
	}
	id := b.String()
	if id == "" {
		return "x"
	}
	if r.IntN(4) == 0 && len(id) < db.MaxObjectIDBytes {
		id += " "
	}
	return id
}

// similarIDs returns ids that might be confused with this one.
func similarIDs(id, name string) (all []string) {
	candidates := []string{id + " ", " " + id, strings.TrimSpace(id), id + "~", id + "/", url.PathEscape(id), workflows.EscapeID(id), id + "\u0301"}
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		candidates = append(candidates, name[i+1:]) // the end of the name may be an id itself
	}
	_, size := utf8.DecodeLastRuneInString(id)
	candidates = append(candidates, id[:len(id)-size], id[:len(id)-size]+"x", "x"+id[1:])
	for _, c := range candidates {
		if checkObjectID(c) == nil {
			all = append(all, c)
		}
	}
	return all
}

var notPrintable = regexp.MustCompile(`[^!-~]`)

// requireName checks the rules for all names: a gRPC header can hold them, and a Temporal with SQL persistence does not cut them.
func requireName(t *testing.T, name string) {
	t.Helper()
	require.LessOrEqual(t, len(name), workflows.MaxID, name)
	require.NotRegexp(t, notPrintable, name)
}

func TestNamesOfResources(t *testing.T) {
	t.Parallel()
	seed := mathrand.Uint64()
	t.Logf("seed %d", seed)
	r := mathrand.New(mathrand.NewPCG(seed, 0))
	long := strings.Repeat("k", maxNameBytes)
	type resource struct{ prefix, kind, id string }
	known := map[string]resource{}
	shortenedNames := 0
	for range 500 {
		of := resource{prefix: []string{"delta", "d", long}[r.IntN(3)], kind: []string{"user", "u", long, long[1:]}[r.IntN(4)]}
		of.id = anyID(r)
		require.NoError(t, checkObjectID(of.id))
		n := temporalNames{prefix: of.prefix}
		for _, id := range append([]string{of.id}, similarIDs(of.id, n.resourceWorkflowID(of.kind, of.id))...) {
			of.id = id
			name := n.resourceWorkflowID(of.kind, id)
			requireName(t, name)
			require.Equal(t, name, n.resourceWorkflowID(of.kind, id), "it is stable")
			if there, found := known[name]; found {
				require.Equal(t, there, of, name)
			}
			known[name] = of
			readable, hash, cut := strings.Cut(name, "~")
			if !cut {
				back, err := url.PathUnescape(strings.TrimPrefix(name, of.prefix+"/"+of.kind+"/"))
				require.NoError(t, err)
				require.Equal(t, id, back, "an id that is not cut can be read back")
				continue
			}
			shortenedNames++
			require.Len(t, hash, 26)
			require.NotContains(t, hash, "~")
			whole := of.prefix + "/" + of.kind + "/" + workflows.EscapeID(id)
			require.Greater(t, len(whole), workflows.MaxID, "only names that are too long are cut")
			require.True(t, strings.HasPrefix(whole, readable), "%s begins %s", readable, whole)
			require.Greater(t, len(readable), workflows.MaxID-1-26-len("%XX"), "a name is cut no more than necessary")
			_, err := url.PathUnescape(readable)
			require.NoError(t, err, "it is not cut within a %%XX: %s", readable)
		}
	}
	require.Greater(t, len(known), 2000)
	require.Greater(t, shortenedNames, 200)
}

// Temporal keeps names as long as resources exist: a changed name would give each of them a second workflow.
func TestNamesAreStable(t *testing.T) {
	t.Parallel()
	n := temporalNames{prefix: "delta"}
	long := strings.Repeat("k", maxNameBytes)
	for want, got := range map[string]string{
		"delta/user/ann@example.com":                                             n.resourceWorkflowID("user", "ann@example.com"),
		"delta/user/a/b:c+d":                                                     n.resourceWorkflowID("user", "a/b:c+d"),
		"delta/user/%20J%C3%BCrgen%20%25%7E%F0%9F%98%80%20":                      n.resourceWorkflowID("user", " Jürgen %~😀 "),
		"delta/user/" + strings.Repeat("a", 244):                                 n.resourceWorkflowID("user", strings.Repeat("a", 244)),
		"delta/user/" + strings.Repeat("a", 217) + "~xo57c2btmsz2p6fj2cszbh2vwm": n.resourceWorkflowID("user", strings.Repeat("a", 245)),
		"delta/user:batch/X":                                                     n.batchWorkflowID("user", "X"),
		"delta/user":                                                             n.taskQueue("user"),
		"delta/inform:user":                                                      n.informScheduleID("user"),
		"delta/installation:do-not-resume-or-delete":                             n.anchorScheduleID(),
		"mine":            temporalNames{prefix: "delta", queue: "mine"}.informTaskQueue("user"),
		long + "/" + long: temporalNames{prefix: long}.taskQueue(long),
		long + "/inform:" + long[:58] + "~2tld2gn7ancdr4zhc7gk7pue2i": temporalNames{prefix: long}.informScheduleID(long),
	} {
		require.Equal(t, want, got)
	}
}

func TestNamesHaveRoomForTemporalsSuffixes(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("k", maxNameBytes)
	kinds := []string{"u", "user", "inform", "installation", long, long[1:], long[:maxNameBytes-1] + "l", long[:maxNameBytes-1] + "m"}
	known := map[string]string{}
	for _, prefix := range []string{"d", "delta", long, long[1:]} {
		n := temporalNames{prefix: prefix}
		unique := func(of, name string) {
			require.Empty(t, known[name], "%s is also %s", name, of)
			known[name] = of
		}
		requireName(t, n.anchorScheduleID())
		requireName(t, schedulePrefix+n.anchorScheduleID())
		unique("installation of "+prefix, n.anchorScheduleID())
		for _, kind := range kinds {
			batch := n.batchWorkflowID(kind, rand.Text())
			requireName(t, batch)
			require.True(t, strings.HasPrefix(batch, n.batchIDPrefix(kind)))
			requireName(t, n.informScheduleID(kind)+"/"+rand.Text())
			requireName(t, n.informScheduleID(kind)+time.Now().UTC().Format(scheduledAt))
			requireName(t, schedulePrefix+n.informScheduleID(kind))
			requireName(t, n.taskQueue(kind))
			requireName(t, n.informTaskQueue(kind))
			of := kind + " of " + prefix
			unique("batches of "+of, n.batchIDPrefix(kind))
			unique("informs of "+of, n.informScheduleID(kind))
			unique("informs' task queue of "+of, "task queue "+n.informTaskQueue(kind))
			unique("task queue of "+of, "task queue "+n.taskQueue(kind)) // these are not workflows
			for _, id := range []string{"x", "batch/x", "~", strings.Repeat("x", db.MaxObjectIDBytes)} {
				resource := n.resourceWorkflowID(kind, id)
				unique(id+" of "+of, resource)
				for _, other := range kinds {
					require.False(t, strings.HasPrefix(resource, n.batchIDPrefix(other)), "%s is no batch", resource)
				}
			}
		}
	}
}
