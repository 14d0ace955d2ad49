package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"

	"github.com/chariot-giving/delta/bridge"
	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// patience is how long a test waits for an event that must come.
const patience = 3 * time.Minute

// The test binary is also the program, if the environment has its configuration.
const (
	followVariable = "TABLE_TO_API_FOLLOW"
	demoVariable   = "TABLE_TO_API_DEMO"
)

// following configures a process that follows the table of a test.
type following struct {
	DatabaseURL, Schema, Prefix, TemporalAddress, TemporalNamespace, Provider string
}

func TestMain(m *testing.M) {
	var err error
	switch text := os.Getenv(followVariable); {
	case text != "":
		err = followTold(context.Background(), text)
	case os.Getenv(demoVariable) != "":
		err = run(context.Background())
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func followTold(ctx context.Context, text string) error {
	var f following
	if err := json.Unmarshal([]byte(text), &f); err != nil {
		return err
	}
	pool, err := pgxpool.New(ctx, f.DatabaseURL)
	if err != nil {
		return err
	}
	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{Level: slog.LevelWarn}))
	temporal, err := client.Dial(client.Options{HostPort: f.TemporalAddress, Namespace: f.TemporalNamespace, Logger: delta.TemporalLogger(logger), ConnectionOptions: client.ConnectionOptions{GetSystemInfoTimeout: time.Minute}})
	if err != nil {
		return err
	}
	return followTable(ctx, pool, bridge.TableConfig[customer]{Table: "customer", Schema: f.Schema}, f.Provider,
		delta.Config{Temporal: temporal, TemporalNamespace: f.TemporalNamespace, WorkflowIDPrefix: f.Prefix, Logger: logger})
}

// world is a table, a provider, and the process that keeps the provider in step with the table.
type world struct {
	*deltatest.Env
	t       *testing.T
	outside *fakeProvider
	url     string
	// most is the number of customers after which the provider refuses more.
	most atomic.Int64
}

func newWorld(t *testing.T) *world {
	w := &world{Env: deltatest.New(t), t: t, outside: newFakeProvider(20, time.Second)}
	w.most.Store(math.MaxInt64)
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if int64(len(w.outside.copyCustomers())) >= w.most.Load() {
			rw.Header().Set("Retry-After", "1")
			rw.WriteHeader(http.StatusTooManyRequests)
			return
		}
		w.outside.ServeHTTP(rw, r)
	}))
	t.Cleanup(server.Close)
	w.url = server.URL
	w.execSQL(schema)
	t.Cleanup(w.dropSlot)
	return w
}

// dropSlot drops the slot and the publication, which do not belong to the schema. The process has ended by then.
func (w *world) dropSlot() {
	ctx := context.Background()
	var name string
	require.NoError(w.t, w.Pool.QueryRow(ctx, `SELECT coalesce(min(pubname), '') FROM pg_publication_tables WHERE schemaname = $1`, w.Schema).Scan(&name))
	if name == "" {
		return
	}
	w.waitUntil(func() bool {
		_, err := w.Pool.Exec(ctx, `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1`, name)
		return err == nil
	})
	w.execSQL("DROP PUBLICATION " + pgx.Identifier{name}.Sanitize())
}

func (w *world) execSQL(sql string) {
	w.t.Helper()
	_, err := w.Pool.Exec(context.Background(), sql)
	require.NoError(w.t, err, sql)
}

func (w *world) waitUntil(is func() bool, why ...any) {
	w.t.Helper()
	require.Eventually(w.t, is, patience, 20*time.Millisecond, why...)
}

// startProgram starts the process, and returns a function that kills it.
func (w *world) startProgram() (kill func()) {
	w.t.Helper()
	text, err := json.Marshal(following{w.DatabaseURL, w.Schema, w.Prefix, w.TemporalAddress, w.TemporalNamespace, w.url})
	require.NoError(w.t, err)
	command := exec.Command(os.Args[0])
	command.Env = append(os.Environ(), followVariable+"="+string(text))
	command.Stdout, command.Stderr = w.t.Output(), w.t.Output()
	require.NoError(w.t, command.Start())
	kill = sync.OnceFunc(func() {
		_ = command.Process.Kill() // SIGKILL: nothing is cleaned up
		_ = command.Wait()
	})
	w.t.Cleanup(kill)
	return kill
}

// becomesEqual waits until the provider equals the table, except for customers that it refuses.
func (w *world) becomesEqual(refused ...string) {
	w.t.Helper()
	w.waitUntil(func() bool {
		want, err := readTable(context.Background(), w.Pool)
		require.NoError(w.t, err)
		for _, id := range refused {
			delete(want, id)
		}
		return maps.Equal(want, w.outside.copyCustomers())
	}, "the provider does not become what the table is")
}

func TestTheProviderIsTrueToTheTable(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	w := newWorld(t)
	kill := w.startProgram()
	w.execSQL(`INSERT INTO customer VALUES ('ann', 'ann@example.com', 'free'), ('bob', 'bob@example.com', 'free'), ('odd', 'odd@example.com', 'unknown')`)
	w.becomesEqual("odd")
	require.Len(t, w.outside.copyCustomers(), 2)
	reader, err := delta.NewClient(w.Pool, &delta.Config{Logger: w.Logger})
	require.NoError(t, err)
	w.waitUntil(func() bool {
		row, err := reader.Get(context.Background(), "customer", "odd")
		return err == nil && row.State == deltatype.ResourceStateDegraded
	}, "what the provider refuses waits for another version of the row")

	w.execSQL(`UPDATE customer SET plan = 'team' WHERE id IN ('ann', 'odd')`)
	w.execSQL(`DELETE FROM customer WHERE id = 'bob'`)
	w.becomesEqual()
	require.Len(t, w.outside.copyCustomers(), 2)

	// A burst of five times the provider's quota: the provider refuses calls, and gets none until its pause is over.
	before := w.outside.countRefused()
	w.execSQL(`INSERT INTO customer SELECT 'first-' || x, 'x@example.com', 'free' FROM generate_series(1, 100) x`)
	w.becomesEqual()
	require.Greater(t, w.outside.countRefused(), before)

	// The process dies in the middle of the next burst, while the table keeps changing.
	w.most.Store(150)
	w.execSQL(`INSERT INTO customer SELECT 'second-' || x, 'x@example.com', 'free' FROM generate_series(1, 100) x`)
	w.waitUntil(func() bool { return len(w.outside.copyCustomers()) >= 150 })
	kill()
	require.Less(t, len(w.outside.copyCustomers()), 202, "in the middle")
	w.most.Store(math.MaxInt64)
	w.execSQL(`UPDATE customer SET plan = 'team' WHERE id LIKE 'second-%5'`)
	w.execSQL(`DELETE FROM customer WHERE id LIKE '%3'`)
	w.execSQL(`INSERT INTO customer VALUES ('zoe', 'zoe@example.com', 'team')`)
	w.startProgram()
	w.becomesEqual()
	require.Len(t, w.outside.copyCustomers(), 183)
}

// The program of `make demo DEMO=table-to-api` runs to its end on private servers.
func TestTheDemonstration(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	var out bytes.Buffer
	command := exec.CommandContext(t.Context(), os.Args[0])
	command.Env = append(os.Environ(), demoVariable+"=1", "DEMO_ONCE=1", "PROVIDER_URL=")
	command.Stdout, command.Stderr = &out, &out
	require.NoError(t, command.Run(), "%s", &out)
	for _, act := range acts {
		require.Contains(t, out.String(), act.says)
	}
	require.Contains(t, out.String(), "the provider has what the table has: 102 customers")
}
