package activities

import (
	"context"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

const (
	// claimsPatience is how long these tests wait for what a busy machine may delay.
	claimsPatience = time.Minute
	// neverLost is a period that no busy machine lets pass without a renewal, shortPeriod one that passes soon.
	neverLost, shortPeriod = claimsPatience, time.Second
)

var thingOwner = claimOwner{"thing", "prefix/thing/a"}

var silent = slog.New(slog.NewTextHandler(io.Discard, nil))

// claimedRow informs an object, and claims it for a period.
func claimedRow(t *testing.T, pool *pgxpool.Pool, k *claim) (id int64) {
	t.Helper()
	_, err := db.InformRetrying(t.Context(), pool, []deltatype.ObjectInformParams{
		{Kind: "thing", ResourceID: "a", EncodedObject: []byte(`{}`), Hash: []byte("1")},
	}, db.InformOptions{DefaultMaxAttempts: 10})
	require.NoError(t, err)
	require.NoError(t, pool.QueryRow(t.Context(), "SELECT id FROM delta_resource").Scan(&id))
	claimAgain(t, pool, k, id)
	return id
}

func claimAgain(t *testing.T, pool *pgxpool.Pool, k *claim, id int64) {
	t.Helper()
	rows, err := db.New().ClaimResources(t.Context(), pool, db.ClaimResourcesParams{
		Claim: k.id, ClaimFor: k.period, WholeKind: true, Kind: "thing", Ids: []int64{id}, MaxErrors: MaxErrors, MostLost: maxLostSingle,
	})
	require.NoError(t, err)
	require.Len(t, rows, 1)
}

// requireEnd waits for the end of a context, and says why it ended.
func requireEnd(t *testing.T, ctx context.Context, reason error) {
	t.Helper()
	select {
	case <-ctx.Done():
		require.ErrorIs(t, context.Cause(ctx), reason)
	case <-time.After(claimsPatience):
		t.Fatal("the context does not end")
	}
}

// makeDue makes a claim due for a renewal at the next check.
func makeDue(k *claim) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.renewed = k.renewed.Add(-k.period / claimShare)
}

func TestAnOpenClaimIsRenewedBesideItsRow(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	pool := TestDatabase(t)
	claims := NewClaims(pool, silent)
	k := claims.beginClaim(thingOwner, neverLost)
	id := claimedRow(t, pool, k)
	ctx, end := context.WithCancelCause(t.Context())
	defer k.registerCall([]int64{id}, end)()
	var before time.Time
	require.NoError(t, pool.QueryRow(t.Context(), "SELECT claimed_until FROM delta_resource").Scan(&before))

	until := before
	for range 3 {
		makeDue(k)
		require.Eventually(t, func() bool {
			var now time.Time
			err := pool.QueryRow(t.Context(), "SELECT claimed_until FROM delta_claim WHERE id = $1", k.id).Scan(&now)
			renewed := err == nil && now.After(until)
			if renewed {
				until = now
			}
			return renewed
		}, claimsPatience, 10*time.Millisecond, "it is not renewed")
	}
	var after time.Time
	require.NoError(t, pool.QueryRow(t.Context(), "SELECT claimed_until FROM delta_resource").Scan(&after))
	require.Equal(t, before, after, "the row is written")
	require.NoError(t, ctx.Err())

	k.retain()
	k.release()
	k.release()
	require.Eventually(t, func() bool {
		claims.mu.Lock()
		defer claims.mu.Unlock()
		return !claims.isRunning
	}, claimsPatience, 10*time.Millisecond, "there is nothing to renew any more")
}

// It ends while nobody else can have claimed the row: the claim lasts for a sixth of its time yet.
func TestWorkEndsWhenItsClaimCannotBeRenewed(t *testing.T) {
	t.Parallel()
	for name, config := range map[string]string{
		"Postgres is not reached":  "postgres://127.0.0.1:1/none?connect_timeout=1",
		"Postgres does not answer": "",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := TestDatabase(t).Config()
			if config != "" {
				var err error
				c, err = pgxpool.ParseConfig(config)
				require.NoError(t, err)
			}
			c.MaxConns = 1
			pool, err := pgxpool.NewWithConfig(t.Context(), c)
			require.NoError(t, err)
			t.Cleanup(pool.Close)
			if config == "" {
				conn, err := pool.Acquire(t.Context()) // the only one
				require.NoError(t, err)
				defer conn.Release()
			}
			began := time.Now()
			k := NewClaims(pool, silent).beginClaim(thingOwner, shortPeriod)
			defer k.release()
			ctx, end := context.WithCancelCause(t.Context())
			defer k.registerCall([]int64{1}, end)()
			requireEnd(t, ctx, errClaimLost)
			require.GreaterOrEqual(t, time.Since(began), shortPeriod*5/6, "it gave up early")
			require.True(t, k.isLost())

			later, end := context.WithCancelCause(t.Context())
			defer k.registerCall([]int64{2}, end)()
			requireEnd(t, later, errClaimLost)
		})
	}
}

// untimed is a Handler without timeouts.
type untimed struct{ Handler }

func (untimed) WorkTimeout(*Task) time.Duration { return -1 }

// Others may have claimed the row while the call waited for a slot, or for a goroutine.
func TestWorkIsNotCalledWhenItsClaimWasLostMeanwhile(t *testing.T) {
	t.Parallel()
	claims := NewClaims(nil, silent)
	claims.isRunning = true // as if the goroutine that renews claims, and finds them lost, got no processor
	for _, lost := range []bool{false, true} {
		k := claims.beginClaim(thingOwner, neverLost)
		e := &execution{Activities: &Activities{Handler: untimed{}, Logger: silent}, claim: k, base: t.Context()}
		one := &claimed{}
		one.makeTask(e, &db.Resource{ID: 1}, time.Now())
		one.task.Row = &deltatype.ResourceRow{}
		called := false
		outcomes := e.callUser([]*claimed{one}, one.ownTask[:], userFunc{"Work", func(context.Context, []*Task) []Outcome {
			called = true
			return []Outcome{{Verdict: VerdictSynced}}
		}}, func(call func()) {
			if lost {
				k.renewed = time.Now().Add(-neverLost * 5 / 6)
			}
			go call()
		})
		require.Equal(t, !lost, called)
		require.Equal(t, map[bool]Verdict{false: VerdictSynced, true: VerdictReleased}[lost], outcomes[0].Verdict)
	}
}

func TestWorkEndsWhenItsRowHasAnotherClaimOrIsGone(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]string{
		"another claim": "UPDATE delta_resource SET claim = gen_random_uuid()",
		"no claim":      "UPDATE delta_resource SET claim = NULL, claimed_until = NULL",
		"gone":          "DELETE FROM delta_resource",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := TestDatabase(t)
			k := NewClaims(pool, silent).beginClaim(thingOwner, neverLost)
			defer k.release()
			id := claimedRow(t, pool, k)
			ctx, end := context.WithCancelCause(t.Context())
			defer k.registerCall([]int64{id, id + 1000}, end)() // the rows of one call
			_, err := pool.Exec(t.Context(), change)
			require.NoError(t, err)
			makeDue(k)
			requireEnd(t, ctx, errClaimLost)
		})
	}
}

// A failover has lost the claim, and the same client has claimed the row again: the old call ends, and the new one goes on.
func TestOnlyTheCallWithAReplacedClaimEnds(t *testing.T) {
	t.Parallel()
	pool := TestDatabase(t)
	claims := NewClaims(pool, silent)
	var calls [8]context.Context
	var last *claim
	var id int64
	for i := range calls {
		k := claims.beginClaim(thingOwner, neverLost)
		defer k.release()
		if i == 0 {
			id = claimedRow(t, pool, k)
		} else {
			_, err := pool.Exec(t.Context(), "UPDATE delta_resource SET claimed_until = now()")
			require.NoError(t, err)
			claimAgain(t, pool, k, id)
		}
		ctx, end := context.WithCancelCause(t.Context())
		defer k.registerCall([]int64{id}, end)()
		calls[i], last = ctx, k
	}
	claims.mu.Lock()
	for k := range claims.open {
		makeDue(k)
	}
	claims.mu.Unlock()
	for _, replaced := range calls[:len(calls)-1] {
		requireEnd(t, replaced, errClaimLost)
	}
	require.NoError(t, calls[len(calls)-1].Err())
	require.False(t, last.isLost())
}

func TestACommandThatDeletesEndsWorkUnlessItIsForOthersToo(t *testing.T) {
	t.Parallel()
	pool := TestDatabase(t)
	claims := NewClaims(pool, silent)
	k := claims.beginClaim(thingOwner, neverLost)
	defer k.release()
	id := claimedRow(t, pool, k)
	one, end := context.WithCancelCause(t.Context())
	stop := k.registerCall([]int64{id}, end)
	_, err := RunCommand(t.Context(), pool, "thing", "a", CommandDelete, Retention{DeletedRetention: time.Hour})
	require.NoError(t, err)
	makeDue(k)
	requireEnd(t, one, errDeleted)
	stop()

	_, err = db.InformRetrying(t.Context(), pool, []deltatype.ObjectInformParams{
		{Kind: "thing", ResourceID: "b", EncodedObject: []byte(`{}`), Hash: []byte("1")},
	}, db.InformOptions{DefaultMaxAttempts: 10})
	require.NoError(t, err)
	var other int64
	require.NoError(t, pool.QueryRow(t.Context(), "SELECT id FROM delta_resource WHERE object_id = 'b'").Scan(&other))
	claimAgain(t, pool, k, other)
	many, end := context.WithCancelCause(t.Context())
	defer end(nil)
	defer k.registerCall([]int64{id, other}, end)()
	require.NoError(t, claims.renewClaims(t.Context(), k.period, []*claim{k}))
	require.NoError(t, many.Err(), "a call for many ends for the sake of one")
}
