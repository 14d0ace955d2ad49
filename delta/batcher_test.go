package delta_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
)

// raw is an object with arbitrary JSON.
type raw struct {
	Name string          `json:"name"`
	Body json.RawMessage `json:"body"`
}

func (r raw) ID() string   { return r.Name }
func (r raw) Kind() string { return "raw" }

// Concurrent informs share a statement: each caller still gets the row of its own object, each change counts once, and only the object that Postgres
// refuses fails.
func TestInformsThatComeTogetherAreWrittenTogether(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.client(&delta.Config{})
	defer c.Stop(t.Context()) //nolint:errcheck // nothing is running

	const callers, calls, names = 16, 20, 5
	var scheduled [names]atomic.Int64
	var all sync.WaitGroup
	for caller := range callers {
		all.Go(func() {
			for call := range calls {
				shared := call % names
				result, err := c.Inform(t.Context(), account{Name: fmt.Sprint("shared-", shared), Plan: fmt.Sprintf("%d-%d", caller, call)}, nil)
				if err != nil || result.Resource.ObjectID != fmt.Sprint("shared-", shared) || !result.Scheduled {
					t.Errorf("shared: %+v %v", result, err)
					return
				}
				scheduled[shared].Add(1)

				own := account{Name: fmt.Sprintf("own-%d-%d", caller, call)}
				result, err = c.Inform(t.Context(), own, nil)
				if err != nil || result.Resource.ObjectID != own.Name || !result.Scheduled || result.AlreadyExists {
					t.Errorf("own: %+v %v", result, err)
					return
				}
				result, err = c.Inform(t.Context(), own, nil)
				if err != nil || result.Resource.ObjectID != own.Name || result.Scheduled || !result.AlreadyExists {
					t.Errorf("own, once more: %+v %v", result, err)
					return
				}
				if call%10 != 0 {
					continue
				}
				// JSON with invalid Unicode: encoding/json accepts it, jsonb does not.
				_, err = c.Inform(t.Context(), raw{fmt.Sprintf("bad-%d-%d", caller, call), json.RawMessage(`"\ud800"`)}, nil)
				if err == nil {
					t.Error("a lone surrogate was accepted")
				}
			}
		})
	}
	all.Wait()
	for i := range names {
		require.Equal(t, scheduled[i].Load(), h.row("account", fmt.Sprint("shared-", i)).Generation)
	}
}

// A row that another transaction has locked blocks only informs of the same object.
func TestALockedRowBlocksOnlyItsOwnInforms(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.client(&delta.Config{})
	defer c.Stop(t.Context()) //nolint:errcheck // nothing is running
	_, err := c.Inform(t.Context(), account{Name: "held"}, nil)
	require.NoError(t, err)

	tx, err := h.Pool.Begin(t.Context())
	require.NoError(t, err)
	defer tx.Rollback(context.Background()) //nolint:errcheck // it is committed below
	for _, name := range []string{"held", "held-new"} {
		_, err = c.InformTx(t.Context(), tx, account{Name: name, Plan: "in the transaction"}, nil)
		require.NoError(t, err)
	}

	var held, others sync.WaitGroup
	var done atomic.Int64
	for _, name := range []string{"held", "held-new"} {
		held.Go(func() {
			if _, err := c.Inform(t.Context(), account{Name: name, Plan: "meanwhile"}, nil); err != nil {
				t.Error(err)
			}
			done.Add(1)
		})
	}
	for i := range 200 {
		others.Go(func() {
			if _, err := c.Inform(t.Context(), account{Name: fmt.Sprint("free-", i)}, nil); err != nil {
				t.Error(err)
			}
		})
	}
	others.Wait()
	require.Zero(t, done.Load(), "an inform of a locked object waits")
	require.NoError(t, tx.Commit(t.Context()))
	held.Wait()
	require.EqualValues(t, 3, h.row("account", "held").Generation)
	require.EqualValues(t, 2, h.row("account", "held-new").Generation)
}

// A caller whose context ends gets the context's error at once, and other callers get their results.
func TestACallerThatGivesUpDoesNotCancelTheOthers(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.client(&delta.Config{})
	defer c.Stop(t.Context()) //nolint:errcheck // nothing is running

	leaves := errors.New("no longer waits")
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			if i%2 == 0 {
				go func() {
					time.Sleep(time.Duration(i) * 50 * time.Microsecond)
					cancel(leaves)
				}()
			}
			result, err := c.Inform(ctx, account{Name: fmt.Sprint("a-", i)}, nil)
			switch {
			case i%2 == 1 && (err != nil || result.Resource.ObjectID != fmt.Sprint("a-", i)):
				t.Errorf("%d: %v", i, err)
			case err != nil && !errors.Is(err, leaves):
				t.Errorf("%d: %v", i, err)
			}
		})
	}
	all.Wait()
}
