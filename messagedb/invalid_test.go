package messagedb_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/messagedb"
)

// The pool has no server: invalid arguments are refused without a round trip.
func TestBadInputNamesFieldValueAndRule(t *testing.T) {
	t.Parallel()
	pool, err := pgxpool.New(t.Context(), "postgres://nobody@192.0.2.1:1/none?connect_timeout=1")
	require.NoError(t, err)
	defer pool.Close()
	c, err := messagedb.NewClient(pool, nil)
	require.NoError(t, err)
	ctx := t.Context()
	write := func(stream messagedb.StreamName, m messagedb.ProposedMessage, version int64) func() error {
		return func() error { _, err := c.WriteMessage(ctx, stream, m, version); return err }
	}
	stream := func(name messagedb.StreamName, o messagedb.StreamOptions) func() error {
		return func() error { _, err := c.ReadStream(ctx, name, o); return err }
	}
	category := func(name string, o messagedb.CategoryOptions) func() error {
		return func() error { _, err := c.ReadCategory(ctx, name, o); return err }
	}
	group := func(member, size int) func() error {
		return category("a", messagedb.CategoryOptions{Group: &messagedb.Group{Member: member, Size: size}})
	}
	good := messagedb.ProposedMessage{Type: "T", Data: 1}
	long := "a-" + strings.Repeat("x", messagedb.MaxNameBytes)
	for _, test := range []struct {
		try   func() error
		field messagedb.Field
		value string
	}{
		{write("", good, -2), messagedb.FieldStream, ""},
		{write("acct", good, -2), messagedb.FieldStreamID, "acct"},
		{write("acct-", good, -2), messagedb.FieldStreamID, "acct-"},
		{write("-1", good, -2), messagedb.FieldCategory, "-1"},
		{write(messagedb.StreamName(long), good, -2), messagedb.FieldStream, long[:60] + "…"},
		{write("a-\x00", good, -2), messagedb.FieldStream, "a-\x00"},
		{write("a-1", good, -3), messagedb.FieldExpectedVersion, "-3"},
		{write("a-1", messagedb.ProposedMessage{Data: 1}, -2), messagedb.FieldType, ""},
		{write("a-1", messagedb.ProposedMessage{Type: "\xff", Data: 1}, -2), messagedb.FieldType, "\xff"},
		{write("a-1", messagedb.ProposedMessage{Type: "T"}, -2), messagedb.FieldData, "nil"},
		{write("a-1", messagedb.ProposedMessage{Type: "T", Data: func() {}}, -2), messagedb.FieldData, "func()"},
		{write("a-1", messagedb.ProposedMessage{Type: "T", Data: json.RawMessage(`{`)}, -2), messagedb.FieldData, "json.RawMessage"},
		{write("a-1", messagedb.ProposedMessage{Type: "T", Data: "\x00"}, -2), messagedb.FieldData, `"\u0000"`},
		{write("a-1", messagedb.ProposedMessage{Type: "T", Data: json.RawMessage("\"\xff\"")}, -2), messagedb.FieldData, "\"\xff\""},
		{write("a-1", messagedb.ProposedMessage{Type: "T", Data: 1, Metadata: make(chan int)}, -2), messagedb.FieldMetadata, "chan int"},
		{write("a-1", messagedb.ProposedMessage{Type: "T", Data: 1, ID: "no uuid"}, -2), messagedb.FieldID, "no uuid"},
		{write("a-1", messagedb.ProposedMessage{Type: "T", Data: 1, ID: strings.Replace(makeID(1), "-", "0", 1)}, -2), messagedb.FieldID, strings.Replace(makeID(1), "-", "0", 1)},
		{func() error { _, err := c.Write(ctx, "a-1", nil, -2); return err }, messagedb.FieldMessages, "none"},
		{func() error {
			_, err := c.Write(ctx, "a-1", []messagedb.ProposedMessage{good, {Type: "T"}}, -2)
			return err
		}, "Messages[1].Data", "nil"},
		{func() error { _, err := c.WriteTx(ctx, nil, "a-1", []messagedb.ProposedMessage{good}, -2); return err }, messagedb.FieldTx, "nil"},
		{func() error { _, err := c.AcquireLock(ctx, "a-1"); return err }, messagedb.FieldTx, "nil"},
		{stream("", messagedb.StreamOptions{}), messagedb.FieldStream, ""},
		{stream("acct", messagedb.StreamOptions{}), messagedb.FieldStreamID, "acct"},
		{stream("a-1", messagedb.StreamOptions{From: -1}), messagedb.FieldPosition, "-1"},
		{stream("a-1", messagedb.StreamOptions{BatchSize: -2}), messagedb.FieldBatchSize, "-2"},
		{stream("a-1", messagedb.StreamOptions{Condition: "\x00"}), messagedb.FieldCondition, "\x00"},
		{category("", messagedb.CategoryOptions{}), messagedb.FieldCategory, ""},
		{category("a-1", messagedb.CategoryOptions{}), messagedb.FieldCategory, "a-1"},
		{category("a", messagedb.CategoryOptions{From: -1}), messagedb.FieldPosition, "-1"},
		{category("a", messagedb.CategoryOptions{BatchSize: -2}), messagedb.FieldBatchSize, "-2"},
		{category("a", messagedb.CategoryOptions{Correlation: "b-1"}), messagedb.FieldCorrelation, "b-1"},
		{group(1, 0), messagedb.FieldGroupSize, "0"},
		{group(0, -1), messagedb.FieldGroupSize, "-1"},
		{group(0, messagedb.MaxGroupSize+1), messagedb.FieldGroupSize, "32768"},
		{group(-1, 2), messagedb.FieldGroupMember, "-1"},
		{group(2, 2), messagedb.FieldGroupMember, "2"},
		{func() error { _, err := c.LastMessage(ctx, "", ""); return err }, messagedb.FieldStream, ""},
		{func() error { _, err := c.LastMessage(ctx, "a-1", "\xff"); return err }, messagedb.FieldType, "\xff"},
		{func() error { _, err := c.StreamVersion(ctx, ""); return err }, messagedb.FieldStream, ""},
		{func() error { _, err := c.Summary(ctx, "messages"); return err }, messagedb.FieldView, "messages"},
		{func() error {
			for _, err := range c.CategoryMessages(ctx, "a", messagedb.CategoryOptions{BatchSize: messagedb.Unlimited}) {
				return err
			}
			return nil
		}, messagedb.FieldBatchSize, "-1"},
		{func() error {
			for _, err := range c.StreamMessages(ctx, "a", messagedb.StreamOptions{}) {
				return err
			}
			return nil
		}, messagedb.FieldStreamID, "a"},
		{func() error { _, err := messagedb.NewClient(nil, nil); return err }, messagedb.FieldPool, "nil"},
		{func() error {
			_, err := messagedb.NewClient(pool, &messagedb.Config{Schema: strings.Repeat("s", 64)})
			return err
		}, messagedb.FieldSchema, strings.Repeat("s", 64)},
		{func() error { return messagedb.Migrate(ctx, nil, "") }, messagedb.FieldPool, "nil"},
	} {
		err := test.try()
		bad := new(messagedb.InvalidError)
		require.ErrorAs(t, err, &bad, "%s %q", test.field, test.value)
		require.Equal(t, test.field, bad.Field, "%v", err)
		require.Equal(t, test.value, bad.Value, "%v", err)
		require.NotEmpty(t, bad.Rule)
		require.Equal(t, fmt.Sprintf("messagedb: %s %q: %s", bad.Field, bad.Value, bad.Rule), err.Error())
		require.False(t, messagedb.IsTransient(err))
	}
}

// A name of the maximum length can be written, even if it cannot be compressed.
func TestTheLongestNameIsWritten(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *store) {
		name := make([]byte, messagedb.MaxNameBytes)
		for i := range name {
			name[i] = byte('0' + rand.IntN(75))
			if name[i] == '-' {
				name[i] = '_'
			}
		}
		name[1] = '-'
		_, err := s.client.WriteMessage(t.Context(), messagedb.StreamName(name), newMessage(1), messagedb.NoStreamVersion)
		require.NoError(t, err)
		read, err := s.client.ReadStream(t.Context(), messagedb.StreamName(name), messagedb.StreamOptions{})
		require.NoError(t, err)
		require.Len(t, read, 1)
	})
}

func FuzzPayload(f *testing.F) {
	for _, s := range []string{`{}`, `{"a":"\\u0000"}`, `"\u0000"`, `"\\\u0000"`, `1e400`, `[1,2`, "\"\xff\"", `"\ud800"`, `1e999999`} {
		f.Add(s, "T")
	}
	s := newStore(f)
	f.Fuzz(func(t *testing.T, data, kind string) {
		_, err := s.client.WriteMessage(t.Context(), "fuzz-1", messagedb.ProposedMessage{Type: kind, Data: json.RawMessage(data)}, messagedb.AnyVersion)
		if err != nil {
			// The server accepts data that the client accepts; otherwise the error is typed.
			require.ErrorAs(t, err, new(*messagedb.InvalidError), "%q", data)
			return
		}
		last, err := s.client.LastMessage(t.Context(), "fuzz-1", "")
		require.NoError(t, err)
		require.Equal(t, kind, last.Type)
		require.True(t, json.Valid(last.Data))
	})
}
