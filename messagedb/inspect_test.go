package messagedb_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/messagedb"
)

func TestStreamsAreListedAPageAtATime(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *store) {
		for n := range 30 {
			for _, category := range []string{"a", "a:command", "b"} {
				_, err := s.client.Write(t.Context(), messagedb.StreamName(fmt.Sprintf("%s-%d", category, n%10)), []messagedb.ProposedMessage{{Type: "T", Data: n}, {Type: "T", Data: n}}, messagedb.AnyVersion)
				require.NoError(t, err)
			}
		}
		_, err := s.pool.Exec(t.Context(), "DELETE FROM message_store.messages WHERE stream_name = 'a-3' AND position < 3")
		require.NoError(t, err)
		var names []string
		after := int64(0)
		for {
			page, err := s.client.Streams(t.Context(), "a", after, 3)
			require.NoError(t, err)
			for _, found := range page {
				names = append(names, found.Stream.String())
				require.EqualValues(t, 5, found.Version)
				want := int64(6)
				if found.Stream == "a-3" {
					want = 3 // the rest was archived
				}
				require.Equal(t, want, found.Messages, found.Stream)
				require.False(t, found.LastTime.IsZero())
				require.Greater(t, found.First, after)
				after = found.First
			}
			if len(page) < 3 {
				break
			}
		}
		require.Equal(t, []string{"a-0", "a-1", "a-2", "a-4", "a-5", "a-6", "a-7", "a-8", "a-9", "a-3"}, names, "by their first messages, each once")
		categories, err := s.client.Categories(t.Context())
		require.NoError(t, err)
		require.ElementsMatch(t, []string{"a", "a:command", "b"}, categories)

		for _, call := range []func() error{
			func() error { _, err := s.client.Streams(t.Context(), "a-1", 0, 1); return err },
			func() error { _, err := s.client.Streams(t.Context(), "a", -1, 1); return err },
			func() error { _, err := s.client.Streams(t.Context(), "a", 0, 0); return err },
			func() error { _, err := s.client.Streams(t.Context(), "a", 0, 1001); return err },
			func() error { _, err := s.client.LastCategoryMessages(t.Context(), "a", 0, ""); return err },
			func() error { _, err := s.client.LastCategoryMessages(t.Context(), "a", 1, "x-1"); return err },
			func() error { _, err := s.client.ConsumerPositions(t.Context(), "a-1"); return err },
			func() error { return s.client.CheckPosition(t.Context(), "a-1", 0, "") },
			func() error { return s.client.CheckPosition(t.Context(), "a", -1, "") },
			func() error { return s.client.CheckPosition(t.Context(), "a", 0, "none") },
			func() error {
				_, err := s.client.CategoryLag(t.Context(), "a", 0, &messagedb.Group{Size: -1})
				return err
			},
		} {
			require.ErrorAs(t, call(), new(*messagedb.InvalidError))
		}
	})
}

func TestTheEndOfACategory(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *store) {
		all := fillCategory(t, s, "a", 2, 5)
		fillCategory(t, s, "b", 1, 5)
		last, err := s.client.LastCategoryMessages(t.Context(), "a", 3, "")
		require.NoError(t, err)
		require.Equal(t, all[7:], last)
		last, err = s.client.LastCategoryMessages(t.Context(), "a", 3, "from0")
		require.NoError(t, err)
		require.Equal(t, all[2:5], last)
		last, err = s.client.LastCategoryMessages(t.Context(), "none", 3, "")
		require.NoError(t, err)
		require.Empty(t, last)
	})
}

func TestWhereConsumersStand(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *store) {
		all := fillCategory(t, s, "a:command", 4, 5)
		none := func(context.Context, *messagedb.Message) error { return nil }
		for _, config := range []messagedb.ConsumerConfig{
			{Category: "a:command"},
			{Category: "a:command", Identifier: "x+y"},
			{Category: "a:command", Identifier: "g", Group: &messagedb.Group{Member: 1, Size: 2}},
		} {
			config.Handler = none
			c := newTestConsumer(t, s, config)
			runConsumer(t, c)
			lag := func() int64 {
				l, err := c.Lag(t.Context())
				require.NoError(t, err)
				return l.Messages
			}
			require.Eventually(t, func() bool { return lag() == 0 }, soon, 5*time.Millisecond)
			require.NoError(t, c.Stop(t.Context()))
		}
		fillCategory(t, s, "a:command", 4, 1)
		for _, category := range []string{"a:command", ""} {
			found, err := s.client.ConsumerPositions(t.Context(), category)
			require.NoError(t, err)
			require.Len(t, found, 3)
			require.Equal(t, messagedb.StreamName("a:command+position"), found[0].Stream)
			require.Equal(t, "x+y", found[1].Identifier)
			require.Nil(t, found[1].Group)
			require.Equal(t, "g", found[2].Identifier)
			require.Equal(t, &messagedb.Group{Member: 1, Size: 2}, found[2].Group)
			behind := int64(0)
			for n := range 4 {
				if member, _ := messagedb.StreamName(fmt.Sprintf("a:command-%d", n)).Member(2); member == 1 {
					behind++
				}
			}
			require.Equal(t, behind, found[2].Lag.Messages)
			for _, p := range found[:2] {
				require.Equal(t, "a:command", p.Category)
				require.Equal(t, all[19].GlobalPosition, p.Position)
				require.EqualValues(t, 4, p.Lag.Messages)
				require.Nil(t, p.Rewound)
				require.False(t, p.SavedAt.IsZero())
			}
		}
		// If the messages of a category were deleted, its readers lose nothing: the store did not go back.
		_, err := s.pool.Exec(t.Context(), "DELETE FROM message_store.messages WHERE stream_name LIKE 'a:command-%'")
		require.NoError(t, err)
		_, err = s.pool.Exec(t.Context(), "UPDATE message_store.messages SET global_position = global_position - $1", all[19].GlobalPosition) // nothing is at or behind the position
		require.NoError(t, err)
		found, err := s.client.ConsumerPositions(t.Context(), "a:command")
		require.NoError(t, err)
		require.Len(t, found, 3)
		for _, p := range found {
			require.Nil(t, p.Rewound)
			require.NoError(t, s.client.CheckPosition(t.Context(), p.Category, p.Position, all[19].ID))
		}
		other, err := s.client.ConsumerPositions(t.Context(), "a")
		require.NoError(t, err)
		require.Empty(t, other)
		_, err = s.client.WriteMessage(t.Context(), "a:position-lost", messagedb.ProposedMessage{Type: "Recorded", Data: map[string]int{"position": 1e6}}, messagedb.AnyVersion)
		require.NoError(t, err)
		other, err = s.client.ConsumerPositions(t.Context(), "a")
		require.NoError(t, err)
		require.Len(t, other, 1)
		require.NotNil(t, other[0].Rewound)
		require.Equal(t, int64(1e6), other[0].Rewound.Position)
		require.ErrorAs(t, s.client.CheckPosition(t.Context(), "a", 1e6, ""), new(*messagedb.RewoundError))
	})
}
