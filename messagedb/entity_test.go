package messagedb_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/messagedb"
)

// balance is the value that these tests fold streams into.
type balance struct {
	Sum   int
	Count int
	Last  time.Time
}

// counted is a store that counts the messages read and the calls of LastMessage.
type counted struct {
	messagedb.Store
	read, lasts atomic.Int64
	fail        atomic.Bool
	after       func() // of each read, if not nil
}

var errDown = errors.New("the store is down")

func (c *counted) ReadStream(ctx context.Context, stream messagedb.StreamName, o messagedb.StreamOptions) ([]*messagedb.Message, error) {
	if c.fail.Load() {
		return nil, errDown
	}
	messages, err := c.Store.ReadStream(ctx, stream, o)
	c.read.Add(int64(len(messages)))
	if c.after != nil {
		c.after()
	}
	return messages, err
}

func (c *counted) LastMessage(ctx context.Context, stream messagedb.StreamName, kind string) (*messagedb.Message, error) {
	c.lasts.Add(1)
	return c.Store.LastMessage(ctx, stream, kind)
}

// logText collects log lines.
type logText struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func newLog() (*logText, *slog.Logger) {
	l := &logText{}
	return l, slog.New(slog.NewTextHandler(l, nil))
}

// newBalances makes an entity that adds the numbers in messages of type Deposited.
func newBalances(t *testing.T, s messagedb.Store, config messagedb.EntityConfig[balance]) *messagedb.Entity[balance] {
	t.Helper()
	config.Category = "account"
	if config.Logger == nil {
		config.Logger = quiet
	}
	e, err := messagedb.NewEntity(s, config)
	require.NoError(t, err)
	messagedb.Fold(e, "Deposited", func(b *balance, amount int, m *messagedb.Message) error {
		b.Sum, b.Count, b.Last = b.Sum+amount, b.Count+1, m.Time
		return nil
	})
	return e
}

func writeDeposits(t *testing.T, s messagedb.Store, stream messagedb.StreamName, expected int64, amounts ...int) int64 {
	t.Helper()
	var all []messagedb.ProposedMessage
	for _, amount := range amounts {
		all = append(all, messagedb.ProposedMessage{Type: "Deposited", Data: amount})
	}
	version, err := s.Write(t.Context(), stream, all, expected)
	require.NoError(t, err)
	return version
}

func requireBalance(t *testing.T, e *messagedb.Entity[balance], id string, sum int, version int64) {
	t.Helper()
	got, at, err := e.Get(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, sum, got.Sum)
	require.Equal(t, version, at)
}

func TestAnEntityIsFoldedAndReadsOnlyWhatIsNew(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, store messagedb.Store) {
		s := &counted{Store: store}
		e := newBalances(t, s, messagedb.EntityConfig[balance]{BatchSize: 3})
		requireBalance(t, e, "1", 0, messagedb.NoStreamVersion)
		_, version, err := e.Get(t.Context(), "1")
		require.NoError(t, err)
		version = writeDeposits(t, s, "account-1", version, 1, 2, 3, 4, 5, 6, 7)
		_, err = s.WriteMessage(t.Context(), "account-1", messagedb.ProposedMessage{Type: "Renamed", Data: "x"}, version)
		require.NoError(t, err)
		requireBalance(t, e, "1", 28, 7)
		s.read.Store(0)
		requireBalance(t, e, "1", 28, 7)
		require.EqualValues(t, 1, s.read.Load(), "the last message that is known shows that the stream is the same")
		writeDeposits(t, s, "account-1", 7, 10, 10)
		requireBalance(t, e, "1", 48, 9)
		require.EqualValues(t, 4, s.read.Load())
		requireBalance(t, e, "2+x", 0, messagedb.NoStreamVersion)
		stream, err := e.Stream("2+x")
		require.NoError(t, err)
		require.Equal(t, messagedb.StreamName("account-2+x"), stream)

		// The version is the one that a write is to expect.
		_, version, err = e.Get(t.Context(), "1")
		require.NoError(t, err)
		writeDeposits(t, s, "account-1", messagedb.AnyVersion, 1)
		_, err = s.WriteMessage(t.Context(), "account-1", messagedb.ProposedMessage{Type: "Deposited", Data: 1}, version)
		require.ErrorAs(t, err, new(*messagedb.VersionConflictError))

		s.fail.Store(true)
		_, _, err = e.Get(t.Context(), "1")
		require.ErrorIs(t, err, errDown)
		s.fail.Store(false)
		requireBalance(t, e, "1", 49, 10)
	})
}

func TestAnEntityThatCannotBeFoldedIsAnError(t *testing.T) {
	t.Parallel()
	s := messagedb.NewMemory()
	e := newBalances(t, s, messagedb.EntityConfig[balance]{Fold: func(b *balance, m *messagedb.Message) error {
		b.Sum = -1000 // which must not be seen
		if m.Type == "Panics" {
			panic("no")
		}
		return errDown
	}})
	writeDeposits(t, s, "account-1", messagedb.AnyVersion, 1)
	requireBalance(t, e, "1", 1, 0)
	for kind, want := range map[string]any{"Panics": new(*messagedb.PanicError), "Other": new(*messagedb.HandlerError), "Deposited": new(*messagedb.DecodeError)} {
		stream := messagedb.StreamName("account-" + kind)
		writeDeposits(t, s, stream, messagedb.AnyVersion, 5)
		requireBalance(t, e, kind, 5, 0)
		_, err := s.WriteMessage(t.Context(), stream, messagedb.ProposedMessage{Type: kind, Data: "text"}, 0)
		require.NoError(t, err)
		for range 2 {
			_, _, err = e.Get(t.Context(), kind)
			require.ErrorAs(t, err, want)
			failed := new(messagedb.HandlerError)
			require.ErrorAs(t, err, &failed)
			require.EqualValues(t, 1, failed.Message.Position)
			require.False(t, messagedb.IsTransient(err))
		}
	}
}

// bag has a map, which a cache must not share.
type bag struct{ Amounts map[string]int }

func (b bag) Clone() bag { return bag{maps.Clone(b.Amounts)} }

func TestTheValuesOfAnEntityAreTheCallersOwn(t *testing.T) {
	t.Parallel()
	s := messagedb.NewMemory()
	e, err := messagedb.NewEntity(s, messagedb.EntityConfig[bag]{Category: "account", New: func() bag { return bag{map[string]int{}} }})
	require.NoError(t, err)
	messagedb.Fold(e, "Deposited", func(b *bag, amount int, m *messagedb.Message) error {
		b.Amounts[m.ID] = amount
		return nil
	})
	const writes = 50
	var all sync.WaitGroup
	for range 4 {
		all.Add(1)
		go func() {
			defer all.Done()
			for {
				value, version, err := e.Get(t.Context(), "1")
				if err != nil || len(value.Amounts) != int(version)+1 {
					t.Errorf("%v %d %v", value, version, err)
					return
				}
				if version == writes-1 {
					return
				}
				value.Amounts["mine"] = 1
			}
		}()
	}
	for i := range writes {
		writeDeposits(t, s, "account-1", messagedb.AnyVersion, i)
	}
	all.Wait()

	// Messages folded before a failure do not change the cached value.
	fails := true
	counting, err := messagedb.NewEntity(s, messagedb.EntityConfig[bag]{Category: "account", New: func() bag { return bag{map[string]int{}} }, Fold: func(b *bag, m *messagedb.Message) error {
		if b.Amounts["n"]++; fails && m.Position == 2 {
			return errDown
		}
		return nil
	}})
	require.NoError(t, err)
	writeDeposits(t, s, "account-2", messagedb.AnyVersion, 1)
	_, _, err = counting.Get(t.Context(), "2")
	require.NoError(t, err)
	writeDeposits(t, s, "account-2", messagedb.AnyVersion, 1, 1)
	_, _, err = counting.Get(t.Context(), "2")
	require.ErrorIs(t, err, errDown)
	fails = false
	value, _, err := counting.Get(t.Context(), "2")
	require.NoError(t, err)
	require.Equal(t, 3, value.Amounts["n"])

	for name, make := range map[string]func() error{
		"map": func() error {
			_, err := messagedb.NewEntity(s, messagedb.EntityConfig[map[string]int]{Category: "a"})
			return err
		},
		"field": func() error {
			_, err := messagedb.NewEntity(s, messagedb.EntityConfig[struct{ A [2]struct{ B []int } }]{Category: "a"})
			return err
		},
		"pointer": func() error {
			_, err := messagedb.NewEntity(s, messagedb.EntityConfig[*balance]{Category: "a"})
			return err
		},
		"interface": func() error {
			_, err := messagedb.NewEntity(s, messagedb.EntityConfig[struct{ A any }]{Category: "a"})
			return err
		},
	} {
		bad := new(messagedb.InvalidError)
		require.ErrorAs(t, make(), &bad, name)
		require.Equal(t, messagedb.FieldClone, bad.Field)
	}
	_, err = messagedb.NewEntity(s, messagedb.EntityConfig[map[string]int]{Category: "a", CacheSize: -1})
	require.NoError(t, err)
}

func TestTheCacheOfAnEntityIsBounded(t *testing.T) {
	t.Parallel()
	s := &counted{Store: messagedb.NewMemory()}
	e := newBalances(t, s, messagedb.EntityConfig[balance]{CacheSize: 2})
	for _, id := range []string{"1", "2", "3"} {
		writeDeposits(t, s, messagedb.StreamName("account-"+id), messagedb.AnyVersion, 1, 1, 1, 1)
	}
	cost := func(id string) int64 {
		s.read.Store(0)
		requireBalance(t, e, id, 4, 3)
		return s.read.Load()
	}
	require.EqualValues(t, 4, cost("1"))
	require.EqualValues(t, 4, cost("2"))
	require.EqualValues(t, 1, cost("1"))
	require.EqualValues(t, 4, cost("3"))
	require.EqualValues(t, 1, cost("1"), "it was used after 2")
	require.EqualValues(t, 4, cost("2"))
	require.Equal(t, 2, e.Cached())
	none := newBalances(t, s, messagedb.EntityConfig[balance]{CacheSize: -1})
	requireBalance(t, none, "1", 4, 3)
	require.Zero(t, none.Cached())
}

// If two reads run at the same time, the cache keeps the result of the one that has read more.
func TestTheCacheOfAnEntityDoesNotGoBack(t *testing.T) {
	t.Parallel()
	s := &counted{Store: messagedb.NewMemory()}
	e := newBalances(t, s, messagedb.EntityConfig[balance]{})
	writeDeposits(t, s, "account-1", messagedb.AnyVersion, 1)
	requireBalance(t, e, "1", 1, 0)
	between := true
	s.after = func() {
		if between {
			between = false
			writeDeposits(t, s, "account-1", messagedb.AnyVersion, 1, 1, 1)
			requireBalance(t, e, "1", 4, 3)
		}
	}
	requireBalance(t, e, "1", 1, 0)
	s.read.Store(0)
	requireBalance(t, e, "1", 4, 3)
	require.EqualValues(t, 1, s.read.Load())
}

func TestSnapshotsOfAnEntity(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, store messagedb.Store) {
		s := &counted{Store: store}
		config := messagedb.EntityConfig[balance]{SnapshotInterval: 5, SnapshotVersion: 2}
		e := newBalances(t, s, config)
		snapshots := func() int64 {
			stream, err := e.SnapshotStream("1")
			require.NoError(t, err)
			require.Equal(t, messagedb.StreamName("account:snapshot-1"), stream)
			version, err := s.StreamVersion(t.Context(), stream)
			require.NoError(t, err)
			return version + 1
		}
		writeDeposits(t, s, "account-1", messagedb.AnyVersion, 1, 1, 1, 1)
		requireBalance(t, e, "1", 4, 3)
		require.Zero(t, snapshots())
		writeDeposits(t, s, "account-1", messagedb.AnyVersion, 1, 1)
		requireBalance(t, e, "1", 6, 5)
		requireBalance(t, e, "1", 6, 5)
		require.EqualValues(t, 1, snapshots())
		last, err := s.LastMessage(t.Context(), "account:snapshot-1", "Recorded")
		require.NoError(t, err)
		data, err := messagedb.Decode[struct {
			EntityData    balance   `json:"entityData"`
			EntityVersion int64     `json:"entityVersion"`
			Time          time.Time `json:"time"`
		}](last)
		require.NoError(t, err)
		require.Equal(t, 6, data.EntityData.Sum)
		require.EqualValues(t, 5, data.EntityVersion)

		// Another process begins with it, and takes none that is there.
		writeDeposits(t, s, "account-1", messagedb.AnyVersion, 1)
		s.read.Store(0)
		requireBalance(t, newBalances(t, s, config), "1", 7, 6)
		require.EqualValues(t, 2, s.read.Load())
		require.EqualValues(t, 1, snapshots())
		writeDeposits(t, s, "account-1", messagedb.AnyVersion, 1, 1, 1, 1)
		for range 3 {
			requireBalance(t, newBalances(t, s, config), "1", 11, 10)
		}
		requireBalance(t, e, "1", 11, 10)
		require.EqualValues(t, 2, snapshots(), "two that read the same version write one")

		// A snapshot that cannot be used is ignored and logged.
		text, logger := newLog()
		other := config
		other.SnapshotVersion, other.Logger = 3, logger
		s.read.Store(0)
		requireBalance(t, newBalances(t, s, other), "1", 11, 10)
		require.EqualValues(t, 11, s.read.Load())
		require.Contains(t, text.String(), "it has the version 2, and SnapshotVersion is 3")
		require.EqualValues(t, 3, snapshots())
		config.Logger = logger
		for want, m := range map[string]messagedb.ProposedMessage{
			"its entityData into": {Type: "Recorded", Data: map[string]any{"entityData": "text", "entityVersion": 10}, Metadata: map[string]any{"snapshotVersion": 2, "messageId": makeID(1)}},
			"Data of message":     {Type: "Recorded", Data: "text", Metadata: map[string]any{"snapshotVersion": 2, "messageId": makeID(1)}},
			"Metadata of message": {Type: "Recorded", Data: 1, Metadata: "text"},
			"the version 0":       {Type: "Recorded", Data: map[string]any{"entityData": map[string]any{}, "entityVersion": 10, "time": time.Now()}}, // Eventide's own
			"its entityVersion":   {Type: "Recorded", Data: map[string]any{"entityData": map[string]any{}, "entityVersion": -4}, Metadata: map[string]any{"snapshotVersion": 2, "messageId": makeID(1)}},
		} {
			_, err := s.WriteMessage(t.Context(), "account:snapshot-1", m, messagedb.AnyVersion)
			require.NoError(t, err)
			requireBalance(t, newBalances(t, s, config), "1", 11, 10)
			require.Contains(t, text.String(), want)
		}
	})
}

// A snapshot is the whole value: New does not bring back removed parts.
func TestASnapshotIsNotMergedIntoANewValue(t *testing.T) {
	t.Parallel()
	type open struct {
		Orders map[string]int
		Status string `json:",omitempty"`
	}
	s := newStore(t)
	entity := func() *messagedb.Entity[open] {
		e, err := messagedb.NewEntity(s.client, messagedb.EntityConfig[open]{
			Category: "account", CacheSize: -1, SnapshotInterval: 1,
			New: func() open { return open{map[string]int{"first": 1}, "new"} },
			Fold: func(o *open, _ *messagedb.Message) error {
				delete(o.Orders, "first")
				o.Status = ""
				return nil
			},
		})
		require.NoError(t, err)
		return e
	}
	_, err := s.client.WriteMessage(t.Context(), "account-1", messagedb.ProposedMessage{Type: "Closed", Data: 1}, messagedb.AnyVersion)
	require.NoError(t, err)
	for range 2 {
		value, version, err := entity().Get(t.Context(), "1")
		require.NoError(t, err)
		require.Zero(t, version)
		require.Equal(t, open{Orders: map[string]int{}}, value)
	}
}

func TestASnapshotThatCannotBeWrittenIsTold(t *testing.T) {
	t.Parallel()
	s := &readOnly{Memory: messagedb.NewMemory()}
	writeDeposits(t, s.Memory, "account-1", messagedb.AnyVersion, 1, 2)
	text, logger := newLog()
	requireBalance(t, newBalances(t, s, messagedb.EntityConfig[balance]{SnapshotInterval: 1, Logger: logger}), "1", 3, 1)
	require.Contains(t, text.String(), "a snapshot could not be written")
	require.Contains(t, text.String(), errDown.Error())
}

type readOnly struct{ *messagedb.Memory }

func (*readOnly) WriteMessage(context.Context, messagedb.StreamName, messagedb.ProposedMessage, int64, ...messagedb.WriteOption) (int64, error) {
	return 0, errDown
}

// After a restore from a backup, other messages may be at the positions that the cache and the snapshots have read.
func TestAnEntityOfAStoreThatWasRestored(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *store) {
		text, logger := newLog()
		config := messagedb.EntityConfig[balance]{SnapshotInterval: 2, Logger: logger}
		warm := newBalances(t, s.client, config)
		writeDeposits(t, s.client, "account-1", messagedb.AnyVersion, 1, 2, 3, 4)
		requireBalance(t, warm, "1", 10, 3)
		lose := func(from int) {
			t.Helper()
			_, err := s.pool.Exec(t.Context(), "DELETE FROM message_store.messages WHERE stream_name = 'account-1' AND position >= $1", from)
			require.NoError(t, err)
		}
		lose(2)
		requireBalance(t, newBalances(t, s.client, config), "1", 3, 1)
		requireBalance(t, warm, "1", 3, 1)
		require.Contains(t, text.String(), "was the store restored?")
		writeDeposits(t, s.client, "account-1", 1, 100, 200, 300)
		requireBalance(t, warm, "1", 603, 4)
		requireBalance(t, newBalances(t, s.client, config), "1", 603, 4)

		// The same version with another message.
		lose(4)
		writeDeposits(t, s.client, "account-1", 3, 7)
		requireBalance(t, newBalances(t, s.client, config), "1", 310, 4)
		requireBalance(t, warm, "1", 310, 4)

		// All of it.
		lose(0)
		requireBalance(t, warm, "1", 0, messagedb.NoStreamVersion)
		requireBalance(t, newBalances(t, s.client, config), "1", 0, messagedb.NoStreamVersion)

		// A snapshot contains messages that were archived after it.
		writeDeposits(t, s.client, "account-2", messagedb.AnyVersion, 1, 2, 3, 4)
		requireBalance(t, warm, "2", 10, 3)
		writeDeposits(t, s.client, "account-2", messagedb.AnyVersion, 5)
		_, err := s.pool.Exec(t.Context(), "DELETE FROM message_store.messages WHERE stream_name = 'account-2' AND position <= 3")
		require.NoError(t, err)
		requireBalance(t, warm, "2", 15, 4)
		requireBalance(t, newBalances(t, s.client, config), "2", 15, 4)
	})
}

func TestWhatAnEntityCannotBe(t *testing.T) {
	t.Parallel()
	type hidden struct{ sum int } //nolint:unused // which is the point
	s := messagedb.NewMemory()
	field := func(err error) messagedb.Field {
		t.Helper()
		bad := new(messagedb.InvalidError)
		require.ErrorAs(t, err, &bad)
		return bad.Field
	}
	make := func(config messagedb.EntityConfig[balance]) error {
		_, err := messagedb.NewEntity(s, config)
		return err
	}
	require.Equal(t, messagedb.FieldCategory, field(make(messagedb.EntityConfig[balance]{})))
	require.Equal(t, messagedb.FieldCategory, field(make(messagedb.EntityConfig[balance]{Category: "a-1"})))
	require.Equal(t, messagedb.FieldCacheSize, field(make(messagedb.EntityConfig[balance]{Category: "a", CacheSize: -2})))
	require.Equal(t, messagedb.FieldSnapshotInterval, field(make(messagedb.EntityConfig[balance]{Category: "a", SnapshotInterval: -1})))
	require.Equal(t, messagedb.FieldBatchSize, field(make(messagedb.EntityConfig[balance]{Category: "a", BatchSize: -1})))
	_, err := messagedb.NewEntity(s, messagedb.EntityConfig[hidden]{Category: "a", SnapshotInterval: 1})
	require.Equal(t, messagedb.FieldSnapshotInterval, field(err), "what is not exported would be lost")
	_, err = messagedb.NewEntity(s, messagedb.EntityConfig[struct {
		A int `json:"-"`
	}]{Category: "a", SnapshotInterval: 1})
	require.Equal(t, messagedb.FieldSnapshotInterval, field(err))
	_, err = messagedb.NewEntity(s, messagedb.EntityConfig[hidden]{Category: "a"})
	require.NoError(t, err)
	_, err = messagedb.NewEntity[balance](nil, messagedb.EntityConfig[balance]{Category: "a"})
	require.Equal(t, messagedb.FieldStore, field(err))
	_, err = messagedb.NewEntity((&messagedb.Client{}).InTx(nil), messagedb.EntityConfig[balance]{Category: "a"})
	require.Equal(t, messagedb.FieldStore, field(err), "a transaction may take back what the cache would keep")

	e, err := messagedb.NewEntity(s, messagedb.EntityConfig[balance]{Category: "a"})
	require.NoError(t, err)
	get := func(id string) error { _, _, err := e.Get(t.Context(), id); return err }
	require.Equal(t, messagedb.FieldHandler, field(get("1")))
	messagedb.Fold(e, "T", func(*balance, int, *messagedb.Message) error { return nil })
	require.NoError(t, get("1"))
	require.Equal(t, messagedb.FieldStreamID, field(get("")))
	messagedb.Fold(e, "T", func(*balance, int, *messagedb.Message) error { return nil })
	require.Equal(t, messagedb.FieldType, field(get("1")))
	for _, add := range []func(e *messagedb.Entity[balance]){
		func(e *messagedb.Entity[balance]) { messagedb.Fold[balance, int](e, "T", nil) },
		func(e *messagedb.Entity[balance]) {
			messagedb.Fold(e, "", func(*balance, int, *messagedb.Message) error { return nil })
		},
	} {
		e, err := messagedb.NewEntity(s, messagedb.EntityConfig[balance]{Category: "a"})
		require.NoError(t, err)
		add(e)
		_, _, err = e.Get(t.Context(), "1")
		require.ErrorAs(t, err, new(*messagedb.InvalidError), fmt.Sprint(err))
	}
}
