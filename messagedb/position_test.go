package messagedb_test

import (
	"context"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/internal/soak"
	"github.com/chariot-giving/delta/messagedb"
)

func TestTwoConsumersOfOnePositionFindOut(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	fillCategory(t, s, "a", 1, 50)
	// They are abreast, message by message: one that is done before the other begins has no conflict with it.
	abreast, over := make(chan struct{}), make(chan struct{})
	defer close(over)
	config := messagedb.ConsumerConfig{Category: "a", PositionInterval: 10, Handler: func(context.Context, *messagedb.Message) error {
		select {
		case abreast <- struct{}{}:
		case <-abreast:
		case <-over:
		}
		return nil
	}}
	one, two := newTestConsumer(t, s, config), newTestConsumer(t, s, config)
	first, second := runConsumer(t, one), runConsumer(t, two)
	var err error
	select {
	case err = <-first:
	case err = <-second:
	case <-time.After(soon):
		t.Fatal("neither found out")
	}
	conflict := new(messagedb.PositionConflictError)
	require.ErrorAs(t, err, &conflict)
	require.Equal(t, messagedb.StreamName("a:position"), conflict.Stream)
	require.EqualValues(t, 1, one.Stats().Conflicts+two.Stats().Conflicts)
}

// A process that died may have sent a save that the server carries out when its successor has read the position.
func TestTheLateSaveOfADeadConsumerIsNoConflict(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	fillCategory(t, s, "a", 1, 50)
	late := func(run string, position int) func() {
		return func() {
			_, err := s.pool.Exec(context.Background(), `SET search_path TO message_store; SELECT write_message(gen_random_uuid()::varchar, 'a:position', 'Recorded',
				'{"position": `+fmt.Sprint(position)+`}', '{"run": "`+run+`"}'); RESET search_path`)
			if err != nil {
				t.Error(err)
			}
		}
	}
	for _, test := range []struct {
		first, second string
		conflict      bool
	}{{"dead", "dead, too", false}, {"alive", "alive", true}} {
		interfere := map[int64]func(){12: late(test.first, 3), 32: late(test.second, 3)}
		c := newTestConsumer(t, s, messagedb.ConsumerConfig{Category: "a", PositionInterval: 10, Handler: func(_ context.Context, m *messagedb.Message) error {
			if do := interfere[m.GlobalPosition]; do != nil {
				do()
			}
			return nil
		}})
		ended := runConsumer(t, c)
		if test.conflict {
			require.ErrorAs(t, take(t, ended), new(*messagedb.PositionConflictError))
			continue
		}
		waitHandled(t, c, 50)
		require.NoError(t, c.Stop(t.Context()))
		require.NoError(t, take(t, ended))
		require.EqualValues(t, 50, c.Stats().Saved)
		_, err := s.pool.Exec(t.Context(), "DELETE FROM message_store.messages WHERE stream_name = 'a:position'")
		require.NoError(t, err)
	}
}

func TestAGroupThatChangesItsSizeLosesNothing(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	fillCategory(t, s, "a", 20, 5)
	j := &journal{}
	ids := func() int {
		seen := map[string]bool{}
		for _, m := range j.handledMessages() {
			seen[m.ID] = true
		}
		return len(seen)
	}
	work := func(size, previous, want int) {
		t.Helper()
		var cs []*messagedb.Consumer
		for member := range size {
			c := newTestConsumer(t, s, messagedb.ConsumerConfig{Category: "a", Identifier: "g", Group: &messagedb.Group{Member: member, Size: size}, PreviousSize: previous, Handler: j.handle})
			require.Equal(t, messagedb.StreamName(fmt.Sprintf("a:position-g+%d+%d", member, size)), c.PositionStream())
			runConsumer(t, c)
			cs = append(cs, c)
		}
		require.Eventually(t, func() bool { return ids() == want }, soon, 5*time.Millisecond)
		for _, c := range cs {
			require.NoError(t, c.Stop(t.Context()))
		}
	}
	work(2, 0, 100)
	require.Len(t, j.handledMessages(), 100, "each has its own")
	least := int64(math.MaxInt64)
	for member := range 2 {
		saved, err := s.client.LastMessage(t.Context(), messagedb.StreamName(fmt.Sprintf("a:position-g+%d+2", member)), "")
		require.NoError(t, err)
		position, err := messagedb.Decode[struct {
			Position int64 `json:"position"`
		}](saved)
		require.NoError(t, err)
		least = min(least, position.Position)
	}
	require.Positive(t, least)
	fillCategory(t, s, "b", 1, 1)
	_, err := s.client.Write(t.Context(), "a-3", []messagedb.ProposedMessage{{Type: "T", Data: 1}, {Type: "T", Data: 2}}, messagedb.AnyVersion)
	require.NoError(t, err)
	work(3, 2, 102)
	for _, m := range j.handledMessages()[100:] {
		require.GreaterOrEqual(t, m.GlobalPosition, least, "the new members began before what each of the old had handled")
	}
}

// Broken connections and an unreachable database only delay a consumer.
func TestAConsumerGetsOverLostConnections(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	s := newStore(t)
	all := fillCategory(t, s, "a", 3, 100)
	j := &journal{}
	kill := "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = '" + s.config.ConnConfig.Database + "'"
	var c *messagedb.Consumer
	hits := make(chan int64, 1)
	c = newTestConsumer(t, s, messagedb.ConsumerConfig{Category: "a", PositionInterval: 5, BatchSize: 20, Handler: func(ctx context.Context, m *messagedb.Message) error {
		_ = j.handle(ctx, m)
		switch n := len(j.handledMessages()); {
		case n == 300:
			hits <- c.Stats().Retried
		case n%5 == 4 && c.Stats().Retried < 3: // they are dead when it comes to save the next one
			return runAsAdmin(ctx, kill)
		}
		return nil
	}})
	ended := runConsumer(t, c)
	// At any other moment, too.
	for c.Stats().Retried < 3 {
		require.Empty(t, ended, "it gave up")
		require.NoError(t, runAsAdmin(t.Context(), kill))
		time.Sleep(10 * time.Millisecond)
	}
	waitHandled(t, c, 300)
	require.GreaterOrEqual(t, take(t, hits), int64(3), "it was hit before it was through")
	require.NoError(t, c.Stop(t.Context()))
	require.NoError(t, take(t, ended))
	require.Equal(t, all, j.handledMessages(), "each once, and in order")
	require.Equal(t, all[299].GlobalPosition, c.Stats().Saved)
}
