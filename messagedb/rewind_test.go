package messagedb_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/messagedb"
)

// emptyStore makes the store look like a new one, or like a backup from before its messages.
func emptyStore(t *testing.T, s *store) {
	t.Helper()
	_, err := s.pool.Exec(t.Context(), "TRUNCATE message_store.messages RESTART IDENTITY")
	require.NoError(t, err)
}

func TestASubscriptionIsToldOfAStoreThatWasEmptied(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *store) {
		fillCategory(t, s, "account", 1, 5)
		got := make(chan *messagedb.Message, 100)
		options := messagedb.SubscriptionOptions{Polling: quick.Polling}
		category, err := s.client.SubscribeToCategory(t.Context(), "account", sendTo(got), messagedb.CategoryOptions{}, options)
		require.NoError(t, err)
		for range 5 {
			take(t, got)
		}
		stream, err := s.client.SubscribeToStream(t.Context(), "account-0", sendTo(got), messagedb.StreamOptions{}, options)
		require.NoError(t, err)
		for range 5 {
			take(t, got)
		}
		emptyStore(t, s)
		var rewound *messagedb.RewoundError
		require.ErrorAs(t, category.Err(), &rewound)
		require.Equal(t, "account", rewound.Category)
		require.Zero(t, rewound.Last)
		require.Positive(t, rewound.Position)
		require.ErrorAs(t, stream.Err(), &rewound)
		require.Equal(t, messagedb.StreamName("account-0"), rewound.Stream)
		require.Equal(t, int64(4), rewound.Position)
		require.Equal(t, int64(-1), rewound.Last)
	})
}

func TestASubscriptionIsToldOfAStreamThatWasBegunAgain(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *store) {
		fillCategory(t, s, "account", 1, 5)
		got := make(chan *messagedb.Message, 100)
		subscription, err := s.client.SubscribeToStream(t.Context(), "account-0", sendTo(got), messagedb.StreamOptions{},
			messagedb.SubscriptionOptions{Polling: quick.Polling})
		require.NoError(t, err)
		var last *messagedb.Message
		for range 5 {
			last = take(t, got)
		}
		// In one transaction, so that the stream is never seen shorter.
		tx, err := s.pool.Begin(t.Context())
		require.NoError(t, err)
		_, err = tx.Exec(t.Context(), "DELETE FROM message_store.messages WHERE stream_name = 'account-0'")
		require.NoError(t, err)
		for range 8 {
			_, err = s.client.WriteMessageTx(t.Context(), tx, "account-0", messagedb.ProposedMessage{Type: "Again", Data: messagedb.NoData}, messagedb.AnyVersion)
			require.NoError(t, err)
		}
		require.NoError(t, tx.Commit(t.Context()))
		var rewound *messagedb.RewoundError
		require.ErrorAs(t, subscription.Err(), &rewound)
		require.Equal(t, rewound.Expected, last.ID)
		require.NotEmpty(t, rewound.Found)
		require.Equal(t, int64(7), rewound.Last)
	})
}

func TestASubscriptionDoesNotWaitForAPositionAheadOfTheStore(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *store) {
		fillCategory(t, s, "account", 1, 5)
		got := make(chan *messagedb.Message, 100)
		ahead, err := s.client.SubscribeToCategory(t.Context(), "account", sendTo(got), messagedb.CategoryOptions{From: 1000}, quick)
		require.NoError(t, err)
		require.ErrorAs(t, ahead.Err(), new(*messagedb.RewoundError))

		// The next position is not ahead.
		next, err := s.client.SubscribeToStream(t.Context(), "account-0", sendTo(got), messagedb.StreamOptions{From: 5}, quick)
		require.NoError(t, err)
		fillCategory(t, s, "account", 1, 1)
		require.Equal(t, int64(5), take(t, got).Position)
		next.Stop()
		require.NoError(t, next.Err())
	})
}

func TestASubscriptionGoesOnWhereOldMessagesAreDeleted(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *store) {
		fillCategory(t, s, "account", 1, 5)
		got := make(chan *messagedb.Message, 100)
		subscription, err := s.client.SubscribeToCategory(t.Context(), "account", sendTo(got), messagedb.CategoryOptions{}, quick)
		require.NoError(t, err)
		for range 5 {
			take(t, got)
		}
		_, err = s.pool.Exec(t.Context(), "DELETE FROM message_store.messages")
		require.NoError(t, err)
		fillCategory(t, s, "account", 1, 3)
		for range 3 {
			take(t, got)
		}
		// A subscription that begins after a removed message compares with the same end.
		again, err := s.client.SubscribeToCategory(t.Context(), "account", sendTo(got), messagedb.CategoryOptions{From: 4}, quick)
		require.NoError(t, err)
		for range 3 {
			take(t, got)
		}
		subscription.Stop()
		again.Stop()
		require.NoError(t, subscription.Err())
		require.NoError(t, again.Err())
	})
}

func TestASubscriptionBeginsAgainByItsPolicy(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *store) {
		fillCategory(t, s, "account", 1, 5)
		got := make(chan *messagedb.Message, 100)
		options := quick
		options.Rewind = messagedb.RewindRestart
		subscription, err := s.client.SubscribeToStream(t.Context(), "account-0", sendTo(got), messagedb.StreamOptions{}, options)
		require.NoError(t, err)
		for range 5 {
			take(t, got)
		}
		emptyStore(t, s)
		all := fillCategory(t, s, "account", 1, 2)
		for _, m := range all {
			require.Equal(t, m.ID, take(t, got).ID)
		}
		require.Equal(t, int64(1), subscription.Stats().Rewound)
		subscription.Stop()
		require.NoError(t, subscription.Err())

		_, err = s.client.SubscribeToStream(t.Context(), "account-0", sendTo(got), messagedb.StreamOptions{}, messagedb.SubscriptionOptions{Rewind: "later"})
		var bad *messagedb.InvalidError
		require.ErrorAs(t, err, &bad)
		require.Equal(t, messagedb.FieldRewind, bad.Field)
	})
}

func TestAConsumerIsToldOfAStoreThatWasFilledAgain(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *store) {
		fillCategory(t, s, "account", 1, 20)
		j := &journal{}
		config := messagedb.ConsumerConfig{Category: "account", Identifier: "worker", Handler: j.handle}
		c := newTestConsumer(t, s, config)
		ended := runConsumer(t, c)
		waitHandled(t, c, 20)
		require.NoError(t, c.Stop(t.Context()))
		require.NoError(t, take(t, ended))

		// The category is filled again, to beyond the position, and the position stays.
		_, err := s.pool.Exec(t.Context(), "DELETE FROM message_store.messages WHERE stream_name LIKE 'account-%'")
		require.NoError(t, err)
		_, err = s.pool.Exec(t.Context(), "UPDATE message_store.messages SET global_position = 1000000") // out of the way
		require.NoError(t, err)
		_, err = s.pool.Exec(t.Context(), "ALTER SEQUENCE message_store.messages_global_position_seq RESTART")
		require.NoError(t, err)
		fillCategory(t, s, "account", 1, 20)

		c = newTestConsumer(t, s, config)
		var rewound *messagedb.RewoundError
		require.ErrorAs(t, take(t, runConsumer(t, c)), &rewound)
		require.Equal(t, "account", rewound.Category)
		require.NotEmpty(t, rewound.Found)
		require.Len(t, j.handledMessages(), 20, "none was handled")

		config.Rewind = messagedb.RewindRestart
		c = newTestConsumer(t, s, config)
		ended = runConsumer(t, c)
		waitHandled(t, c, 20)
		require.Len(t, j.handledMessages(), 40)
		require.Equal(t, int64(1), c.Stats().Rewound)
		require.NoError(t, c.Stop(t.Context()))
		require.NoError(t, take(t, ended))
	})
}

// requireSaved waits until a consumer has saved the position of the last of these messages, or of the one before it.
func requireSaved(t *testing.T, c *messagedb.Consumer, all []*messagedb.Message) {
	t.Helper()
	require.Eventually(t, func() bool { return c.Stats().Saved == all[len(all)-1].GlobalPosition }, soon, time.Millisecond)
}

func TestAConsumerThatRunsIsToldOfAStoreThatWasEmptied(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *store) {
		all := fillCategory(t, s, "account", 1, 20)
		j := &journal{}
		config := messagedb.ConsumerConfig{Category: "account", Identifier: "worker", Handler: j.handle, PositionInterval: 1}
		c := newTestConsumer(t, s, config)
		ended := runConsumer(t, c)
		requireSaved(t, c, all)
		emptyStore(t, s)
		require.ErrorAs(t, take(t, ended), new(*messagedb.RewoundError))
		version, err := s.client.StreamVersion(t.Context(), c.PositionStream())
		require.NoError(t, err)
		require.Equal(t, messagedb.NoStreamVersion, version, "no position of the old store is saved in the new one")

		all = fillCategory(t, s, "account", 1, 20)
		config.Rewind = messagedb.RewindRestart
		c = newTestConsumer(t, s, config)
		ended = runConsumer(t, c)
		requireSaved(t, c, all)
		emptyStore(t, s)
		all = fillCategory(t, s, "account", 1, 3)
		waitHandled(t, c, 23)
		require.Equal(t, all[2].ID, j.handledMessages()[42].ID)
		require.NoError(t, c.Stop(t.Context()))
		require.NoError(t, take(t, ended))
	})
}
