package bridge_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/bridge"
	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
	"github.com/chariot-giving/delta/messagedb"
)

// purse is folded from the messages of a stream of the category purse.
type purse struct {
	Owner   string
	Balance int
	Closed  bool
}

func (p purse) ID() string { return p.Owner }
func (purse) Kind() string { return "purse" }
func (purse) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{Parallelism: 4}
}

type deposited struct{ Amount int }

// purses is a worker that records its calls.
type purses struct {
	delta.WorkerDefaults[purse]

	mu        sync.Mutex
	worked    map[string]purse
	finalized map[string]int
}

func newPurses() *purses {
	return &purses{worked: map[string]purse{}, finalized: map[string]int{}}
}

func (p *purses) Work(_ context.Context, r *delta.Resource[purse]) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.worked[r.ObjectID] = r.Object
	return nil
}

func (p *purses) Finalize(_ context.Context, r *delta.Resource[purse]) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.finalized[r.ObjectID]++
	return nil
}

// purseEntity folds purses. foldOther folds messages of the type Other.
func (h *harness) purseEntity(client *messagedb.Client, foldOther func(*purse, *messagedb.Message) error) *messagedb.Entity[purse] {
	h.t.Helper()
	entity, err := messagedb.NewEntity(client, messagedb.EntityConfig[purse]{Category: "purse", Fold: foldOther, Logger: h.Logger})
	require.NoError(h.t, err)
	messagedb.Fold(entity, "Deposited", func(p *purse, d deposited, m *messagedb.Message) error {
		p.Owner, _ = m.Stream.ID()
		p.Balance += d.Amount
		p.Closed = false
		return nil
	})
	messagedb.Fold(entity, "Closed", func(p *purse, _ struct{}, _ *messagedb.Message) error {
		p.Closed = true
		return nil
	})
	return entity
}

// refuseOther is the fold of a program that cannot handle messages of other types.
func refuseOther(_ *purse, m *messagedb.Message) error {
	return fmt.Errorf("messages of the type %s are not known", m.Type)
}

// openStore creates a message store in the harness's schema.
func (h *harness) openStore() *messagedb.Client {
	h.t.Helper()
	require.NoError(h.t, messagedb.Migrate(h.t.Context(), h.Pool, h.Schema))
	return h.storeOf(h.Pool)
}

func (h *harness) storeOf(pool *pgxpool.Pool) *messagedb.Client {
	h.t.Helper()
	client, err := messagedb.NewClient(pool, &messagedb.Config{Schema: h.Schema, Logger: h.Logger, Polling: messagedb.ConstantPolling(10 * time.Millisecond)})
	require.NoError(h.t, err)
	return client
}

// addCategory adds a source of purses from a store, with changes of the configuration.
func (h *harness) addCategory(worker delta.Worker[purse], store *messagedb.Client, change ...func(*bridge.CategoryConfig[purse])) *delta.Controllers {
	controllers := delta.NewControllers()
	config := bridge.CategoryConfig[purse]{
		Client: store, Entity: h.purseEntity(store, refuseOther), IsGone: func(p purse) bool { return p.Closed },
	}
	for _, c := range change {
		c(&config)
	}
	bridge.Category(controllers, worker, config)
	return controllers
}

func (h *harness) writeMessage(store *messagedb.Client, id, messageType string, data any) {
	h.t.Helper()
	message := messagedb.ProposedMessage{Type: messageType, Data: data}
	_, err := store.WriteMessage(context.Background(), messagedb.StreamName("purse-"+id), message, messagedb.AnyVersion)
	require.NoError(h.t, err)
}

func (h *harness) writeDeposit(store *messagedb.Client, id string, amount int) {
	h.t.Helper()
	h.writeMessage(store, id, "Deposited", deposited{Amount: amount})
}

// requireBalance waits until a purse is synced with a balance.
func (h *harness) requireBalance(c *delta.Client, worker *purses, id string, balance int) *deltatype.ResourceRow {
	h.t.Helper()
	var row *deltatype.ResourceRow
	waitUntil(h.t, func() bool {
		row = h.getRow(c, "purse", id)
		worker.mu.Lock()
		defer worker.mu.Unlock()
		return row != nil && row.State == deltatype.ResourceStateSynced && worker.worked[id] == purse{Owner: id, Balance: balance}
	}, id, balance)
	return row
}

// categoryPosition returns the saved position; 0 before the first save.
func (h *harness) categoryPosition() (position int64) {
	h.t.Helper()
	require.NoError(h.t, h.Pool.QueryRow(context.Background(), `SELECT coalesce(max((position::json ->> 'position')::bigint), 0) FROM delta_source`).Scan(&position))
	return position
}

// lastPosition returns the position of the last message in the store.
func (h *harness) lastPosition() (position int64) {
	h.t.Helper()
	require.NoError(h.t, h.Pool.QueryRow(context.Background(), `SELECT max(global_position) FROM messages`).Scan(&position))
	return position
}

// sourceError waits until the source of the kind reports an error, and returns it.
func (h *harness) sourceError(c *delta.Client, with string) {
	h.t.Helper()
	waitUntil(h.t, func() bool {
		sources, err := c.Sources(context.Background())
		require.NoError(h.t, err)
		return len(sources) == 1 && strings.Contains(sources[0].Error, with)
	}, "the source does not say: "+with)
}

func TestMessagesFoldIntoObjects(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	store := h.openStore()
	h.writeDeposit(store, "ada", 5)
	h.writeDeposit(store, "ada", 6)
	h.writeDeposit(store, "bob+eur", 1)
	worker := newPurses()
	c := h.startClient(h.addCategory(worker, store))
	h.requireBalance(c, worker, "ada", 11)
	h.requireBalance(c, worker, "bob+eur", 1)

	h.writeDeposit(store, "ada", 7)
	h.writeDeposit(store, "eve", 2)
	ada := h.requireBalance(c, worker, "ada", 18)
	h.requireBalance(c, worker, "eve", 2)
	h.writeMessage(store, "eve", "Closed", messagedb.NoData)
	waitUntil(t, func() bool {
		worker.mu.Lock()
		defer worker.mu.Unlock()
		return worker.finalized["eve"] == 1
	})
	require.Equal(t, deltatype.ResourceStateDeleted, h.getRow(c, "purse", "eve").State)
	h.writeDeposit(store, "eve", 3)
	h.requireBalance(c, worker, "eve", 5)
	h.writeDeposit(store, "bob+eur", 0) // a message that changes nothing
	h.writeDeposit(store, "last", 1)
	h.requireBalance(c, worker, "last", 1)
	require.Equal(t, ada.Generation, h.getRow(c, "purse", "ada").Generation)
	require.EqualValues(t, 1, h.getRow(c, "purse", "bob+eur").Generation)
	waitUntil(t, func() bool { return h.categoryPosition() == h.lastPosition() }, "the position is that of the last message")

	waitUntil(t, func() bool {
		sources, err := c.Sources(t.Context())
		require.NoError(t, err)
		require.Len(t, sources, 1)
		require.Equal(t, "category purse", sources[0].Name)
		behind := sources[0].BehindMessages
		return sources[0].Phase == delta.SourceFollowing && behind != nil && *behind == 0
	}, "the source does not say that it has caught up")
}

// An object that cannot be folded is refused alone, also across takeovers, until a program can fold it.
func TestAStreamThatCannotBeFoldedStopsNoOther(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	store := h.openStore()
	h.writeDeposit(store, "ada", 5)
	h.writeMessage(store, "bob", "Deposited", json.RawMessage(`"no deposit"`))
	h.writeMessage(store, "eve", "Donated", deposited{Amount: 3})
	_, err := store.WriteMessage(t.Context(), "purse-", messagedb.ProposedMessage{Type: "Closed", Data: messagedb.NoData}, messagedb.AnyVersion)
	require.Error(t, err, "a stream without an id can be written without this client only")
	h.exec(`INSERT INTO messages (id, stream_name, type, position, data) VALUES (gen_random_uuid(), 'purse', 'Closed', 0, '{}')`)
	worker := newPurses()
	c := h.startClient(h.addCategory(worker, store))
	h.writeDeposit(store, "zoe", 6)
	h.requireBalance(c, worker, "ada", 5)
	h.requireBalance(c, worker, "zoe", 6)
	rules := func() map[string]string {
		all, err := c.Refused(t.Context(), "purse")
		require.NoError(t, err)
		rules := map[string]string{}
		for _, one := range all {
			rules[one.ObjectID] = one.Rule
		}
		return rules
	}
	require.Len(t, rules(), 3)
	require.Contains(t, rules()["bob"], "cannot unmarshal string")
	require.Contains(t, rules()["eve"], "messages of the type Donated are not known")
	require.Contains(t, rules()[""], "whose name has no id")
	h.writeMessage(store, "zoe", "Donated", deposited{Amount: 4})
	waitUntil(t, func() bool { return len(rules()) == 4 })
	h.requireBalance(c, worker, "zoe", 6) // it stays as it was
	require.NoError(t, c.Stop(t.Context()))

	// A new version of the program, which can fold them. Nothing was written meanwhile.
	c = h.startClient(h.addCategory(worker, store, func(config *bridge.CategoryConfig[purse]) {
		config.Entity = h.purseEntity(store, func(p *purse, m *messagedb.Message) error {
			d, err := messagedb.Decode[deposited](m)
			p.Owner, _ = m.Stream.ID()
			p.Balance += d.Amount
			return err
		})
	}))
	h.requireBalance(c, worker, "eve", 3)
	h.requireBalance(c, worker, "zoe", 10)
	waitUntil(t, func() bool { return len(rules()) == 2 })
	h.writeMessage(store, "bob", "Closed", messagedb.NoData)
	h.writeDeposit(store, "ada", 1)
	h.requireBalance(c, worker, "ada", 6)
	require.Contains(t, rules()["bob"], "cannot unmarshal string", "nothing is skipped: the object without it would be wrong")
}

func TestAnObjectMustBeOfItsStream(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	store := h.openStore()
	h.writeMessage(store, "ada", "Renamed", messagedb.NoData)
	h.writeMessage(store, "bob", "Panics", messagedb.NoData)
	h.writeDeposit(store, "eve", 1)
	worker := newPurses()
	c := h.startClient(h.addCategory(worker, store, func(config *bridge.CategoryConfig[purse]) {
		config.Entity = h.purseEntity(store, func(p *purse, m *messagedb.Message) error {
			p.Owner = "bob"
			return nil
		})
		config.IsGone = func(p purse) bool {
			if p.Owner == "eve" {
				panic("eve is not judged")
			}
			return false
		}
	}))
	h.requireBalance(c, worker, "bob", 0)
	var all []delta.RefusedObject
	waitUntil(t, func() bool {
		var err error
		all, err = c.Refused(t.Context(), "purse")
		require.NoError(t, err)
		return len(all) == 2
	})
	require.Equal(t, "ada", all[0].ObjectID)
	require.Contains(t, all[0].Rule, `its ID is "bob", and must be the id of its stream, "ada"`)
	require.Contains(t, all[1].Rule, "eve is not judged")
}

// With ErrorStop no message is skipped: the source waits until the program is corrected.
func TestASourceMayStopAtAStreamThatCannotBeFolded(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	store := h.openStore()
	h.writeDeposit(store, "ada", 5)
	worker := newPurses()
	stops := func(config *bridge.CategoryConfig[purse]) { config.ErrorPolicy = bridge.ErrorStop }
	c := h.startClient(h.addCategory(worker, store, stops))
	h.requireBalance(c, worker, "ada", 5)
	waitUntil(t, func() bool { return h.categoryPosition() == 1 })
	h.writeMessage(store, "eve", "Donated", deposited{Amount: 3})
	h.sourceError(c, "messages of the type Donated are not known")
	require.EqualValues(t, 1, h.categoryPosition())
	require.NoError(t, c.Stop(t.Context()))
	h.startClient(h.addCategory(worker, store, stops, func(config *bridge.CategoryConfig[purse]) {
		config.Entity = h.purseEntity(store, func(*purse, *messagedb.Message) error { return nil })
		config.ErrorPolicy = bridge.ErrorRefuse // the object has no owner
	}))
	waitUntil(t, func() bool { return h.categoryPosition() == 2 })
}

// A store that was emptied and filled again, or restored, has unread messages before the saved position.
func TestACategoryThatWasBegunAnew(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	const before = 3
	for name, after := range map[string]int{"and ends before the position": 1, "and ends at the position": before, "and ends behind it": 2 * before} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			store := h.openStore()
			for range before {
				h.writeDeposit(store, "ada", 10)
			}
			h.writeDeposit(store, "gone", 1)
			worker := newPurses()
			c := h.startClient(h.addCategory(worker, store))
			h.requireBalance(c, worker, "ada", 10*before)
			h.requireBalance(c, worker, "gone", 1)
			require.NoError(t, c.Stop(t.Context()))

			h.exec(`TRUNCATE messages RESTART IDENTITY`)
			for range after {
				h.writeDeposit(store, "ada", 1)
			}
			h.writeDeposit(store, "eve", 1)
			// By default the source reports it, and skips nothing.
			c = h.startClient(h.addCategory(worker, store))
			h.sourceError(c, "the store was emptied or restored from a backup")
			require.Nil(t, h.getRow(c, "purse", "eve"))
			require.NoError(t, c.Stop(t.Context()))
			// If the configuration allows it, the source begins again.
			c = h.startClient(h.addCategory(worker, store, func(config *bridge.CategoryConfig[purse]) { config.Rewind = messagedb.RewindRestart }))
			h.requireBalance(c, worker, "ada", after)
			h.requireBalance(c, worker, "eve", 1)
			require.Equal(t, deltatype.ResourceStateSynced, h.getRow(c, "purse", "gone").State, "that there are no messages says nothing")
			// The same while the source runs.
			h.exec(`TRUNCATE messages RESTART IDENTITY`)
			for range before + after + 5 {
				h.writeDeposit(store, "ada", 2)
			}
			h.requireBalance(c, worker, "ada", 2*(before+after+5))
		})
	}
}

// A program with another fold reads everything again, and does not revive objects that a person has deleted.
func TestAnotherVersionFoldsAllAgain(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	store := h.openStore()
	h.writeDeposit(store, "ada", 5)
	h.writeDeposit(store, "bob", 5)
	worker := newPurses()
	c := h.startClient(h.addCategory(worker, store))
	h.requireBalance(c, worker, "ada", 5)
	h.requireBalance(c, worker, "bob", 5)
	_, err := c.Delete(t.Context(), "purse", "bob")
	require.NoError(t, err)
	require.NoError(t, c.Stop(t.Context()))
	c = h.startClient(h.addCategory(worker, store, func(config *bridge.CategoryConfig[purse]) {
		config.Version = 2
		entity, err := messagedb.NewEntity(store, messagedb.EntityConfig[purse]{Category: "purse", Fold: func(p *purse, m *messagedb.Message) error {
			p.Owner, _ = m.Stream.ID()
			p.Balance += 100
			return nil
		}})
		require.NoError(t, err)
		config.Entity = entity
	}))
	h.requireBalance(c, worker, "ada", 100)
	require.Equal(t, deltatype.ResourceStateDeleted, h.getRow(c, "purse", "bob").State)
	h.writeDeposit(store, "bob", 5)
	h.requireBalance(c, worker, "bob", 200)
}

// A client that is cut off between reading messages and its commit has written nothing, and the next client counts each message once.
func TestMessagesCountOnceAcrossATakeover(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	store := h.openStore()
	h.writeDeposit(store, "ada", 5)
	first := newPurses()
	c, postgres, _ := h.throughProxy(h.addCategory(first, store), false)
	h.requireBalance(c, first, "ada", 5)
	waitUntil(t, func() bool { return h.categoryPosition() == h.lastPosition() })

	lock, err := h.Pool.Begin(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { _ = lock.Rollback(context.Background()) })
	_, err = lock.Exec(t.Context(), `SELECT FROM delta_resource WHERE object_id = 'ada' FOR UPDATE`)
	require.NoError(t, err)
	h.writeDeposit(store, "ada", 6)
	h.writeDeposit(store, "eve", 1)
	var blocker int
	require.NoError(t, lock.QueryRow(t.Context(), `SELECT pg_backend_pid()`).Scan(&blocker))
	waitUntil(t, func() (waits bool) {
		require.NoError(t, h.Pool.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid)))`, blocker).Scan(&waits))
		return waits
	}, "no page waits for the row")
	postgres.Silence()
	second := newPurses()
	c = h.startClient(h.addCategory(second, store))
	require.NoError(t, lock.Rollback(t.Context())) // the page goes on, but its commit never arrives
	h.requireBalance(c, second, "ada", 11)
	h.requireBalance(c, second, "eve", 1)
	h.writeDeposit(store, "ada", 7)
	h.requireBalance(c, second, "ada", 18)
	waitUntil(t, func() bool { return h.categoryPosition() == h.lastPosition() })
}

// While clients start and stop, each purse ends with the sum of its deposits.
func TestPursesEndWithTheSumOfTheirMessages(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	const owners, rounds, changes = 12, 5, 60
	h := newHarness(t)
	store := h.openStore()
	worker, random := newPurses(), rand.New(rand.NewPCG(1, 2))
	want := map[string]int{}
	fails := errors.New("not now")
	var c *delta.Client
	for round := range rounds {
		c = h.startClient(h.addCategory(worker, store, func(config *bridge.CategoryConfig[purse]) {
			config.BatchSize = 7
			if round < rounds-1 { // some streams cannot be folded now and then
				config.Entity = h.purseEntity(store, func(*purse, *messagedb.Message) error { return fails })
			} else {
				config.Entity = h.purseEntity(store, func(*purse, *messagedb.Message) error { return nil })
			}
		}))
		for i := range changes {
			id := strconv.Itoa(random.IntN(owners))
			amount := random.IntN(100)
			want[id] += amount
			h.writeDeposit(store, id, amount)
			if i%20 == round {
				h.writeMessage(store, id, "Other", messagedb.NoData)
			}
		}
		if round < rounds-1 {
			require.NoError(t, c.Stop(t.Context()))
		}
	}
	for id, balance := range want {
		h.requireBalance(c, worker, id, balance)
	}
	waitUntil(t, func() bool { return h.categoryPosition() == h.lastPosition() })
}

func TestConfigurationsOfCategories(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	store := h.storeOf(h.Pool)
	valid := bridge.CategoryConfig[purse]{Client: store, Entity: h.purseEntity(store, nil)}
	for field, change := range map[string]func(*bridge.CategoryConfig[purse]){
		"Client":      func(c *bridge.CategoryConfig[purse]) { c.Client = nil },
		"Entity":      func(c *bridge.CategoryConfig[purse]) { c.Entity = nil },
		"ErrorPolicy": func(c *bridge.CategoryConfig[purse]) { c.ErrorPolicy = "skip" },
		"Rewind":      func(c *bridge.CategoryConfig[purse]) { c.Rewind = "other" },
		"BatchSize":   func(c *bridge.CategoryConfig[purse]) { c.BatchSize = -1 },
	} {
		config := valid
		change(&config)
		refused := new(bridge.ConfigError)
		require.ErrorAs(t, bridge.CategorySafely(delta.NewControllers(), newPurses(), config), &refused)
		require.Equal(t, field, refused.Field)
	}
	require.NoError(t, bridge.CategorySafely(delta.NewControllers(), newPurses(), valid))
	require.ErrorContains(t, bridge.CategorySafely[purse](delta.NewControllers(), nil, valid), "the worker is nil")
}
