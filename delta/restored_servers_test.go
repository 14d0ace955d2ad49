package delta_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/stack"
	"github.com/chariot-giving/delta/internal/testport"
	"github.com/chariot-giving/delta/migrations"
)

// keptServer is a test's own Postgres or Temporal, whose data can be copied and put back.
type keptServer struct {
	*stack.Stack
	t     *testing.T
	begin func(context.Context, stack.Options) (*stack.Stack, error)
	dir   string
	port  int
	ended bool
}

func keepServer(t *testing.T, begin func(context.Context, stack.Options) (*stack.Stack, error)) *keptServer {
	t.Helper()
	dir, err := os.MkdirTemp("", "delta-restored-test-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	require.NoError(t, os.Chmod(dir, 0o755), "the unprivileged Postgres enters it")
	s := &keptServer{t: t, begin: begin, dir: dir, port: testport.Reserve(t)}
	s.start()
	t.Cleanup(s.end)
	return s
}

func (s *keptServer) start() {
	s.t.Helper()
	var err error
	s.Stack, err = s.begin(context.Background(), stack.Options{Dir: s.dir, PostgresPort: s.port, TemporalPort: s.port, UIPort: stack.AnyPort})
	require.NoError(s.t, err)
	s.ended = false
}

func (s *keptServer) end() {
	s.t.Helper()
	if !s.ended {
		s.ended = true
		require.NoError(s.t, s.Stop(context.Background()))
	}
}

// backUp copies the data of the server, which is down meanwhile.
func (s *keptServer) backUp() (backup string) {
	s.t.Helper()
	backup = s.dir + "-backup"
	s.t.Cleanup(func() { require.NoError(s.t, os.RemoveAll(backup)) })
	s.end()
	s.copyData(s.dir, backup)
	s.start()
	return backup
}

// restore puts the data back.
func (s *keptServer) restore(backup string) {
	s.t.Helper()
	s.end()
	entries, err := os.ReadDir(s.dir)
	require.NoError(s.t, err)
	for _, entry := range entries {
		require.NoError(s.t, os.RemoveAll(filepath.Join(s.dir, entry.Name())))
	}
	s.copyData(backup+"/.", s.dir)
	s.start()
}

// copyData keeps owners and modes, on which Postgres insists.
func (s *keptServer) copyData(from, to string) {
	s.t.Helper()
	output, err := exec.CommandContext(s.t.Context(), "cp", "-a", from, to).CombinedOutput()
	require.NoError(s.t, err, string(output))
}

// dial connects to a Temporal that goes away.
func (s *keptServer) dial() client.Client {
	s.t.Helper()
	c, err := dialTemporal(client.Options{HostPort: s.TemporalAddress})
	require.NoError(s.t, err)
	s.t.Cleanup(c.Close)
	return c
}

// on returns the harness with a database of another server, migrated.
func (h *harness) on(databaseURL string) *harness {
	h.t.Helper()
	pool, err := pgxpool.New(h.t.Context(), databaseURL)
	require.NoError(h.t, err)
	h.t.Cleanup(pool.Close)
	require.NoError(h.t, migrations.Up(h.t.Context(), pool))
	env := *h.Env
	env.DatabaseURL, env.Pool = databaseURL, pool
	return &harness{Env: &env, t: h.t}
}

// outsideWorld is the world that Work writes to.
type outsideWorld struct {
	meter
	mu    sync.Mutex
	plans map[string]string
}

func (o *outsideWorld) work(kind string, a account) error {
	defer o.enter(kind + "/" + a.Name)()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.plans == nil {
		o.plans = map[string]string{}
	}
	o.plans[kind+"/"+a.Name] = a.Plan
	return nil
}

func (o *outsideWorld) planOf(id string) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.plans[id]
}

// configFor returns the configuration of a client for accounts, in both modes and with a log, and for mirrors, on the harness.
func (o *outsideWorld) configFor(h *harness, listed *upstream[mirror]) *delta.Config {
	config := h.config(
		with(&controller[account]{work: func(_ context.Context, r *delta.Resource[account]) error { return o.work("account", r.Object) }}),
		with(&controller[batched]{work: func(_ context.Context, r *delta.Resource[batched]) error {
			return o.work("batched", r.Object.account)
		}}),
		with(&controller[mirror]{inform: listed.inform}),
	)
	settings := account{}.Settings()
	settings.Log = true
	config.Kinds = map[string]delta.ObjectSettings{"account": settings}
	config.MaintenanceJobInterval = maintainedEvery
	return config
}

// informPlans informs accounts in both modes.
func (h *harness) informPlans(c *delta.Client, plan string, names ...string) {
	h.t.Helper()
	var all []delta.Object
	for _, name := range names {
		a := account{Name: name, Plan: plan}
		all = append(all, a, batched{a})
	}
	_, err := c.InformMany(h.t.Context(), all, nil)
	require.NoError(h.t, err)
}

// awaitSettled waits until all resources are synced or deleted.
func (h *harness) awaitSettled() {
	h.t.Helper()
	until(h.t, func() bool {
		return h.countRows("SELECT count(*) FROM delta_resource WHERE state NOT IN ('synced', 'deleted') OR claimed_until IS NOT NULL") == 0
	})
}

// awaitMarked waits until Temporal has a heartbeat that is higher than one of before.
func (h *harness) awaitMarked(before int) {
	h.t.Helper()
	until(h.t, func() bool { return h.countRows("SELECT marked_heartbeat FROM delta_installation") > before })
}
