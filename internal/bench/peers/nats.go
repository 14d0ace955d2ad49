package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/bench/protocol"
	"github.com/chariot-giving/delta/sinks"
	"github.com/chariot-giving/delta/sinks/changelog"
	deltanats "github.com/chariot-giving/delta/sinks/nats"
)

// natsWindow is the number of messages in flight at once, on both sides: a relay has two calls with 500 each.
const natsWindow = 1000

// jetStream is a server in this process, with a stream in files.
type jetStream struct {
	folder     string
	server     *server.Server
	connection *nats.Conn
	js         jetstream.JetStream
	stream     jetstream.Stream
}

const natsPatience = 30 * time.Second

func startJetStream(ctx context.Context, options ...jetstream.JetStreamOpt) (_ *jetStream, err error) {
	n := &jetStream{}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	if n.folder, err = os.MkdirTemp("", "delta-bench-nats-"); err != nil {
		return n, err
	}
	n.server, err = server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: n.folder, NoSigs: true, NoLog: true})
	if err != nil {
		return n, err
	}
	n.server.Start()
	if !n.server.ReadyForConnections(natsPatience) {
		return n, errors.New("the NATS server did not start")
	}
	if n.connection, err = nats.Connect(n.server.ClientURL()); err != nil {
		return n, err
	}
	if n.js, err = jetstream.New(n.connection, options...); err != nil {
		return n, err
	}
	n.stream, err = n.js.CreateStream(ctx, jetstream.StreamConfig{Name: "delta", Subjects: []string{"delta.>"}})
	return n, err
}

// purgeStream checks the number of messages in the stream, and removes them.
func (n *jetStream) purgeStream(ctx context.Context, count int) error {
	info, err := n.stream.Info(ctx)
	if err != nil {
		return err
	}
	if info.State.Msgs != uint64(count) {
		return fmt.Errorf("the stream has %d messages, and not %d", info.State.Msgs, count)
	}
	return n.stream.Purge(ctx)
}

// Close stops the server, and removes its files.
func (n *jetStream) Close() error {
	if n.connection != nil {
		n.connection.Close()
	}
	if n.server != nil {
		n.server.Shutdown()
		n.server.WaitForShutdown()
	}
	return os.RemoveAll(n.folder)
}

// natsPeer publishes with the NATS client alone.
type natsPeer struct {
	*jetStream
	published int
}

func startNATS(ctx context.Context, _ options, _ *pgxpool.Pool, _ *slog.Logger) (peer, error) {
	n, err := startJetStream(ctx, jetstream.WithPublishAsyncMaxPending(natsWindow))
	return &natsPeer{jetStream: n}, err
}

func (*natsPeer) describeSettings() string {
	return fmt.Sprintf("PublishMsgAsync, %d on their way at most, until the last is acknowledged; a stream in files, in the same process", natsWindow)
}

func (p *natsPeer) runTurn(ctx context.Context, order protocol.Order) (took time.Duration, err error) {
	messages := make([]*nats.Msg, order.Count)
	for i := range messages {
		p.published++
		body, err := json.Marshal(changelog.EntryOf(newEntry(p.published)))
		if err != nil {
			return 0, err
		}
		m := nats.NewMsg("delta." + logKind + "." + string(delta.ChangeUpdated))
		m.Data = body
		m.Header.Set(nats.MsgIdHdr, fmt.Sprint(p.published))
		m.Header.Set(deltanats.HeaderType, string(delta.ChangeUpdated))
		m.Header.Set(deltanats.HeaderKey, logKind+"/"+fmt.Sprint(p.published))
		m.Header.Set(deltanats.HeaderSubject, logKind)
		messages[i] = m
	}
	began := time.Now()
	for _, m := range messages {
		if _, err := p.js.PublishMsgAsync(m, jetstream.WithStallWait(natsPatience)); err != nil {
			return 0, err
		}
	}
	select {
	case <-p.js.PublishAsyncComplete():
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	took = time.Since(began)
	return took, p.purgeStream(ctx, order.Count)
}

const logKind = "bench"

// newEntry returns an entry like those that logPeer writes into the log.
func newEntry(id int) *delta.Change {
	object, err := json.Marshal(protocol.NewItem(fmt.Sprint(id), 1))
	if err != nil {
		panic(err) // all its values can be JSON
	}
	return &delta.Change{
		Position: delta.ChangePosition(fmt.Sprintf("1.%d.%d", id, id)), ID: int64(id), Type: delta.ChangeUpdated, Kind: logKind, ObjectID: fmt.Sprint(id), Namespace: "default",
		ResourceID: int64(id), Generation: 1, SyncCount: 1, Before: object, After: object, At: time.Now().UTC(),
	}
}

// logPeer delivers the log of changes to NATS.
type logPeer struct {
	*jetStream
	pool   *pgxpool.Pool
	client *delta.Client
	logger *slog.Logger
	made   int
}

func startLog(ctx context.Context, _ options, pool *pgxpool.Pool, logger *slog.Logger) (_ peer, err error) {
	p := &logPeer{pool: pool, logger: logger}
	if err := delta.Migrate(ctx, pool); err != nil {
		return p, err
	}
	if p.client, err = delta.NewClient(pool, &delta.Config{Logger: logger}); err != nil {
		return p, err
	}
	p.jetStream, err = startJetStream(ctx)
	return p, err
}

func (*logPeer) describeSettings() string {
	return "by a Relay with changelog.New and sinks/nats, with default settings, until the last is acknowledged and confirmed"
}

func (p *logPeer) runTurn(ctx context.Context, order protocol.Order) (took time.Duration, err error) {
	p.made += order.Count
	_, err = p.pool.Exec(ctx, `SELECT count(delta_append_change('updated', delta_order_xid(NULL), x, $1, x::text, 'default', 1, 1, o, o, NULL, NULL)) FROM
		(SELECT x, jsonb_set(jsonb_set($2::jsonb, '{key}', to_jsonb(x::text)), '{name}', to_jsonb('Ada Lovelace ' || x)) AS o FROM generate_series($3::int, $4::int) x OFFSET 0) made`,
		logKind, newEntry(0).After, p.made-order.Count+1, p.made)
	if err != nil {
		return 0, err
	}
	source, err := changelog.New(changelog.Config{Client: p.client, Consumer: delta.ChangeConsumer{Name: "nats"}})
	if err != nil {
		return 0, err
	}
	sink, err := deltanats.New(deltanats.Config{JetStream: p.js})
	if err != nil {
		return 0, err
	}
	relay, err := sinks.NewRelay(sinks.Config{Source: source, Sink: sink, Logger: p.logger})
	if err != nil {
		return 0, err
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	began := time.Now()
	go func() { ended <- relay.Run(running) }()
	for relay.Stats().Delivered < int64(order.Count) {
		select {
		case err := <-ended:
			return 0, errors.Join(err, errors.New("the relay has ended"))
		case <-time.After(time.Millisecond):
		}
	}
	stop()
	if err := <-ended; err != nil { // the relay has confirmed all entries
		return 0, err
	}
	took = time.Since(began)
	if _, err := p.pool.Exec(ctx, "TRUNCATE delta_change"); err != nil {
		return 0, err
	}
	return took, p.purgeStream(ctx, order.Count)
}
