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

// ledger is a sink that keeps what it has accepted.
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

// bridged is an installation in a Postgres of its own, which may be harmed: bills are the rows of a table, and what becomes of them goes to a sink.
type bridged struct {
	t                *testing.T
	server           *cdctest.Private
	url              string
	pool             *pgxpool.Pool
	temporal         client.Client
	address, prefix  string
	temporalSettings []string
	telemetry        *parts
	lines            *logged
	sink             *ledger
}

// newBridged makes one. standby, if it is not nil, makes the URL of all servers.
func newBridged(t *testing.T, temporal client.Client, address, namespace, prefix string, standby func(*cdctest.Private) string) *bridged {
	t.Helper()
	b := &bridged{t: t, temporal: temporal, address: address, prefix: prefix, sink: &ledger{}, telemetry: &parts{}, lines: &logged{}}
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

// client makes one that is not started.
func (b *bridged) client(controllers *delta.Controllers) *delta.Client {
	b.t.Helper()
	c, err := delta.NewClient(b.pool, &delta.Config{
		Controllers: controllers, Temporal: b.temporal, TemporalNamespace: b.temporalSettings[3], WorkflowIDPrefix: b.prefix,
		Logger: slog.New(slog.NewTextHandler(b.lines, nil)), MaintenanceJobInterval: time.Second, CountResourcesInterval: -1, Telemetry: b.telemetry,
	})
	require.NoError(b.t, err)
	return c
}

// start has a client follow the table, and a relay deliver, until the test ends.
func (b *bridged) start() (relay *sinks.Relay, stopRelay func()) {
	b.t.Helper()
	controllers := delta.NewControllers()
	bridge.Table(controllers, bills{}, bridge.TableConfig[bill]{Table: "bill", CheckInterval: 200 * time.Millisecond})
	c := b.client(controllers)
	require.NoError(b.t, c.Start(context.Background()))
	b.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_ = c.Stop(ctx)
	})
	return b.deliver()
}

// deliver runs a relay of the log.
func (b *bridged) deliver() (relay *sinks.Relay, stop func()) {
	b.t.Helper()
	source, err := changelog.New(changelog.Config{Client: b.client(nil), Consumer: delta.ChangeConsumer{Name: "bills"}})
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

// settle waits until nothing is lost: resources are as the table is, and the sink has each entry of the log, each object's in their order.
func (b *bridged) settle() {
	b.t.Helper()
	var left []string
	b.until(func() bool { left = append(b.unlikeTable(), b.undelivered()...); return len(left) == 0 }, func() string { return strings.Join(left, "\n") })
	b.requireOrder()
}

// unlikeTable are bills whose resource is not as their row.
func (b *bridged) unlikeTable() []string {
	return b.list(`SELECT coalesce(t.number::text, r.object_id) || ': row ' || coalesce(t.cents::text, 'none') || ', resource ' ||
			coalesce(r.state::text || ' ' || (r.object ->> 'cents'), 'none')
		FROM bill t FULL JOIN (SELECT * FROM delta_resource WHERE kind = 'bill') r ON r.object_id = t.number::text
		WHERE (t.number IS NULL AND r.state <> 'deleted') OR (t.number IS NOT NULL AND (r.state IS DISTINCT FROM 'synced' OR r.object ->> 'cents' <> t.cents::text))`)
}

// undelivered are entries that the sink does not have.
func (b *bridged) undelivered() (all []string) {
	b.sink.mu.Lock()
	delivered := map[string]bool{}
	for _, e := range b.sink.accepted {
		delivered[strconv.FormatInt(e.ID, 10)] = true
	}
	b.sink.mu.Unlock()
	for _, id := range b.list(`SELECT id::text FROM delta_change`) {
		if !delivered[id] {
			all = append(all, "entry "+id+" was not delivered")
		}
	}
	return all
}

// list is empty where the server does not answer: it is asked again.
func (b *bridged) list(sql string) []string {
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

// requireOrder sees that entries of an object came in their order. What was delivered before may come again.
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

// change makes random changes of rows, and gets over a server that is away.
func (b *bridged) change(ctx context.Context, random *rand.Rand) {
	number, cents := random.IntN(40), random.IntN(1000)
	sql := fmt.Sprintf(`INSERT INTO bill VALUES (%d, %d) ON CONFLICT (number) DO UPDATE SET cents = excluded.cents`, number, cents)
	if random.IntN(6) == 0 {
		sql = fmt.Sprintf(`DELETE FROM bill WHERE number = %d`, number)
	}
	within, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, _ = b.pool.Exec(within, sql)
}

// write changes rows until the function is called that it returns.
func (b *bridged) write() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var writing sync.WaitGroup
	random := rand.New(rand.NewPCG(rand.Uint64(), 0))
	writing.Go(func() {
		for ; ctx.Err() == nil; time.Sleep(5 * time.Millisecond) {
			b.change(ctx, random)
		}
	})
	stop = sync.OnceFunc(func() { cancel(); writing.Wait() })
	b.t.Cleanup(stop)
	return stop
}

// doctor returns the findings of the command.
func (b *bridged) doctor() map[string]checkJSON {
	b.t.Helper()
	return diagnosis(b.t, inProcess(b.t.Context(), streams{}, append([]string{"doctor", "-o", "json", "--database-url", b.url}, b.temporalSettings...)...))
}

// metric is a sample of what `delta metrics` serves at this moment; -1 if there is none.
func (b *bridged) metric(sample string) float64 {
	b.t.Helper()
	answer := httptest.NewRecorder()
	delta.Metrics(b.client(nil)).ServeHTTP(answer, httptest.NewRequestWithContext(b.t.Context(), "GET", "/metrics", nil))
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

// isIn reports whether metrics show that the source of the table is in a phase.
func (b *bridged) isIn(phase delta.SourcePhase) bool {
	b.t.Helper()
	return b.metric(fmt.Sprintf(`delta_source_phase{kind="bill",source="table public.bill",phase=%q}`, phase)) == 1
}

// readings is how often the table was read as a whole.
func (b *bridged) readings() int {
	b.t.Helper()
	return len(b.list(`SELECT id::text FROM delta_inform WHERE trigger = 'source' AND ended_at IS NOT NULL AND error = ''`))
}

// logged is a log in memory.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logged) tail() string {
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
