//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
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
	"github.com/chariot-giving/delta/internal/cdctest"
	"github.com/chariot-giving/delta/sinks"
	"github.com/chariot-giving/delta/sinks/changelog"
)

// bill is a row of the table bill.
type bill struct {
	Number int64 `json:"number"`
	Cents  int64 `json:"cents"`
}

func (b bill) ID() string { return strconv.FormatInt(b.Number, 10) }
func (bill) Kind() string { return "bill" }
func (bill) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{Parallelism: 4, Log: true, MaxDeletedShare: 1}
}

type bills struct{ delta.WorkerDefaults[bill] }

func (bills) Work(context.Context, *delta.Resource[bill]) error { return nil }

// ledger is a sink that keeps the entries it has accepted.
type ledger struct {
	isAway atomic.Bool

	mu       sync.Mutex
	accepted []changelog.Entry
}

func (l *ledger) Deliver(_ context.Context, messages []sinks.Message) []error {
	if l.isAway.Load() {
		return sinks.FailAll(len(messages), errors.New("connection refused"))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range messages {
		var e changelog.Entry
		if err := json.Unmarshal(m.Body, &e); err != nil {
			return sinks.FailAll(len(messages), err)
		}
		l.accepted = append(l.accepted, e)
	}
	return nil
}

// bridged is an installation with a private Postgres, which tests may damage: bills are the rows of a table, and their changes go to a sink.
type bridged struct {
	t                *testing.T
	server           *cdctest.Private
	url              string
	pool             *pgxpool.Pool
	temporal         client.Client
	address, prefix  string
	temporalSettings []string
	telemetry        *parts
	lines            *logBuffer
	sink             *ledger
}

// newBridged starts an installation. standby, if it is not nil, returns a URL that names all servers.
func newBridged(t *testing.T, temporal client.Client, address, namespace, prefix string, standby func(*cdctest.Private) string) *bridged {
	t.Helper()
	b := &bridged{t: t, temporal: temporal, address: address, prefix: prefix, sink: &ledger{}, telemetry: &parts{}, lines: &logBuffer{}}
	b.temporalSettings = []string{"--temporal-address", address, "--temporal-namespace", namespace}
	b.server = cdctest.NewPrivate(t, "wal_level=logical")
	b.url = fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable", b.server.Config().Port)
	if standby != nil {
		b.url = standby(b.server)
	}
	var err error
	b.pool, err = pgxpool.New(context.Background(), b.url)
	require.NoError(t, err)
	t.Cleanup(b.pool.Close)
	require.NoError(t, delta.Migrate(t.Context(), b.pool))
	b.exec(`CREATE TABLE bill (number bigint PRIMARY KEY, cents bigint NOT NULL)`)
	return b
}

// newClient returns a client that is not started.
func (b *bridged) newClient(controllers *delta.Controllers) *delta.Client {
	b.t.Helper()
	c, err := delta.NewClient(b.pool, &delta.Config{
		Controllers: controllers, Temporal: b.temporal, TemporalNamespace: b.temporalSettings[3], WorkflowIDPrefix: b.prefix,
		Logger: slog.New(slog.NewTextHandler(b.lines, nil)), MaintenanceJobInterval: time.Second, CountResourcesInterval: -1, Telemetry: b.telemetry,
	})
	require.NoError(b.t, err)
	return c
}

// startAll runs a client that follows the table, and a relay, until the test ends.
func (b *bridged) startAll() (relay *sinks.Relay, stopRelay func()) {
	b.t.Helper()
	controllers := delta.NewControllers()
	bridge.Table(controllers, bills{}, bridge.TableConfig[bill]{Table: "bill", CheckInterval: 200 * time.Millisecond})
	c := b.newClient(controllers)
	require.NoError(b.t, c.Start(context.Background()))
	b.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_ = c.Stop(ctx)
	})
	return b.startRelay()
}

// startRelay runs a relay of the log.
func (b *bridged) startRelay() (relay *sinks.Relay, stop func()) {
	b.t.Helper()
	source, err := changelog.New(changelog.Config{Client: b.newClient(nil), Consumer: delta.ChangeConsumer{Name: "bills"}})
	require.NoError(b.t, err)
	relay, err = sinks.NewRelay(sinks.Config{
		Source: source, Sink: b.sink, ShortestRetry: 10 * time.Millisecond, LongestRetry: 100 * time.Millisecond, ConfirmInterval: 50 * time.Millisecond,
		Logger: slog.New(slog.NewTextHandler(b.lines, nil)),
	})
	require.NoError(b.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- relay.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			b.t.Errorf("the relay: %v", err)
		}
	})
	b.t.Cleanup(stop)
	return relay, stop
}

func (b *bridged) exec(statements ...string) {
	b.t.Helper()
	for _, s := range statements {
		_, err := b.pool.Exec(context.Background(), s)
		require.NoError(b.t, err, s)
	}
}

func (b *bridged) until(is func() bool, why func() string) {
	b.t.Helper()
	for began := time.Now(); !is(); time.Sleep(min(max(time.Since(began)/10, 10*time.Millisecond), 250*time.Millisecond)) {
		if time.Since(began) > 3*time.Minute {
			require.FailNow(b.t, "what must come did not come", "%s\n\n%s", why(), b.lines.tail())
		}
	}
}

// requireSettled waits until the resources equal the table, and the sink has each entry of the log, in order for each object.
func (b *bridged) requireSettled() {
	b.t.Helper()
	var left []string
	b.until(func() bool { left = append(b.unlikeTable(), b.findUndelivered()...); return len(left) == 0 }, func() string { return strings.Join(left, "\n") })
	b.requireOrder()
}

// unlikeTable returns the bills that differ from their resource.
func (b *bridged) unlikeTable() []string {
	return b.queryList(`SELECT coalesce(t.number::text, r.object_id) || ': row ' || coalesce(t.cents::text, 'none') || ', resource ' ||
			coalesce(r.state::text || ' ' || (r.object ->> 'cents'), 'none')
		FROM bill t FULL JOIN (SELECT * FROM delta_resource WHERE kind = 'bill') r ON r.object_id = t.number::text
		WHERE (t.number IS NULL AND r.state <> 'deleted') OR (t.number IS NOT NULL AND (r.state IS DISTINCT FROM 'synced' OR r.object ->> 'cents' <> t.cents::text))`)
}

// findUndelivered returns the entries that the sink does not have.
func (b *bridged) findUndelivered() (all []string) {
	b.sink.mu.Lock()
	delivered := map[string]bool{}
	for _, e := range b.sink.accepted {
		delivered[strconv.FormatInt(e.ID, 10)] = true
	}
	b.sink.mu.Unlock()
	for _, id := range b.queryList(`SELECT id::text FROM delta_change`) {
		if !delivered[id] {
			all = append(all, "entry "+id+" was not delivered")
		}
	}
	return all
}

// queryList returns nothing if the server does not answer: callers repeat it.
func (b *bridged) queryList(sql string) []string {
	rows, err := b.pool.Query(context.Background(), sql)
	if err != nil {
		return []string{err.Error()}
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return []string{err.Error()}
	}
	return all
}

// requireOrder checks that the entries of each object came in order. Entries may come repeatedly.
func (b *bridged) requireOrder() {
	b.t.Helper()
	b.sink.mu.Lock()
	defer b.sink.mu.Unlock()
	latest, seen, again := map[string]int64{}, map[int64]bool{}, 0
	for _, e := range b.sink.accepted {
		if seen[e.ID] {
			again++
			continue
		}
		seen[e.ID] = true
		require.Greater(b.t, e.ID, latest[e.ObjectID], "an older entry of bill %s came after a newer one", e.ObjectID)
		latest[e.ObjectID] = e.ID
	}
	b.t.Logf("%d entries were delivered, and %d of them again", len(seen), again)
}

// changeRows makes random changes of rows, and tolerates a server that does not answer.
func (b *bridged) changeRows(ctx context.Context, random *rand.Rand) {
	number, cents := random.IntN(40), random.IntN(1000)
	sql := fmt.Sprintf(`INSERT INTO bill VALUES (%d, %d) ON CONFLICT (number) DO UPDATE SET cents = excluded.cents`, number, cents)
	if random.IntN(6) == 0 {
		sql = fmt.Sprintf(`DELETE FROM bill WHERE number = %d`, number)
	}
	within, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, _ = b.pool.Exec(within, sql)
}

// startWriter changes rows until the returned function is called.
func (b *bridged) startWriter() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var writing sync.WaitGroup
	random := rand.New(rand.NewPCG(rand.Uint64(), 0))
	writing.Go(func() {
		for ; ctx.Err() == nil; time.Sleep(5 * time.Millisecond) {
			b.changeRows(ctx, random)
		}
	})
	stop = sync.OnceFunc(func() { cancel(); writing.Wait() })
	b.t.Cleanup(stop)
	return stop
}

// runDoctor returns the checks of delta doctor.
func (b *bridged) runDoctor() map[string]checkJSON {
	b.t.Helper()
	return decodeChecks(b.t, inProcess(b.t.Context(), streams{}, append([]string{"doctor", "-o", "json", "--database-url", b.url}, b.temporalSettings...)...))
}

// readMetric returns the present value of a sample of `delta metrics`, or -1 if there is none.
func (b *bridged) readMetric(sample string) float64 {
	b.t.Helper()
	answer := httptest.NewRecorder()
	delta.Metrics(b.newClient(nil)).ServeHTTP(answer, httptest.NewRequestWithContext(b.t.Context(), "GET", "/metrics", nil))
	return sampleOf(b.t, answer.Body.String(), sample)
}

func sampleOf(t *testing.T, text, sample string) float64 {
	t.Helper()
	found := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(sample) + ` (\S+)$`).FindStringSubmatch(text)
	if found == nil {
		return -1
	}
	value, err := strconv.ParseFloat(found[1], 64)
	require.NoError(t, err)
	return value
}

// isIn reports whether the metrics show the source of the table in a phase.
func (b *bridged) isIn(phase delta.SourcePhase) bool {
	b.t.Helper()
	return b.readMetric(fmt.Sprintf(`delta_source_phase{kind="bill",source="table public.bill",phase=%q}`, phase)) == 1
}

// countFullReads returns how often the whole table was read.
func (b *bridged) countFullReads() int {
	b.t.Helper()
	return len(b.queryList(`SELECT id::text FROM delta_inform WHERE trigger = 'source' AND ended_at IS NOT NULL AND error = ''`))
}

// logBuffer is a log in memory.
type logBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logBuffer) tail() string {
	text := l.String()
	return text[max(0, len(text)-8000):]
}

// parts is a Telemetry that knows which parts of the client are down.
type parts struct {
	mu   sync.Mutex
	down map[delta.HealthPart]bool
}

func (*parts) StartSpan(ctx context.Context, _ delta.Span) (context.Context, func(delta.SpanEnd)) {
	return ctx, func(delta.SpanEnd) {}
}

func (*parts) Inject(context.Context, func(name, value string)) {}

func (p *parts) Record(_ context.Context, m delta.Measurement) {
	if measured, ok := m.(delta.ClientMeasurement); ok {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.down = map[delta.HealthPart]bool{}
		for _, part := range measured.Parts {
			p.down[part.Part] = p.down[part.Part] || !part.IsUp
		}
	}
}

func (p *parts) isDown(part delta.HealthPart) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.down[part]
}
