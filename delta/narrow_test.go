package delta_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// No code asks for a connection while holding one: a pool of a single connection, which Work uses too, is slow but sufficient.
func TestOneConnectionSuffices(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	t.Run("each", func(t *testing.T) {
		soak.Rare(t)
		t.Parallel()
		testOneConnection(t, func(a account) each { return each{a} })
	})
	t.Run("batched", func(t *testing.T) {
		t.Parallel()
		testOneConnection(t, func(a account) batched { return batched{a} })
	})
}

func testOneConnection[T delta.Object](t *testing.T, object func(account) T) {
	h := &harness{t: t, Env: deltatest.New(t, deltatest.WithMaxConns(1))}
	stuck := make(chan struct{}, 100)
	config := h.config(with(&controller[T]{
		work: func(ctx context.Context, r *delta.Resource[T]) error {
			if r.ObjectID[:2] == "is" {
				stuck <- struct{}{}
				<-ctx.Done()
				return ctx.Err()
			}
			return pgx.BeginFunc(ctx, h.Pool, func(tx pgx.Tx) error { return r.CompleteTx(ctx, tx) })
		},
		inform: func(context.Context, *delta.InformOptions) (<-chan T, error) {
			listed := make(chan T, 30)
			defer close(listed)
			for _, name := range names("listed", 30) {
				listed <- object(account{Name: name})
			}
			return listed, nil
		},
	}))
	var logs logBuffer
	config.Logger = logs.logger()
	c := h.start(config)
	// A deadlock would wait for ever, so this bound may be long.
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	objects := makeObjects(object, names("ok", 50)...)
	kind := objects[0].Kind()
	filter := delta.Filter{Kinds: []string{kind}}

	_, err := c.InformMany(ctx, objects[:30], nil)
	require.NoError(t, err)
	for _, o := range objects[30:40] {
		_, err := c.Inform(ctx, o, nil)
		require.NoError(t, err)
	}
	require.NoError(t, pgx.BeginFunc(ctx, h.Pool, func(tx pgx.Tx) error {
		_, err := c.InformManyTx(ctx, tx, objects[40:], nil)
		return err
	}))
	for _, o := range objects {
		h.eventually(kind, o.ID(), synced(1))
	}
	row, err := c.Sync(ctx, object(account{Name: "ok00", Plan: "new"}), nil)
	require.NoError(t, err)
	require.EqualValues(t, 2, row.SyncedGeneration)

	invalidated, err := c.InvalidateAll(ctx, filter)
	require.NoError(t, err)
	require.Equal(t, 50, invalidated)
	for _, o := range objects {
		h.eventually(kind, o.ID(), func(r *deltatype.ResourceRow) bool {
			return r.SyncCount >= 2 && r.State == deltatype.ResourceStateSynced
		})
	}
	run, err := c.RunInform(ctx, delta.ScheduleInformParams{ResourceKind: kind, RunForeground: true}, nil)
	require.NoError(t, err)
	require.Equal(t, 30, run.Listed)
	deleted, err := c.DeleteAll(ctx, filter)
	require.NoError(t, err)
	require.Equal(t, 80, deleted)

	_, err = c.InformMany(ctx, makeObjects(object, names("is busy", 50)...), nil)
	require.NoError(t, err)
	<-stuck
	ended, stop := context.WithTimeout(ctx, 100*time.Millisecond)
	defer stop()
	require.ErrorIs(t, c.Stop(ended), context.DeadlineExceeded)
	h.closesAttempts(&logs)

	// More than one statement takes, so that there is a transaction.
	_, err = c.InformMany(ctx, makeObjects(object, names("more", 3000)...), nil)
	require.NoError(t, err)
	until(t, func() bool { return h.Pool.Stat().AcquiredConns() == 0 }, "other clients are notified in the background")
}
