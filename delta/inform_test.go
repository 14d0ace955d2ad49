package delta_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/hostile"
	"github.com/chariot-giving/delta/internal/soak"
)

// optioned is an object with its own InformOpts.
type optioned struct {
	Name string
	opts delta.InformOpts
}

func (o optioned) ID() string                   { return o.Name }
func (o optioned) Kind() string                 { return "optioned" }
func (o optioned) InformOpts() delta.InformOpts { return o.opts }

func TestInformWithNilOptionsGivesTheDefaults(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	before := h.now()
	result, err := h.client(&delta.Config{}).Inform(t.Context(), account{Name: "ann"}, nil)
	require.NoError(t, err)

	stored := h.row("account", "ann")
	require.JSONEq(t, `{"name": "ann", "plan": ""}`, string(stored.EncodedObject))
	stored.EncodedObject = result.Resource.EncodedObject
	require.Equal(t, stored, result.Resource, "the answer is the row")

	require.Equal(t, "default", stored.Namespace)
	require.Equal(t, 10, stored.MaxAttempts)
	require.Equal(t, deltatype.ResourceStateScheduled, stored.State)
	require.EqualValues(t, 1, stored.Generation)
	require.Zero(t, stored.SyncedGeneration)
	require.Zero(t, stored.Attempt)
	require.JSONEq(t, `{}`, string(stored.Metadata))
	require.Empty(t, stored.Tags)
	require.NotNil(t, stored.DueAt)
	require.NotNil(t, stored.DispatchAt)
	require.WithinRange(t, stored.CreatedAt, before, h.now())
}

func TestInformOptionsOfTheCallWinOverTheObjectsOverTheDefaults(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.client(&delta.Config{})
	object := optioned{Name: "a", opts: delta.InformOpts{Namespace: "theirs", MaxAttempts: 3, Tags: []string{"one", "two"}}}

	result, err := c.Inform(t.Context(), object, &delta.InformOpts{MaxAttempts: 7, Tags: []string{"three"}, Metadata: []byte(`{"k": 1}`)})
	require.NoError(t, err)
	require.Equal(t, "theirs", result.Resource.Namespace)
	require.Equal(t, 7, result.Resource.MaxAttempts)
	require.Equal(t, []string{"three"}, result.Resource.Tags, "tags are replaced, not merged")
	require.JSONEq(t, `{"k": 1}`, string(result.Resource.Metadata))

	// Without options, the resource keeps its values, and nothing is written.
	object.opts = delta.InformOpts{}
	result, err = c.Inform(t.Context(), object, nil)
	require.NoError(t, err)
	require.False(t, result.Scheduled)
	require.Equal(t, "theirs", result.Resource.Namespace)
	require.Equal(t, 7, result.Resource.MaxAttempts)
	require.Equal(t, []string{"three"}, result.Resource.Tags)
	require.JSONEq(t, `{"k": 1}`, string(result.Resource.Metadata))

	// An empty slice is not nil: it removes the tags, which is no reason for a sync.
	result, err = c.Inform(t.Context(), object, &delta.InformOpts{Tags: []string{}})
	require.NoError(t, err)
	require.False(t, result.Scheduled)
	require.Empty(t, result.Resource.Tags)
}

func TestInformManyAnswersInOrderAndTheLastOfAnObjectCounts(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.client(&delta.Config{})
	results, err := c.InformMany(t.Context(), []delta.Object{
		account{Name: "zoe", Plan: "old"}, account{Name: "ann"}, optioned{Name: "x"}, account{Name: "zoe", Plan: "new"},
	}, nil)
	require.NoError(t, err)
	require.Len(t, results, 4)
	for i, id := range []string{"zoe", "ann", "x", "zoe"} {
		require.Equal(t, id, results[i].Resource.ObjectID)
		require.True(t, results[i].Scheduled)
	}
	require.JSONEq(t, `{"name": "zoe", "plan": "new"}`, string(h.row("account", "zoe").EncodedObject))
	require.EqualValues(t, 1, h.row("account", "zoe").Generation)

	none, err := c.InformMany(t.Context(), nil, nil)
	require.NoError(t, err)
	require.Empty(t, none)
}

func TestInformManyIsAllOrNothing(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	_, err := h.client(&delta.Config{}).InformMany(t.Context(), []delta.Object{account{Name: "ann"}, account{Name: ""}}, nil)
	require.ErrorContains(t, err, "objects[1]")
	require.Nil(t, h.row("account", "ann"))
}

func TestInformOfADegradedOrDeletedResourceRevivesIt(t *testing.T) {
	t.Parallel()
	for _, state := range []deltatype.ResourceState{
		deltatype.ResourceStateDegraded, deltatype.ResourceStateDeleted, deltatype.ResourceStateUnknown,
	} {
		t.Run(string(state), func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			c := h.client(&delta.Config{})
			_, err := c.Inform(t.Context(), account{Name: "ann"}, nil)
			require.NoError(t, err)
			_, err = h.Pool.Exec(t.Context(), "UPDATE delta_resource SET state = $1, attempt = 5", state)
			require.NoError(t, err)
			result, err := c.Inform(t.Context(), account{Name: "ann"}, nil)
			require.NoError(t, err)
			require.True(t, result.Scheduled)
			require.Equal(t, deltatype.ResourceStateScheduled, result.Resource.State)
			require.EqualValues(t, 2, result.Resource.Generation)
			require.Zero(t, result.Resource.Attempt)
		})
	}
}

func TestInformTxRollbackLeavesNothing(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	called := make(chan struct{}, 1)
	c := h.startWorker(func(context.Context, *delta.Resource[account]) error {
		called <- struct{}{}
		return nil
	})
	tx, err := h.Pool.Begin(t.Context())
	require.NoError(t, err)
	result, err := c.InformTx(t.Context(), tx, account{Name: "ann"}, nil)
	require.NoError(t, err)
	require.True(t, result.Scheduled)
	require.NoError(t, tx.Rollback(t.Context()))
	require.Nil(t, h.row("account", "ann"))

	// Only the later inform is synced.
	_, err = c.Inform(t.Context(), account{Name: "bob"}, nil)
	require.NoError(t, err)
	h.eventually("account", "bob", synced(1))
	require.Len(t, called, 1)
	require.Zero(t, h.countWakeUps("account", "ann"))
}

func TestInformTxIsSyncedAfterCommitAndNotBefore(t *testing.T) {
	t.Parallel()
	hostile.NeedsDirect(t, "no client hears the commit")
	h := newHarness(t)
	c := h.client(h.config(with(&controller[account]{})))
	c.SetTiming(0, time.Hour, 0) // so that only the commit can wake the dispatcher
	require.NoError(t, c.Start(t.Context()))
	tx, err := h.Pool.Begin(t.Context())
	require.NoError(t, err)
	defer tx.Rollback(t.Context()) //nolint:errcheck // does nothing after a commit
	_, err = c.InformManyTx(t.Context(), tx, []delta.Object{account{Name: "ann"}, account{Name: "bob"}}, nil)
	require.NoError(t, err)
	_, err = c.Inform(t.Context(), account{Name: "eve"}, nil)
	require.NoError(t, err)
	h.eventually("account", "eve", synced(1))
	require.Nil(t, h.row("account", "ann"), "not visible before the commit")

	require.NoError(t, tx.Commit(t.Context()))
	h.eventually("account", "ann", synced(1))
	h.eventually("account", "bob", synced(1))
	h.beganUnsignalled("account", "ann")
}

func TestInformWorksWhileTemporalIsDown(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	down, err := client.NewLazyClient(client.Options{HostPort: "127.0.0.1:1"})
	require.NoError(t, err)
	defer down.Close()
	config := h.config(with(&controller[account]{}))
	config.Temporal = down
	c := h.client(config)
	_, err = c.Inform(t.Context(), account{Name: "ann"}, nil)
	require.NoError(t, err)

	err = c.Start(t.Context())
	require.ErrorContains(t, err, "127.0.0.1:1")
	require.ErrorContains(t, err, "refused")
	_, err = c.Inform(t.Context(), account{Name: "bob"}, nil)
	require.NoError(t, err, "informing still works")

	// When Temporal is back, resources informed meanwhile are synced.
	h.startWorker(nil)
	h.eventually("account", "ann", synced(1))
	h.eventually("account", "bob", synced(1))
}

func TestAClientWithoutControllersInforms(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.startWorker(nil)
	informer := h.client(&delta.Config{})
	_, err := informer.Inform(t.Context(), account{Name: "ann"}, nil)
	require.NoError(t, err)
	h.eventually("account", "ann", synced(1))
	require.ErrorContains(t, informer.Start(t.Context()), "Controllers")
	require.NoError(t, informer.Stop(t.Context()))
}

func TestOthersAreNotifiedLongBeforeTheyPoll(t *testing.T) {
	hostile.NeedsDirect(t, "no client hears a notification, which its health says")
	t.Parallel()
	h := newHarness(t)
	worker := h.client(h.config(with(&controller[account]{})))
	worker.SetTiming(0, time.Hour, 0)
	require.NoError(t, worker.Start(t.Context()))
	t.Cleanup(func() { _ = worker.Stop(context.Background()) })
	// Wait for the first dispatch after start, which would find the row too.
	_, err := worker.Inform(t.Context(), account{Name: "first"}, nil)
	require.NoError(t, err)
	h.eventually("account", "first", synced(1))

	informer := h.client(&delta.Config{})
	for i := range 5 {
		id := fmt.Sprint("ann", i)
		_, err = informer.Inform(t.Context(), account{Name: id}, nil)
		require.NoError(t, err)
		h.eventually("account", id, synced(1))
	}
}

func TestConcurrentInformsOfOneNewObjectMakeOneRow(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.client(&delta.Config{})
	var wg sync.WaitGroup
	errs := make([]error, 24)
	for i := range errs {
		wg.Go(func() {
			result, err := c.Inform(t.Context(), account{Name: "ann"}, nil)
			if err == nil && result.Resource.Generation != 1 {
				err = fmt.Errorf("generation %d", result.Resource.Generation)
			}
			errs[i] = err
		})
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	require.EqualValues(t, 1, h.row("account", "ann").Generation)
}

func TestAnInformWhoseContextEndedHasTheCause(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.client(&delta.Config{})
	object := account{Name: "ann"}
	cause := errors.New("the shop is closed")
	for name, inform := range map[string]func(context.Context, pgx.Tx) error{
		"Inform": func(ctx context.Context, _ pgx.Tx) error { _, err := c.Inform(ctx, object, nil); return err },
		"InformMany": func(ctx context.Context, _ pgx.Tx) error {
			_, err := c.InformMany(ctx, []delta.Object{object}, nil)
			return err
		},
		"InformTx": func(ctx context.Context, tx pgx.Tx) error { _, err := c.InformTx(ctx, tx, object, nil); return err },
	} {
		t.Run(name, func(t *testing.T) {
			tx, err := h.Pool.Begin(t.Context())
			require.NoError(t, err)
			defer tx.Rollback(t.Context()) //nolint:errcheck // the connection may be closed
			ctx, cancel := context.WithCancelCause(t.Context())
			cancel(cause)
			err = inform(ctx, tx)
			require.ErrorIs(t, err, cause)
			require.ErrorIs(t, err, context.Canceled)
			require.ErrorContains(t, err, "inform account/ann")
		})
	}
}
