package deltatest_test

import (
	"context"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/delta/deltatype"
)

func TestCompleteTxDecidesByTheCommit(t *testing.T) {
	t.Parallel()
	env := deltatest.New(t)
	_, err := env.Pool.Exec(t.Context(), "CREATE TABLE shipped (number text)")
	require.NoError(t, err)
	// beginner begins the transactions of Work: a pool, or a transaction with savepoints.
	type beginner interface {
		Begin(ctx context.Context) (pgx.Tx, error)
	}
	work := func(t *testing.T, in beginner, conn deltatest.DB, end func(context.Context, pgx.Tx) error) *deltatest.Outcome[parcel] {
		t.Helper()
		controller := &parcels{work: func(ctx context.Context, r *delta.Resource[parcel]) error {
			tx, err := in.Begin(ctx)
			if err != nil {
				return err
			}
			defer func() { _ = tx.Rollback(ctx) }()
			if _, err := tx.Exec(ctx, "INSERT INTO shipped VALUES ($1)", r.Object.Number); err != nil {
				return err
			}
			if err := r.CompleteTx(ctx, tx); err != nil {
				return err
			}
			return end(ctx, tx)
		}}
		o, err := deltatest.Work(t.Context(), controller, parcel{Number: "1"}, &deltatest.WorkOpts{DB: conn})
		require.NoError(t, err)
		return o
	}
	commit := func(ctx context.Context, tx pgx.Tx) error { return tx.Commit(ctx) }
	late := func(ctx context.Context, tx pgx.Tx) error { return errors.Join(tx.Commit(ctx), errBoom) }
	forget := func(context.Context, pgx.Tx) error { return nil }
	fail := func(context.Context, pgx.Tx) error { return errBoom }
	check := func(t *testing.T, in beginner, conn deltatest.DB) {
		t.Helper()
		require.Equal(t, deltatype.ResourceStateSynced, work(t, in, conn, commit).State)
		o := work(t, in, conn, late)
		require.Equal(t, deltatype.ResourceStateSynced, o.State, "the error came too late")
		require.NoError(t, o.Err)
		o = work(t, in, conn, forget)
		require.Equal(t, deltatype.ResourceStateFailed, o.State)
		require.Equal(t, "Work returned nil after CompleteTx, but the transaction was not committed", o.Failure)
		require.Equal(t, "boom", work(t, in, conn, fail).Failure)
	}
	check(t, env.Pool, env.Pool)

	outer, err := env.Pool.Begin(t.Context())
	require.NoError(t, err)
	check(t, outer, outer)
	var n int
	require.NoError(t, outer.QueryRow(t.Context(), "SELECT count(*) FROM shipped").Scan(&n))
	require.Equal(t, 4, n)
	require.NoError(t, outer.Rollback(t.Context()))
	require.NoError(t, env.Pool.QueryRow(t.Context(), "SELECT count(*) FROM shipped").Scan(&n))
	require.Equal(t, 2, n, "savepoints belong to the outer transaction")

	o := work(t, env.Pool, nil, commit)
	require.Equal(t, deltatype.ResourceStateFailed, o.State)
	require.Contains(t, o.Failure, "this is a rehearsal without a database: name the one in which Work begins its transactions")
	// The attempt fails even if Work ignores the error.
	ignores := &parcels{work: func(ctx context.Context, r *delta.Resource[parcel]) error {
		_ = r.CompleteTx(ctx, outer)
		return nil
	}}
	o, err = deltatest.Work(t.Context(), ignores, parcel{Number: "1"}, nil)
	require.NoError(t, err)
	require.Equal(t, deltatype.ResourceStateFailed, o.State)

	// If the database cannot be asked, there is an error and no outcome.
	closed, err := pgx.Connect(t.Context(), env.DatabaseURL)
	require.NoError(t, err)
	commits := &parcels{work: func(ctx context.Context, r *delta.Resource[parcel]) error {
		return pgx.BeginFunc(ctx, closed, func(tx pgx.Tx) error { return r.CompleteTx(ctx, tx) })
	}}
	breaks := &parcels{work: func(ctx context.Context, r *delta.Resource[parcel]) error {
		err := commits.work(ctx, r)
		_ = closed.Close(ctx)
		return err
	}}
	_, err = deltatest.Work(t.Context(), breaks, parcel{Number: "1"}, &deltatest.WorkOpts{DB: closed})
	require.ErrorContains(t, err, "asking WorkOpts.DB whether the transaction of CompleteTx was committed")
}
