package changelog_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/internal/soak"
	"github.com/chariot-giving/delta/sinks"
	"github.com/chariot-giving/delta/sinks/changelog"
)

// patience is how long a test waits for an event that must happen. It costs no time if the event happens.
const patience = 3 * time.Minute

func awaitTrue(t *testing.T, is func() bool) {
	t.Helper()
	require.Eventually(t, is, patience, 10*time.Millisecond)
}

type bill struct {
	Number string
	Cents  int
}

func (b bill) ID() string                     { return b.Number }
func (b bill) Kind() string                   { return "bill" }
func (b bill) Settings() delta.ObjectSettings { return delta.ObjectSettings{Log: true} }

type bills struct {
	delta.WorkerDefaults[bill]
	delta.InformerDefaults[bill]
}

func (bills) Work(context.Context, *delta.Resource[bill]) error { return nil }

func (bills) Inform(context.Context, *delta.InformOptions) (<-chan bill, error) {
	none := make(chan bill)
	close(none)
	return none, nil
}

// recorder is a sink that keeps the messages that it accepted.
type recorder struct {
	mu       sync.Mutex
	accepted []sinks.Message
	fail     func() error
}

func (r *recorder) Deliver(_ context.Context, messages []sinks.Message) []error {
	r.mu.Lock()
	defer r.mu.Unlock()
	errs := make([]error, len(messages))
	for i, m := range messages {
		if r.fail != nil {
			errs[i] = r.fail()
		}
		if errs[i] == nil {
			r.accepted = append(r.accepted, m)
		}
	}
	return errs
}

func (r *recorder) allAccepted() []sinks.Message {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]sinks.Message(nil), r.accepted...)
}

func newClient(t *testing.T, env *deltatest.Env, controllers *delta.Controllers) *delta.Client {
	t.Helper()
	client, err := delta.NewClient(env.Pool, &delta.Config{
		Controllers: controllers, Temporal: env.Temporal, TemporalNamespace: env.TemporalNamespace, WorkflowIDPrefix: env.Prefix, Logger: env.Logger,
	})
	require.NoError(t, err)
	return client
}

// startRelay runs a relay of the log until stop is called or the test ends.
func startRelay(t *testing.T, env *deltatest.Env, sink sinks.Sink, config changelog.Config) (relay *sinks.Relay, stop func() error) {
	t.Helper()
	if config.Client == nil {
		config.Client = newClient(t, env, nil)
	}
	source, err := changelog.New(config)
	require.NoError(t, err)
	relay, err = sinks.NewRelay(sinks.Config{
		Source: source, Sink: sink, ShortestRetry: time.Millisecond, LongestRetry: 5 * time.Millisecond, ConfirmInterval: 10 * time.Millisecond, BatchSize: 20,
		Logger: env.Logger,
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- relay.Run(ctx) }()
	stop = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() { _ = stop() })
	return relay, stop
}

// appendChanges appends entries to the log, as outcomes do: the first entry of each object has generation 1, and so on.
func appendChanges(t *testing.T, env *deltatest.Env, ids ...string) {
	t.Helper()
	for _, id := range ids {
		_, err := env.Pool.Exec(context.Background(), `SELECT delta_append_change('updated', delta_order_xid(NULL), 1, 'bill', $1, 'default',
			(SELECT count(*) + 1 FROM delta_change WHERE object_id = $1), 1, NULL, '{}', NULL, NULL)`, id)
		require.NoError(t, err)
	}
}

// consumerStatus returns the status of the only consumer.
func consumerStatus(t *testing.T, env *deltatest.Env) delta.ChangeConsumerStatus {
	t.Helper()
	status, err := newClient(t, env, nil).ChangeLog(context.Background())
	require.NoError(t, err)
	require.Len(t, status.Consumers, 1)
	return status.Consumers[0]
}

func entryOf(t *testing.T, m sinks.Message) (e changelog.Entry) {
	t.Helper()
	require.NoError(t, json.Unmarshal(m.Body, &e))
	return e
}

func TestTheChangesOfAResourceAreDelivered(t *testing.T) {
	t.Parallel()
	env := deltatest.New(t)
	controllers := delta.NewControllers()
	delta.AddController(controllers, bills{})
	client := newClient(t, env, controllers)
	require.NoError(t, client.Start(t.Context()))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		require.NoError(t, client.Stop(ctx))
	})
	sink := &recorder{}
	_, stop := startRelay(t, env, sink, changelog.Config{Client: client, Consumer: delta.ChangeConsumer{Name: "sink"}, Prefix: "here:"})
	for i, b := range []bill{{"a/b", 100}, {"a/b", 150}} {
		_, err := client.Inform(t.Context(), b, nil)
		require.NoError(t, err)
		awaitTrue(t, func() bool { return len(sink.allAccepted()) == i+1 })
	}
	_, err := client.Delete(t.Context(), "bill", "a/b")
	require.NoError(t, err)
	awaitTrue(t, func() bool { return len(sink.allAccepted()) == 3 })
	require.NoError(t, stop())
	require.Zero(t, consumerStatus(t, env).Behind)
	history, err := client.ResourceChanges(t.Context(), "bill", "a/b", 0, 0)
	require.NoError(t, err)
	var types, objects []string
	for i, m := range sink.allAccepted() {
		e, change := entryOf(t, m), history[2-i]
		types, objects = append(types, m.Type), append(objects, string(e.Before)+" "+string(e.After))
		require.Equal(t, "here:"+string(change.Position), m.ID)
		require.Equal(t, "bill/a%2Fb", m.Key)
		require.Equal(t, "bill", m.Subject)
		require.Equal(t, change.At, m.Time)
		require.Equal(t, changelog.Entry{
			ID: change.ID, Position: string(change.Position), Type: m.Type, Kind: "bill", ObjectID: "a/b", Namespace: change.Namespace, ResourceID: change.ResourceID,
			Generation: change.Generation, SyncCount: change.SyncCount, At: change.At, Before: e.Before, After: e.After,
		}, e)
	}
	require.Equal(t, []string{"created", "updated", "deleted"}, types)
	first, second := `{"Cents": 100, "Number": "a/b"}`, `{"Cents": 150, "Number": "a/b"}`
	require.Equal(t, []string{"null " + first, first + " " + second, second + " null"}, objects)
}

// Of two relays, one delivers, and the other continues when the first ends.
func TestASecondRelayTakesOver(t *testing.T) {
	t.Parallel()
	env := deltatest.New(t)
	first, second := &recorder{}, &recorder{}
	config := changelog.Config{Consumer: delta.ChangeConsumer{Name: "sink"}}
	_, stop := startRelay(t, env, first, config)
	appendChanges(t, env, "a")
	awaitTrue(t, func() bool { return len(first.allAccepted()) == 1 })
	startRelay(t, env, second, config)
	appendChanges(t, env, "b", "a")
	awaitTrue(t, func() bool { return len(first.allAccepted()) == 3 })
	require.NoError(t, stop())
	appendChanges(t, env, "c")
	awaitTrue(t, func() bool { return len(second.allAccepted()) == 1 })
	require.Equal(t, "c", entryOf(t, second.allAccepted()[0]).ObjectID)
}

// However the sink fails, and however often another process takes over, each entry is delivered, and those of an object in order.
func TestTakeoversLoseAndReorderNothing(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	env := deltatest.New(t)
	const entries, takeovers = 400, 4
	ids := make([]string, entries)
	for i := range ids {
		ids[i] = fmt.Sprint("o", rand.IntN(12))
	}
	appendChanges(t, env, ids...)
	var quota atomic.Int64
	sink := &recorder{}
	sink.fail = func() error {
		if rand.IntN(4) == 0 || len(sink.accepted) >= int(quota.Load()) {
			return errors.New("not now")
		}
		return nil
	}
	config := changelog.Config{Consumer: delta.ChangeConsumer{Name: "sink", BatchSize: 30}}
	relay, _ := startRelay(t, env, sink, config)
	for range takeovers { // each while many messages are read and some are delivered
		quota.Add(entries / 8)
		awaitTrue(t, func() bool { return len(sink.allAccepted()) >= int(quota.Load()) && consumerStatus(t, env).IsRunning })
		errs := relay.Stats().SourceErrors
		_, err := env.Pool.Exec(t.Context(), "UPDATE delta_change_consumer SET claim = gen_random_uuid(), claimed_until = clock_timestamp()")
		require.NoError(t, err)
		awaitTrue(t, func() bool { return relay.Stats().SourceErrors > errs })
	}
	quota.Store(math.MaxInt64)
	awaitTrue(t, func() bool { return consumerStatus(t, env).Behind == 0 })
	next, seen := map[string]int64{}, 0
	for _, m := range sink.allAccepted() {
		e := entryOf(t, m)
		require.LessOrEqual(t, e.Generation, next[e.ObjectID]+1, "entries of an object come in order; some come again")
		if e.Generation == next[e.ObjectID]+1 {
			next[e.ObjectID]++
			seen++
		}
	}
	require.Equal(t, entries, seen)
}

func TestARelayThatCannotReadOnEnds(t *testing.T) {
	t.Parallel()
	env := deltatest.New(t)
	appendChanges(t, env, "a")
	sink := &recorder{}
	config := changelog.Config{Consumer: delta.ChangeConsumer{Name: "sink"}}
	_, stop := startRelay(t, env, sink, config)
	awaitTrue(t, func() bool { return len(sink.allAccepted()) == 1 })
	require.NoError(t, stop())
	appendChanges(t, env, "b", "c")
	_, err := env.Pool.Exec(t.Context(), `WITH gone AS (DELETE FROM delta_change WHERE object_id = 'b' RETURNING order_xid, id)
		SELECT delta_note_removed_changes(order_xid, id) FROM gone`)
	require.NoError(t, err)
	ended := func(config changelog.Config) error {
		config.Client = newClient(t, env, nil)
		source, err := changelog.New(config)
		require.NoError(t, err)
		relay, err := sinks.NewRelay(sinks.Config{Source: source, Sink: sink, Logger: env.Logger})
		require.NoError(t, err)
		return relay.Run(t.Context())
	}
	lost := new(delta.ChangePositionError)
	require.ErrorAs(t, ended(config), &lost)
	wrong := new(delta.InputError)
	require.ErrorAs(t, ended(changelog.Config{Consumer: delta.ChangeConsumer{Name: "sink", Members: -1}}), &wrong)

	config.Consumer.Restart = true
	startRelay(t, env, sink, config)
	awaitTrue(t, func() bool { return len(sink.allAccepted()) == 3 })
	for i, id := range []string{"a", "a", "c"} {
		require.Equal(t, id, entryOf(t, sink.allAccepted()[i]).ObjectID)
	}
}

func TestClientAndNameAreRequired(t *testing.T) {
	t.Parallel()
	for field, config := range map[string]changelog.Config{"Client": {}, "Consumer.Name": {Client: &delta.Client{}}} {
		_, err := changelog.New(config)
		invalid := new(sinks.InvalidError)
		require.ErrorAs(t, err, &invalid)
		require.Equal(t, field, invalid.Field)
	}
}
