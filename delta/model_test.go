package delta_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

const (
	modelResources = 8
	modelAttempts  = 3
)

// model is what the test knows of the outside world: what Work wrote there last, for which generation.
type model struct {
	t      *testing.T
	h      *harness
	random *rand.Rand
	calm   atomic.Bool

	mu    sync.Mutex
	world map[string]outcome
	calls int
}

type outcome struct {
	generation int64
	plan       string
}

// work is the controller: while the storm lasts, anything may come of a call.
func (m *model) work(ctx context.Context, r *delta.Resource[account]) error {
	m.mu.Lock()
	m.calls++
	dice := m.random.IntN(12)
	pause := time.Duration(m.random.IntN(30)) * time.Millisecond
	before := m.world[r.ObjectID]
	if r.Generation < before.generation {
		m.t.Errorf("%s: generation %d is worked after %d", r.ObjectID, r.Generation, before.generation)
	}
	if r.Attempt > modelAttempts {
		m.t.Errorf("%s: attempt %d of %d", r.ObjectID, r.Attempt, modelAttempts)
	}
	m.world[r.ObjectID] = outcome{r.Generation, r.Object.Plan}
	m.mu.Unlock()
	select {
	case <-time.After(pause):
	case <-ctx.Done():
		return ctx.Err()
	}
	if m.calm.Load() {
		return nil
	}
	switch dice {
	case 0, 1:
		return errors.New("no luck")
	case 2:
		return delta.ResourceSnooze(pause)
	case 3:
		return delta.ResourceDegrade(errors.New("hopeless"))
	case 4:
		return delta.ResourceDelete(nil)
	case 5:
		panic("out of order")
	case 6, 7:
		tx, err := m.h.Pool.Begin(ctx)
		if err != nil {
			return err
		}
		defer tx.Rollback(context.Background()) //nolint:errcheck // after a commit it does nothing
		if err := r.CompleteTx(ctx, tx); err != nil || dice == 7 {
			return err
		}
		return tx.Commit(ctx)
	}
	return nil
}

// act does one thing to one resource, as users, operators and time do.
func (m *model) act(ctx context.Context, c *delta.Client, dice int, id string) error {
	switch dice {
	case 0:
		_, err := c.Invalidate(ctx, account{Name: id})
		return allowed(err)
	case 1:
		_, err := c.Retry(ctx, "account", id)
		return allowed(err)
	case 2:
		_, err := c.Delete(ctx, "account", id)
		return allowed(err)
	case 3:
		_, err := c.Pause(ctx, "account", id)
		return allowed(err)
	case 4:
		_, err := c.Resume(ctx, "account", id)
		return allowed(err)
	case 5:
		_ = m.h.Temporal.SignalWorkflow(ctx, m.h.Prefix+"/account/"+id, "", "wake", nil)
	case 6:
		_ = m.h.Temporal.SignalWorkflow(ctx, m.h.Prefix+"/account/"+id, "", "invalidate", nil)
	case 7:
		_ = m.h.Temporal.TerminateWorkflow(ctx, m.h.Prefix+"/account/"+id, "", "the storm")
	case 8:
		// It rests no longer.
		_, err := m.h.Pool.Exec(ctx, "UPDATE delta_resource SET due_at = now(), dispatch_at = now() WHERE object_id = $1 AND state = 'synced'", id)
		return err
	default:
		_, err := c.Inform(ctx, account{Name: id, Plan: strconv.Itoa(dice)}, &delta.InformOpts{MaxAttempts: modelAttempts})
		return err
	}
	return nil
}

// allowed lets pass what the state of a resource may forbid.
func allowed(err error) error {
	if errors.Is(err, delta.ErrNotFound) || errors.As(err, new(*delta.StateError)) {
		return nil
	}
	return err
}

// Whatever happens to resources, and in whatever order: the latest that was informed is what ends up outside, no older write
// comes after a newer one, attempts are bounded, and nothing is stuck.
func TestSoakOfResources(t *testing.T) {
	long := soak.Time(t, 12*time.Second)
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	if given := os.Getenv("DELTA_TEST_SEED"); given != "" {
		var err error
		seed, err = strconv.ParseUint(given, 10, 64)
		require.NoError(t, err)
	}
	t.Logf("DELTA_TEST_SEED=%d", seed)
	h := newHarness(t)
	m := &model{t: t, h: h, random: rand.New(rand.NewPCG(seed, 1)), world: map[string]outcome{}}
	config := h.config(with(&controller[account]{work: m.work}))
	config.Namespaces = map[string]delta.NamespaceConfig{delta.NamespaceDefault: {MaxWorkers: 4, ResourceExpiry: 700 * time.Millisecond}}
	start := func() *delta.Client {
		c := h.client(config)
		c.SetTiming(time.Second, 200*time.Millisecond, 0)
		require.NoError(t, c.Start(context.Background()))
		return c
	}
	c := start()
	own := rand.New(rand.NewPCG(seed, 2))
	acts := 0
	for deadline := time.Now().Add(long); time.Now().Before(deadline); acts++ {
		id := fmt.Sprint("r", own.IntN(modelResources))
		require.NoError(t, m.act(t.Context(), c, own.IntN(18), id))
		if own.IntN(120) == 0 {
			// A deploy that does not wait: calls of Work are cut off.
			ended, cancel := context.WithCancel(t.Context())
			cancel()
			_ = c.Stop(ended)
			c = start()
		}
		time.Sleep(time.Duration(own.IntN(15)) * time.Millisecond)
	}

	m.calm.Store(true)
	defer func() { require.NoError(t, c.Stop(context.Background())) }()
	_, err := h.Pool.Exec(t.Context(), "UPDATE delta_namespace SET resource_expiry = '0', synced_retention = '-1 hour'")
	require.NoError(t, err)
	for i := range modelResources {
		id := fmt.Sprint("r", i)
		_, err := c.Resume(t.Context(), "account", id)
		require.NoError(t, allowed(err))
		_, err = c.Inform(t.Context(), account{Name: id, Plan: "last"}, nil)
		require.NoError(t, err)
	}
	for i := range modelResources {
		id := fmt.Sprint("r", i)
		row := h.eventually("account", id, func(r *deltatype.ResourceRow) bool {
			return r.State == deltatype.ResourceStateSynced && r.SyncedGeneration == r.Generation
		})
		var object account
		require.NoError(t, json.Unmarshal(row.EncodedObject, &object))
		require.Equal(t, "last", object.Plan)
		m.mu.Lock()
		require.Equal(t, "last", m.world[id].plan, id)
		m.mu.Unlock()
	}
	t.Logf("%d acts, %d calls of Work", acts, m.calls)
}
