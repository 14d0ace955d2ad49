package category_test

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/internal/cdctest"
	"github.com/chariot-giving/delta/messagedb"
	"github.com/chariot-giving/delta/sinks"
	"github.com/chariot-giving/delta/sinks/category"
)

// A permanently refused message delays no other, and a message that comes again is written once.
func TestMessagesAreWrittenOnceAndOthersRefused(t *testing.T) {
	t.Parallel()
	client := newClient(t, cdctest.New(t).Pool)
	sink, err := category.NewSink(category.SinkConfig{Client: client, Category: "events"})
	require.NoError(t, err)
	at := time.Date(2026, 11, 28, 12, 0, 0, 5000, time.FixedZone("", 3600))
	messages := []sinks.Message{
		{ID: "1", Key: "public.order/1", Subject: "public.order", Type: "insert", Time: at, Headers: map[string]string{"a": "b"}, Body: []byte(`{"x": 1.50}`)},
		{ID: "2", Key: "2", Type: "insert", Body: []byte("no JSON")},
		{ID: "3", Key: "3", Type: "insert", Body: []byte(`"\u0000"`)},
		{ID: "4", Key: "4", Body: []byte("{}")},
		{ID: "5", Key: strings.Repeat("k", messagedb.MaxNameBytes), Type: "insert", Body: []byte("{}")},
		{ID: "6", Key: "NUL\x00", Type: "insert", Body: []byte("{}")},
		{ID: "7", Key: "7", Type: "insert", Body: []byte(`"\ud800"`)},
		{ID: "8", Subject: "public.order", Type: "truncate"},
		{ID: "9", Type: "insert", Body: []byte("null")},
	}
	for range 2 {
		errs := sink.Deliver(t.Context(), messages)
		require.Len(t, errs, len(messages))
		for i, err := range errs {
			if i == 0 || i > 6 {
				require.NoError(t, err, i)
				continue
			}
			require.True(t, sinks.IsPermanent(err), "%d: %v", i, err)
			require.ErrorAs(t, err, new(*messagedb.InvalidError), i)
		}
	}
	all, err := client.ReadCategory(t.Context(), "events", messagedb.CategoryOptions{})
	require.NoError(t, err)
	require.Len(t, all, 3)
	require.Equal(t, messagedb.StreamName("events-public.order/1"), all[0].Stream)
	require.Equal(t, "insert", all[0].Type)
	require.Equal(t, messagedb.DerivedID("events", "1"), all[0].ID)
	require.JSONEq(t, `{"x": 1.50}`, string(all[0].Data))
	require.JSONEq(t, `{"id": "1", "key": "public.order/1", "subject": "public.order", "time": "2026-11-28T11:00:00.000005Z", "headers": {"a": "b"}}`, string(all[0].Metadata))
	require.Equal(t, messagedb.StreamName("events-public.order"), all[1].Stream)
	require.Nil(t, all[1].Data)
	require.Equal(t, messagedb.StreamName("events-9"), all[2].Stream)
	require.JSONEq(t, "null", string(all[2].Data))

	// A different message with an existing id is refused, not silently dropped.
	other := messages[0]
	other.Body = []byte(`{"x": 2}`)
	errs := sink.Deliver(t.Context(), []sinks.Message{other})
	require.True(t, sinks.IsPermanent(errs[0]), errs[0])
	duplicate := new(messagedb.DuplicateIDError)
	require.ErrorAs(t, errs[0], &duplicate)
	require.True(t, duplicate.Different)
}

// The server refuses JSON that is nested too deeply, or too large for jsonb, with a SQLSTATE of the class 54. Errors of the server or the
// connection are not errors of the message.
func TestOnlyErrorsOfTheMessageArePermanent(t *testing.T) {
	t.Parallel()
	d := cdctest.New(t)
	client := newClient(t, d.Pool)
	sink, err := category.NewSink(category.SinkConfig{Client: client, Category: "events"})
	require.NoError(t, err)
	d.Exec("ALTER DATABASE " + d.Name + " SET max_stack_depth = '100kB'")
	d.Pool.Reset()
	deep := sinks.Message{ID: "1", Key: "1", Type: "T", Body: []byte(strings.Repeat("[", 5000) + strings.Repeat("]", 5000))}
	small := sinks.Message{ID: "2", Key: "2", Type: "T", Body: []byte("{}")}
	errs := sink.Deliver(t.Context(), []sinks.Message{deep, small})
	server := new(pgconn.PgError)
	require.ErrorAs(t, errs[0], &server)
	require.Equal(t, "54001", server.Code)
	require.True(t, sinks.IsPermanent(errs[0]))
	require.NoError(t, errs[1])

	d.Exec("ALTER TABLE message_store.messages RENAME TO away")
	errs = sink.Deliver(t.Context(), []sinks.Message{{ID: "3", Key: "3", Type: "T", Body: []byte("{}")}, small})
	require.Error(t, errs[0])
	require.False(t, sinks.IsPermanent(errs[0]), errs[0])
	require.ErrorIs(t, errs[1], sinks.ErrNotTried)
	d.Exec("ALTER TABLE message_store.away RENAME TO messages")
	errs = sink.Deliver(t.Context(), []sinks.Message{{ID: "3", Key: "3", Type: "T", Body: []byte("{}")}, small})
	require.Equal(t, []error{nil, nil}, errs)
}

func TestInvalidSinkConfigsAreRefused(t *testing.T) {
	t.Parallel()
	client := newClient(t, cdctest.New(t).Pool)
	for rule, config := range map[string]category.SinkConfig{
		"is required":       {Category: "a"},
		"must not be empty": {Client: client},
		"must not contain":  {Client: client, Category: "a-b"},
	} {
		_, err := category.NewSink(config)
		invalid := new(sinks.InvalidError)
		require.ErrorAs(t, err, &invalid)
		require.Equal(t, map[bool]string{true: "Client", false: "Category"}[config.Client == nil], invalid.Field)
		require.Contains(t, invalid.Rule, rule)
	}
}
