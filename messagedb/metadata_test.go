package messagedb_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/messagedb"
)

func TestMessagesFollowOneAnother(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, s messagedb.Store) {
		ctx := t.Context()
		write := func(stream messagedb.StreamName, metadata any) *messagedb.Message {
			_, err := s.WriteMessage(ctx, stream, messagedb.ProposedMessage{Type: "T", Data: messagedb.NoData, Metadata: metadata}, messagedb.AnyVersion)
			require.NoError(t, err)
			m, err := s.LastMessage(ctx, stream, "")
			require.NoError(t, err)
			return m
		}
		first := write("order:command-1", messagedb.Metadata{
			CorrelationStreamName: "sale-7", ReplyStreamName: "sale-7", SchemaVersion: "2",
			Properties: messagedb.Properties{"user": "ann", "big": json.Number("9007199254740993")}, LocalProperties: messagedb.Properties{"trace": "x"},
		})
		second, err := messagedb.Follow(first)
		require.NoError(t, err)
		require.True(t, second.Follows(first))
		require.True(t, second.IsCorrelated("sale"))
		require.False(t, second.IsCorrelated("sal"))
		m := write("account-1", second)
		require.JSONEq(t, `{"correlationStreamName": "sale-7", "causationMessageStreamName": "order:command-1", "causationMessagePosition": 0,
			"causationMessageGlobalPosition": `+json.Number(jsonOf(t, first.GlobalPosition)).String()+`, "replyStreamName": "sale-7",
			"properties": {"user": "ann", "big": 9007199254740993}}`, string(m.Metadata))
		third, err := messagedb.Follow(m)
		require.NoError(t, err)
		require.True(t, third.Follows(m))
		require.False(t, third.Follows(first))
		require.Equal(t, json.Number("9007199254740993"), third.Properties["big"], "no digit is lost")

		// A reader of the conversation gets what is in it.
		alone, err := messagedb.Follow(write("account-2", nil))
		require.NoError(t, err)
		require.Empty(t, alone.CorrelationStreamName)
		require.False(t, alone.IsCorrelated(""))
		write("account-3", alone)
		correlated, err := s.ReadCategory(ctx, "account", messagedb.CategoryOptions{Correlation: "sale"})
		require.NoError(t, err)
		require.Equal(t, allShown([]*messagedb.Message{m}), allShown(correlated))

		_, err = messagedb.Follow(write("account-4", []int{1}))
		require.ErrorAs(t, err, new(*messagedb.DecodeError))
	})
}

func jsonOf(t *testing.T, value any) string {
	t.Helper()
	text, err := json.Marshal(value)
	require.NoError(t, err)
	return string(text)
}
