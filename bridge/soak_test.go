package bridge_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strconv"
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
	"github.com/chariot-giving/delta/internal/soak"
	"github.com/chariot-giving/delta/sinks"
	"github.com/chariot-giving/delta/sinks/changelog"
	"github.com/chariot-giving/delta/sinks/webhook"
)

// soakProgram names the variable with the JSON configuration of the process that the soak kills.
const soakProgram = "BRIDGE_SOAK_PROGRAM"

// program configures a process that follows the table and delivers the log of changes.
type program struct {
	DatabaseURL, Schema, Prefix, TemporalAddress, TemporalNamespace, Receiver string
	// Life is the number of the process. Each delivery has it.
	Life int
}

// lifeHeader is the header of deliveries with the number of the process.
const lifeHeader = "Life"

// TestProgramOfTheSoak is that process: a table, a webhook that gets the log, and a consumer that writes the log to a table, exactly once.
func TestProgramOfTheSoak(t *testing.T) {
	text := os.Getenv(soakProgram)
	if text == "" {
		t.Skip("it is a part of TestSoakOfATableAndTheSinksOfItsLog")
	}
	var p program
	require.NoError(t, json.Unmarshal([]byte(text), &p))
	pool, err := pgxpool.New(t.Context(), p.DatabaseURL)
	require.NoError(t, err)
	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{Level: slog.LevelWarn}))
	temporal, err := client.Dial(client.Options{HostPort: p.TemporalAddress, Namespace: p.TemporalNamespace, Logger: delta.TemporalLogger(logger), ConnectionOptions: client.ConnectionOptions{GetSystemInfoTimeout: time.Minute}})
	require.NoError(t, err)
	controllers := delta.NewControllers()
	bridge.Table(controllers, newAccounts(), bridge.TableConfig[account]{Table: "account", Schema: p.Schema})
	c, err := delta.NewClient(pool, &delta.Config{
		Controllers: controllers, Temporal: temporal, TemporalNamespace: p.TemporalNamespace, WorkflowIDPrefix: p.Prefix, Logger: logger,
		Kinds: map[string]delta.ObjectSettings{"account": {Log: true}},
	})
	require.NoError(t, err)
	for tries := 1; ; tries++ {
		if err = c.Start(t.Context()); err == nil || tries == 10 {
			break
		}
		time.Sleep(time.Second) // Temporal is busy
	}
	require.NoError(t, err)

	source, err := changelog.New(changelog.Config{Client: c, Consumer: delta.ChangeConsumer{Name: "webhook"}})
	require.NoError(t, err)
	sink, err := webhook.New(webhook.Config{URL: p.Receiver, Headers: http.Header{lifeHeader: {strconv.Itoa(p.Life)}}})
	require.NoError(t, err)
	relay, err := sinks.NewRelay(sinks.Config{Source: source, Sink: sink, Logger: logger})
	require.NoError(t, err)
	ended := make(chan error, 2)
	go func() { ended <- relay.Run(t.Context()) }()
	go func() {
		ended <- c.ConsumeChanges(t.Context(), delta.ChangeConsumer{Name: "ledger", BatchSize: 1000, Handle: func(ctx context.Context, batch *delta.ChangeBatch) error {
			return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
				_, err := tx.CopyFrom(ctx, pgx.Identifier{"ledger"}, []string{"id", "object_id"}, pgx.CopyFromSlice(len(batch.Changes), func(i int) ([]any, error) {
					return []any{batch.Changes[i].ID, batch.Changes[i].ObjectID}, nil
				}))
				if err != nil {
					return err
				}
				return batch.SaveTx(ctx, tx)
			})
		}})
	}()
	t.Fatalf("it goes on until it is killed, and not until %v", <-ended)
}

// startProgram starts the process with a number, and returns a function that kills it.
func (h *harness) startProgram(receiver string, life int) (kill func()) {
	h.t.Helper()
	text, err := json.Marshal(program{h.DatabaseURL, h.Schema, h.Prefix, h.TemporalAddress, h.TemporalNamespace, receiver, life})
	require.NoError(h.t, err)
	command := exec.Command(os.Args[0], "-test.run=^TestProgramOfTheSoak$", "-test.timeout=0")
	command.Env = append(os.Environ(), soakProgram+"="+string(text))
	command.Stdout, command.Stderr = h.t.Output(), h.t.Output()
	require.NoError(h.t, command.Start())
	ended := make(chan struct{})
	go func() {
		_ = command.Wait() // how it has ended is in its output
		close(ended)
	}()
	kill = sync.OnceFunc(func() {
		select {
		case <-ended:
			h.t.Errorf("process %d has ended by itself", life)
		default:
		}
		_ = command.Process.Kill() // SIGKILL: nothing is cleaned up
		<-ended
	})
	h.t.Cleanup(kill)
	return kill
}

// reading has the entries that a reader of the log has received.
type reading struct {
	ids        map[int64]bool
	last       map[string]changelog.Entry // of each object
	duplicates int
	faults     []string
}

func newReading() *reading {
	return &reading{ids: map[int64]bool{}, last: map[string]changelog.Entry{}}
}

// note records an entry, which may be a repeated one. New entries of an object must come in order, and each must continue where the last one ended.
func (r *reading) note(e changelog.Entry) {
	if r.ids[e.ID] {
		r.duplicates++
		return
	}
	last, known := r.last[e.ObjectID]
	switch {
	case known && (e.ID < last.ID || e.Generation < last.Generation || versionOf(e) < versionOf(last)):
		r.faults = append(r.faults, fmt.Sprintf("%s: entry %d (%s) has come after entry %d (%s)", e.ObjectID, e.ID, e.After, last.ID, last.After))
	case known && string(e.Before) != string(last.After), !known && len(e.Before) > 0 && string(e.Before) != "null":
		r.faults = append(r.faults, fmt.Sprintf("%s: entry %d begins with %s, and before was %s", e.ObjectID, e.ID, e.Before, last.After))
	}
	r.ids[e.ID], r.last[e.ObjectID] = true, e
}

// versionOf returns the version of a row, which is its plan; -1 if it cannot be read.
func versionOf(e changelog.Entry) int {
	var a account
	if json.Unmarshal(e.After, &a) != nil {
		return -1
	}
	version, err := strconv.Atoi(a.Plan)
	if err != nil {
		return -1
	}
	return version
}

// receiver is the system that gets the webhooks. It refuses some, and for some that it has accepted, its response is lost.
type receiver struct {
	mu sync.Mutex
	// life is the number of the running process. Deliveries of killed processes are refused, because they may arrive long after the next process has started.
	life, delivered int
	got             *reading
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	var e changelog.Entry
	err := json.NewDecoder(request.Body).Decode(&e)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil || request.Header.Get(lifeHeader) != strconv.Itoa(r.life) || rand.IntN(100) == 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	r.delivered++
	r.got.note(e)
	if rand.IntN(100) == 0 {
		w.WriteHeader(http.StatusInternalServerError)
	}
}

// begin sets the number of the running process.
func (r *receiver) begin(life int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.life, r.delivered = life, 0
}

// deliveredNow returns the number of deliveries of the running process.
func (r *receiver) deliveredNow() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.delivered
}

// soakChanges is the number of changes of each row.
const soakChanges = 10

// changeRows changes each row ten times, one group of rows after the other. A kill can then lose the last change of a row, which no later change would hide. Each
// share of the rows has to be allowed before it begins.
func (h *harness) changeRows(ctx context.Context, rows, shares, pause int, allowed *atomic.Int64) {
	began := int64(0)
	for share := range slices.Chunk(rand.Perm(rows), (rows+shares-1)/shares) {
		for began >= allowed.Load() {
			select {
			case <-ctx.Done():
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
		began++
		for numbers := range slices.Chunk(share, rows/50) {
			for range soakChanges {
				_, err := h.Pool.Exec(context.Background(), `UPDATE account SET plan = (plan::int + 1)::text WHERE number = ANY ($1)`, numbers)
				if err != nil {
					h.t.Errorf("writing the table: %v", err)
					return
				}
				time.Sleep(time.Duration(rand.IntN(pause)) * time.Millisecond)
			}
		}
	}
}

// However often the process that follows a table and delivers its log is killed, each row is synced in its newest version, and each reader of the log gets all
// changes of each row in order.
func TestSoakOfATableAndTheSinksOfItsLog(t *testing.T) {
	rows, kills, pause := soak.Count(t, 2000, 50_000), soak.Count(t, 3, 20), soak.Count(t, 80, 800)
	t.Parallel()
	h := newHarness(t, createAccount, `CREATE TABLE ledger (place bigint GENERATED ALWAYS AS IDENTITY, id bigint NOT NULL, object_id text NOT NULL)`)
	h.exec(fmt.Sprintf(`INSERT INTO account SELECT x, 0 FROM generate_series(0, %d) x`, rows-1))
	outside := &receiver{got: newReading()}
	server := httptest.NewServer(outside)
	t.Cleanup(server.Close)
	ctx, cancel := context.WithCancel(context.Background())
	var going sync.WaitGroup
	t.Cleanup(func() { cancel(); going.Wait() })

	// This reader is not killed.
	reader, err := delta.NewClient(h.Pool, &delta.Config{Logger: h.Logger})
	require.NoError(t, err)
	var mu sync.Mutex
	read := newReading()
	going.Go(func() {
		for change, err := range reader.Changes(ctx, "") {
			mu.Lock()
			if err != nil {
				read.faults = append(read.faults, err.Error())
			} else {
				read.note(changelog.EntryOf(change))
			}
			mu.Unlock()
		}
	})

	var allowed atomic.Int64
	allowed.Store(1)
	going.Go(func() { h.changeRows(ctx, rows, kills+1, pause, &allowed) })
	for life := range kills {
		outside.begin(life)
		kill := h.startProgram(server.URL, life)
		if life%2 == 0 { // it goes on where the last one was, which takes until that one is known to be dead, and dies while the next share is written
			h.readAll(1)
			least := rand.IntN(200)
			waitUntil(t, func() bool { return outside.deliveredNow() > least }, "process", life, "delivers nothing")
			allowed.Add(1)
			time.Sleep(time.Duration(rand.IntN(2000)) * time.Millisecond)
			kill()
			continue
		}
		time.Sleep(time.Duration(rand.IntN(2000)) * time.Millisecond)
		kill()
		allowed.Add(1)
	}
	outside.begin(kills)
	kill := h.startProgram(server.URL, kills)

	count := func(query string) (n int) {
		require.NoError(t, h.Pool.QueryRow(context.Background(), query).Scan(&n))
		return n
	}
	h.awaitProgress(func() (state string, over bool) {
		unsynced := count(fmt.Sprintf(`SELECT count(*) FROM account a LEFT JOIN delta_resource r ON r.kind = 'account' AND r.object_id = a.number::text
			WHERE a.plan <> '%d' OR r.state IS DISTINCT FROM 'synced' OR r.object ->> 'plan' <> a.plan`, soakChanges))
		entries, noted := count(`SELECT count(*) FROM delta_change`), count(`SELECT count(*) FROM ledger`)
		outside.mu.Lock()
		delivered, faults := len(outside.got.ids), len(outside.got.faults)
		outside.mu.Unlock()
		mu.Lock()
		seen := len(read.ids)
		faults += len(read.faults)
		mu.Unlock()
		over = unsynced == 0 && delivered >= entries && noted >= entries && seen >= entries
		return fmt.Sprintf("%d shares, %d rows to sync, %d entries, %d delivered, %d in the ledger, %d read", allowed.Load(), unsynced, entries, delivered, noted, seen), over || faults > 0
	})
	kill()
	cancel()
	going.Wait()

	require.Empty(t, outside.got.faults, "of the webhook")
	require.Empty(t, read.faults, "of the reader")
	require.Equal(t, read.ids, outside.got.ids)
	require.Len(t, read.ids, count(`SELECT count(*) FROM delta_change`))
	require.Zero(t, read.duplicates)
	for name, got := range map[string]*reading{"webhook": outside.got, "reader": read} {
		require.Len(t, got.last, rows, name)
		for id, last := range got.last {
			require.Equal(t, soakChanges, versionOf(last), "the last that the %s has of %s", name, id)
		}
	}
	require.Zero(t, count(`SELECT count(*) FROM ledger l FULL JOIN delta_change c ON c.id = l.id WHERE l.id IS NULL OR c.id IS NULL`), "the ledger has what the log has")
	require.Zero(t, count(`SELECT count(*) - count(DISTINCT id) FROM ledger`), "exactly once")
	require.Zero(t, count(`SELECT count(*) FROM (SELECT id < lag(id) OVER (PARTITION BY object_id ORDER BY place) AS wrong FROM ledger) l WHERE wrong`), "in order")
	t.Logf("%d rows changed %d times each, the process was killed %d times: %d entries, %d delivered again", rows, soakChanges, kills, len(read.ids), outside.got.duplicates)
}

// awaitProgress waits until the condition holds. The total time depends on the machine, but there must be progress.
func (h *harness) awaitProgress(look func() (state string, over bool)) {
	h.t.Helper()
	for before, end := "", time.Now().Add(patience); ; time.Sleep(200 * time.Millisecond) {
		state, over := look()
		if over {
			return
		}
		if state != before {
			before, end = state, time.Now().Add(patience)
		}
		require.True(h.t, time.Now().Before(end), "nothing goes on any more: %s", state)
	}
}
