package activities

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
)

// linesOf is a log, and its lines.
func linesOf() (logger *slog.Logger, lines func() []string) {
	var mu sync.Mutex
	var buf bytes.Buffer
	read := func() []string {
		mu.Lock()
		defer mu.Unlock()
		return strings.Split(strings.TrimSpace(buf.String()), "\n")
	}
	return slog.New(slog.NewTextHandler(writerFunc(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return buf.Write(p)
	}), nil)), read
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func requireFields(t *testing.T, line string, fields ...string) {
	t.Helper()
	for _, field := range fields {
		require.Contains(t, line+" ", " "+field+" ")
	}
}

// awayPool is that of a server that nobody reaches.
func awayPool(t *testing.T) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), "postgres://127.0.0.1:1/none?connect_timeout=1")
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

func TestClaimsThatCannotBeRenewedAreLoggedByTheirKinds(t *testing.T) {
	t.Parallel()
	log, lines := linesOf()
	c := NewClaims(awayPool(t), log)
	made := func(kind, workflowID string) *claim {
		return &claim{claims: c, claimOwner: claimOwner{kind, workflowID}, id: "00000000-0000-0000-0000-000000000001", period: time.Minute, renewed: time.Now()}
	}
	c.renewDue(t.Context(), map[time.Duration][]*claim{time.Minute: {
		made("user", "delta/user/ann"), made("page", "delta/page/batch"), made("user", "delta/user/bob"),
	}})
	require.Len(t, lines(), 2)
	requireFields(t, lines()[0], "level=WARN", "kind=page", "workflow_id=delta/page/batch", "claims=1")
	requireFields(t, lines()[1], "level=WARN", "kind=user", "workflow_id=delta/user/ann", "claims=2")
}

func TestTheEndOfAListingThatCannotBeNotedIsLoggedWithItsRun(t *testing.T) {
	t.Parallel()
	log, lines := linesOf()
	p := &pass{activities: &Activities{Pool: awayPool(t), Logger: silent}, logger: log.With("kind", "thing", "shard", "eu", "workflow_id", "delta/thing/inform")}
	r := &listingClaim{pass: p, claim: NewClaims(p.activities.Pool, silent).beginClaim(thingOwner, neverLost)}
	r.release()
	require.Len(t, lines(), 1)
	requireFields(t, lines()[0], "level=WARN", "kind=thing", "shard=eu", "workflow_id=delta/thing/inform")
}

// What a call returns after its attempt was closed is nowhere else.
func TestACallThatReturnsLateIsLoggedWithItsError(t *testing.T) {
	t.Parallel()
	log, lines := linesOf()
	e := &execution{Activities: &Activities{Logger: log}}
	fields := []any{"kind", "thing"}
	e.logReturned(userFunc{name: "Work"}, []Outcome{{}}, fields)
	e.logReturned(userFunc{name: "Work"}, []Outcome{{}, {Verdict: VerdictFailed, Error: "503"}}, fields)
	e.logReturned(userFunc{name: "Work"}, []Outcome{{Verdict: VerdictFailed, Error: "panic: no", Trace: "main.go:1"}}, fields)
	require.Len(t, lines(), 3)
	requireFields(t, lines()[0], "level=WARN", "kind=thing")
	require.NotContains(t, lines()[0], "error=")
	requireFields(t, lines()[1], "level=WARN", "kind=thing", "error=503")
	requireFields(t, lines()[2], "level=ERROR", "kind=thing", `error="panic: no"`, "stack=main.go:1")
}
