package db_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

func TestANewObjectIsScheduledWithDefaults(t *testing.T) {
	t.Parallel()
	eachWay(t, aNewObjectIsScheduledWithDefaults)
}

func aNewObjectIsScheduledWithDefaults(t *testing.T, inform way) {
	t.Helper()
	env := deltatest.New(t)
	result := inform(t, env.Pool, object("a", "1"), plain)
	require.False(t, result.AlreadyExists)
	require.True(t, result.Scheduled)

	row := read(t, env.Pool, "a")
	require.JSONEq(t, string(result.Resource.EncodedObject), string(row.EncodedObject))
	row.EncodedObject = result.Resource.EncodedObject // jsonb changes the spacing
	require.Equal(t, row, result.Resource)
	require.Equal(t, deltatype.ResourceStateScheduled, row.State)
	require.EqualValues(t, 1, row.Generation)
	require.Equal(t, "default", row.Namespace)
	require.Equal(t, 7, row.MaxAttempts)
	require.JSONEq(t, "{}", string(row.Metadata))
	require.Empty(t, row.Tags)
	require.NotNil(t, row.DueAt)
	require.NotNil(t, row.DispatchAt)
}

func TestOptionsNotGivenAreKeptAndOptionsGivenAreReplaced(t *testing.T) {
	t.Parallel()
	eachWay(t, optionsNotGivenAreKeptAndOptionsGivenAreReplaced)
}

func optionsNotGivenAreKeptAndOptionsGivenAreReplaced(t *testing.T, inform way) {
	t.Helper()
	env := deltatest.New(t)
	first := object("a", "1")
	first.Namespace, first.Metadata, first.Tags, first.MaxAttempts = "space", []byte(`{"k": 1}`), []string{"one", "two"}, 3
	created := time.Date(2020, 1, 2, 3, 4, 5, 0, time.FixedZone("", -3600))
	first.CreatedAt = &created
	inform(t, env.Pool, first, plain)

	kept := inform(t, env.Pool, object("a", "2"), plain).Resource
	require.EqualValues(t, 2, kept.Generation)
	require.Equal(t, "space", kept.Namespace)
	require.JSONEq(t, `{"k": 1}`, string(kept.Metadata))
	require.Equal(t, []string{"one", "two"}, kept.Tags)
	require.Equal(t, 3, kept.MaxAttempts)
	require.Equal(t, created.UTC(), *kept.ExternalCreatedAt)

	// Each option by itself is a change, and changes nothing else. Metadata and tags are no reason to call Work, unless that is asked for.
	generation := int64(2)
	for _, change := range []struct {
		name      string
		scheduled bool
		set       func(*deltatype.ObjectInformParams)
		want      func(*deltatype.ResourceRow)
	}{
		{"namespace", true, func(p *deltatype.ObjectInformParams) { p.Namespace, p.MoveNamespace = "other", true }, func(r *deltatype.ResourceRow) { r.Namespace = "other" }},
		{"metadata", false, func(p *deltatype.ObjectInformParams) { p.Metadata = []byte(`{"z":2}`) }, func(r *deltatype.ResourceRow) { r.Metadata = []byte(`{"z": 2}`) }},
		{"tags", false, func(p *deltatype.ObjectInformParams) { p.Tags = []string{`odd "}{,\`} }, func(r *deltatype.ResourceRow) { r.Tags = []string{`odd "}{,\`} }},
		{"no tags", false, func(p *deltatype.ObjectInformParams) { p.Tags = []string{} }, func(r *deltatype.ResourceRow) { r.Tags = []string{} }},
		{"metadata and Work", true, func(p *deltatype.ObjectInformParams) { p.Metadata, p.SyncMetadata = []byte(`{"z":3}`), true }, func(r *deltatype.ResourceRow) { r.Metadata = []byte(`{"z": 3}`) }},
		{"tags and Work", true, func(p *deltatype.ObjectInformParams) { p.Tags, p.SyncMetadata = []string{"new"}, true }, func(r *deltatype.ResourceRow) { r.Tags = []string{"new"} }},
		{"max attempts", true, func(p *deltatype.ObjectInformParams) { p.MaxAttempts = 9 }, func(r *deltatype.ResourceRow) { r.MaxAttempts = 9 }},
	} {
		want := read(t, env.Pool, "a")
		change.want(want)
		next := object("a", "2")
		change.set(&next)
		for _, scheduled := range []bool{change.scheduled, false} {
			result := inform(t, env.Pool, next, plain)
			require.Equal(t, scheduled, result.Scheduled, change.name)
			require.Equal(t, want.Tags, result.Resource.Tags, change.name)
			require.JSONEq(t, string(want.Metadata), string(result.Resource.Metadata), change.name)
		}
		if change.scheduled {
			generation++
		}
		got := read(t, env.Pool, "a")
		require.Equal(t, generation, got.Generation, change.name)
		require.Equal(t, change.scheduled, got.GenerationAt.After(want.GenerationAt), change.name)
		want.Generation, want.GenerationAt, want.DueAt, want.DispatchAt = got.Generation, got.GenerationAt, got.DueAt, got.DispatchAt
		require.Equal(t, want, got, change.name)
	}
}

func TestTheLastOfAnObjectGivenTwiceCounts(t *testing.T) {
	t.Parallel()
	env := deltatest.New(t)
	results, err := db.Inform(t.Context(), env.Pool, []deltatype.ObjectInformParams{
		object("b", "other"), object("a", "first"), object("c", "other"), object("a", "last"),
	}, plain)
	require.NoError(t, err)
	for i, id := range []string{"b", "a", "c", "a"} {
		require.Equal(t, id, results[i].Resource.ObjectID, "results are in the order of the objects")
	}
	require.Equal(t, results[3], results[1])
	require.Equal(t, object("a", "last").Hash, results[1].Resource.Hash)
	require.Equal(t, object("a", "last").EncodedObject, results[1].Resource.EncodedObject)
	require.EqualValues(t, 1, read(t, env.Pool, "a").Generation, "one write")
}

func TestAnEmptySetIsNoStatement(t *testing.T) {
	t.Parallel()
	results, err := db.Inform(t.Context(), nil, nil, plain)
	require.NoError(t, err)
	require.Empty(t, results)
}

func TestAnUnchangedRowIsNeitherWrittenNorLocked(t *testing.T) {
	t.Parallel()
	eachWay(t, anUnchangedRowIsNeitherWrittenNorLocked)
}

func anUnchangedRowIsNeitherWrittenNorLocked(t *testing.T, inform way) {
	t.Helper()
	env := deltatest.New(t)
	o := object("a", "1")
	o.Namespace, o.Metadata, o.Tags, o.MaxAttempts = "space", []byte(`{"k":1}`), []string{"one"}, 3
	inform(t, env.Pool, o, plain)
	set(t, env.Pool, "a", "state = 'synced', synced_generation = generation, due_at = NULL, dispatch_at = NULL")

	tuple := func() (v [3]string) {
		err := env.Pool.QueryRow(t.Context(), "SELECT xmin::text, ctid::text, xmax::text FROM delta_resource WHERE object_id = 'a'").Scan(&v[0], &v[1], &v[2])
		require.NoError(t, err)
		return v
	}
	before := tuple()
	require.Equal(t, "0", before[2], "nothing has locked the row yet")
	for _, same := range []deltatype.ObjectInformParams{o, object("a", "1")} {
		result := inform(t, env.Pool, same, db.InformOptions{DefaultMaxAttempts: 7, Revive: true, Notify: true})
		require.True(t, result.AlreadyExists)
		require.False(t, result.Scheduled)
		require.Equal(t, before, tuple())
	}

	// Nor does it wait for a lock that somebody else has.
	tx, err := env.Pool.Begin(t.Context())
	require.NoError(t, err)
	defer tx.Rollback(context.Background()) //nolint:errcheck // ends the lock
	_, err = tx.Exec(t.Context(), "SELECT FROM delta_resource WHERE object_id = 'a' FOR UPDATE")
	require.NoError(t, err)
	conn, err := env.Pool.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	_, err = conn.Exec(t.Context(), "SET lock_timeout = '10 s'") // counts nothing but time that is spent on waiting for a lock
	require.NoError(t, err)
	_, err = db.Inform(t.Context(), conn, []deltatype.ObjectInformParams{o}, plain)
	require.NoError(t, err, "an unchanged object waits for the lock of another transaction")
}

// What each state makes of an inform: of an object that changed or not, by a user (revive) or an informer.
func TestWhatAnInformSchedulesInEachState(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	eachWay(t, whatAnInformSchedulesInEachState)
}

func whatAnInformSchedulesInEachState(t *testing.T, inform way) {
	t.Helper()
	env := deltatest.New(t)
	type how struct{ changed, revive, existing bool }
	user, informer, existing := how{revive: true}, how{}, how{existing: true}
	changedByUser, changedByInformer, changedExisting := how{changed: true, revive: true}, how{changed: true}, how{changed: true, existing: true}
	live := []how{changedByUser, changedByInformer, changedExisting}
	for _, c := range []struct {
		state     deltatype.ResourceState
		cause     deltatype.Cause
		scheduled []how
	}{
		{deltatype.ResourceStateScheduled, deltatype.CauseUnlisted, live},
		{deltatype.ResourceStatePending, deltatype.CauseUnlisted, live},
		{deltatype.ResourceStateSynced, deltatype.CauseUnlisted, append([]how{existing}, live...)},
		{deltatype.ResourceStateFailed, deltatype.CauseUnlisted, append([]how{existing}, live...)},
		{deltatype.ResourceStateExpired, deltatype.CauseUnlisted, append([]how{existing}, live...)},
		{deltatype.ResourceStateDegraded, deltatype.CauseHopeless, append([]how{existing, user}, live...)},
		{deltatype.ResourceStateDegraded, deltatype.CauseExhausted, append([]how{existing, user, informer}, live...)},
		{deltatype.ResourceStateUnknown, deltatype.CauseUnlisted, append([]how{existing, user}, live...)},
		{deltatype.ResourceStateDeleted, deltatype.CauseCommand, []how{user, changedByUser}},
		{deltatype.ResourceStateDeleted, deltatype.CauseWork, []how{user, changedByUser}},
		{deltatype.ResourceStateDeleted, deltatype.CauseUnlisted, append([]how{existing, user, informer}, live...)},
	} {
		for _, h := range []how{user, informer, existing, changedByUser, changedByInformer, changedExisting} {
			name := fmt.Sprintf("%s, %s/%+v", c.state, c.cause, h)
			inform(t, env.Pool, object(name, "1"), plain)
			set(t, env.Pool, name, fmt.Sprintf("state = '%s', cause = '%s', attempt = 2, generation = 5, due_at = NULL", c.state, c.cause))
			before := read(t, env.Pool, name)

			content := "1"
			if h.changed {
				content = "2"
			}
			result := inform(t, env.Pool, object(name, content), db.InformOptions{
				DefaultMaxAttempts: 7, Revive: h.revive, ProcessExisting: h.existing,
			})
			require.True(t, result.AlreadyExists, name)
			after := read(t, env.Pool, name)
			expected := false
			for _, s := range c.scheduled {
				expected = expected || s == h
			}
			require.Equal(t, expected, result.Scheduled, name)
			if !expected {
				require.Equal(t, before, after, name)
				continue
			}
			require.Equal(t, deltatype.ResourceStateScheduled, after.State, name)
			require.EqualValues(t, 6, after.Generation, name)
			require.Zero(t, after.Attempt, name)
			require.NotNil(t, after.DueAt, name)
			require.Equal(t, object(name, content).Hash, after.Hash, name)
		}
	}
}

func TestATransactionNotifiesOnceAKindAtCommitAndNotAtRollback(t *testing.T) {
	t.Parallel()
	env := deltatest.New(t)
	informSet(t, env.Pool, object("same", "1"), plain)
	installation, err := db.New().GetInstallation(t.Context(), env.Pool)
	require.NoError(t, err)
	conn, err := pgx.Connect(t.Context(), env.DatabaseURL)
	require.NoError(t, err)
	defer conn.Close(context.Background()) //nolint:errcheck // the test is over
	_, err = conn.Exec(t.Context(), `LISTEN "delta_`+installation.ID+`"`)
	require.NoError(t, err)

	noted := db.InformOptions{DefaultMaxAttempts: 7, Notify: true}
	transaction := func(commit bool, objects ...deltatype.ObjectInformParams) {
		tx, err := env.Pool.Begin(t.Context())
		require.NoError(t, err)
		defer tx.Rollback(context.Background()) //nolint:errcheck // after a commit it does nothing
		_, err = db.Inform(t.Context(), tx, objects, noted)
		require.NoError(t, err)
		if commit {
			require.NoError(t, tx.Commit(t.Context()))
		}
	}
	other := object("z", "1")
	other.Kind = "other"
	lost := object("z", "1")
	lost.Kind = "lost"
	unchanged := object("same", "1")

	transaction(false, lost)
	transaction(true, unchanged)
	transaction(true, object("a", "1"), object("b", "1"), other)
	_, err = env.Pool.Exec(t.Context(), `SELECT pg_notify('delta_' || $1, 'end')`, installation.ID)
	require.NoError(t, err)

	var heard []string
	for len(heard) == 0 || heard[len(heard)-1] != "end" {
		n, err := conn.WaitForNotification(t.Context())
		require.NoError(t, err)
		heard = append(heard, n.Payload)
	}
	require.ElementsMatch(t, []string{"other", "thing", "end"}, heard)
}
