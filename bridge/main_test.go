package bridge_test

import (
	"context"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/bridge"
	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// patience is how long a test waits for an event that must come. A long one costs nothing if the test passes.
const patience = 3 * time.Minute

// account is a row of the table account.
type account struct {
	Number int64   `json:"number"`
	Plan   string  `json:"plan"`
	Note   *string `json:"note"`
	Tier   string  `db:"tier,optional" json:"tier"`
}

func (a account) ID() string { return strconv.FormatInt(a.Number, 10) }
func (account) Kind() string { return "account" }
func (account) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{Parallelism: 4}
}

const createAccount = `CREATE TABLE account (number bigint PRIMARY KEY, plan text NOT NULL, note text)`

// accounts is a worker that records its calls.
type accounts struct {
	delta.WorkerDefaults[account]

	mu        sync.Mutex
	worked    map[string]account
	finalized map[string]bool
}

func newAccounts() *accounts {
	return &accounts{worked: map[string]account{}, finalized: map[string]bool{}}
}

func (a *accounts) Work(_ context.Context, r *delta.Resource[account]) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.worked[r.ObjectID] = r.Object
	return nil
}

func (a *accounts) Finalize(_ context.Context, r *delta.Resource[account]) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.finalized[r.ObjectID] = true
	return nil
}

// harness is an isolated schema and Temporal prefix.
type harness struct {
	*deltatest.Env
	t *testing.T
}

func newHarness(t *testing.T, statements ...string) *harness {
	t.Helper()
	h := &harness{Env: deltatest.New(t), t: t}
	h.exec(statements...)
	t.Cleanup(h.dropSlots) // after the clients have stopped
	return h
}

// dropSlots drops slots and publications, which do not belong to a schema. A slot would make the server keep its WAL.
func (h *harness) dropSlots() {
	ctx := context.Background()
	for _, name := range h.listSlots() {
		require.Eventually(h.t, func() bool {
			_, _ = h.Pool.Exec(ctx, `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1 AND active`, name)
			_, err := h.Pool.Exec(ctx, `SELECT pg_drop_replication_slot($1) WHERE EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1)`, name)
			return err == nil
		}, patience, 50*time.Millisecond)
		_, err := h.Pool.Exec(ctx, "DROP PUBLICATION IF EXISTS "+pgx.Identifier{name}.Sanitize())
		require.NoError(h.t, err)
	}
}

// listSlots returns the names of the slots and publications of the harness's sources.
func (h *harness) listSlots() (names []string) {
	var installation string
	require.NoError(h.t, h.Pool.QueryRow(context.Background(), `SELECT id FROM delta_installation`).Scan(&installation))
	return bridge.DefaultNames(installation, h.Schema)
}

func (h *harness) exec(statements ...string) {
	h.t.Helper()
	for _, s := range statements {
		_, err := h.Pool.Exec(context.Background(), s)
		require.NoError(h.t, err, s)
	}
}

// addTable adds a source of accounts from the harness's schema, with changes of the configuration.
func (h *harness) addTable(worker delta.Worker[account], change ...func(*bridge.TableConfig[account])) *delta.Controllers {
	controllers := delta.NewControllers()
	config := bridge.TableConfig[account]{Table: "account", Schema: h.Schema, CheckInterval: 200 * time.Millisecond}
	for _, c := range change {
		c(&config)
	}
	bridge.Table(controllers, worker, config)
	return controllers
}

// startClient starts a client, and stops it at the end of the test.
func (h *harness) startClient(controllers *delta.Controllers, change ...func(*delta.Config)) *delta.Client {
	h.t.Helper()
	config := &delta.Config{
		Controllers: controllers, Temporal: h.Temporal, TemporalNamespace: h.TemporalNamespace, WorkflowIDPrefix: h.Prefix, Logger: h.Logger,
	}
	for _, c := range change {
		c(config)
	}
	c, err := delta.NewClient(h.Pool, config)
	require.NoError(h.t, err)
	require.NoError(h.t, c.Start(context.Background()))
	h.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := c.Stop(ctx); err != nil {
			h.t.Logf("stop: %v", err)
		}
	})
	return c
}

// startSynced inserts n accounts with the plan free, starts a client, and waits until all are synced.
func (h *harness) startSynced(worker *accounts, n int64) *delta.Client {
	h.t.Helper()
	c := h.startClient(h.addTable(worker))
	h.readAll(1)
	for i := range n {
		h.requireSynced(c, worker, account{Number: i + 1, Plan: "free"})
	}
	return c
}

// waitUntil waits until a condition holds.
func waitUntil(t *testing.T, is func() bool, why ...any) {
	t.Helper()
	for began := time.Now(); !is(); time.Sleep(min(max(time.Since(began)/10, 5*time.Millisecond), 250*time.Millisecond)) {
		if time.Since(began) > patience {
			require.Fail(t, "what must come did not come", why...)
		}
	}
}

// getRow reads a resource; nil if there is none.
func (h *harness) getRow(c *delta.Client, kind, id string) *deltatype.ResourceRow {
	h.t.Helper()
	row, err := c.Get(context.Background(), kind, id)
	if err != nil {
		require.ErrorIs(h.t, err, delta.ErrNotFound)
		return nil
	}
	return row
}

// requireSynced waits until an account is synced with this value.
func (h *harness) requireSynced(c *delta.Client, worker *accounts, want account) *deltatype.ResourceRow {
	h.t.Helper()
	var row *deltatype.ResourceRow
	waitUntil(h.t, func() bool {
		row = h.getRow(c, "account", want.ID())
		worker.mu.Lock()
		defer worker.mu.Unlock()
		return row != nil && row.State == deltatype.ResourceStateSynced && equalAccounts(worker.worked[want.ID()], want)
	}, want.ID())
	return row
}

func equalAccounts(a, b account) bool {
	return a.Number == b.Number && a.Plan == b.Plan && a.Tier == b.Tier && (a.Note == nil) == (b.Note == nil) && (a.Note == nil || *a.Note == *b.Note)
}

// requireDeleted waits until an account is deleted and finalized.
func (h *harness) requireDeleted(c *delta.Client, worker *accounts, id string) {
	h.t.Helper()
	waitUntil(h.t, func() bool {
		row := h.getRow(c, "account", id)
		worker.mu.Lock()
		defer worker.mu.Unlock()
		return row != nil && row.State == deltatype.ResourceStateDeleted && worker.finalized[id]
	}, id)
}

// readAll waits until the whole table was read, and returns the result.
func (h *harness) readAll(times int) {
	h.t.Helper()
	waitUntil(h.t, func() bool {
		var n int
		require.NoError(h.t, h.Pool.QueryRow(context.Background(), `SELECT count(*) FROM delta_inform WHERE trigger = 'source' AND ended_at IS NOT NULL AND error = ''`).Scan(&n))
		return n >= times
	}, "the table was not read", times)
}
