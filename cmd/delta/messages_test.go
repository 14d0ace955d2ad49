package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/messagedb"
)

// messageStore is a message store in a private schema, for the command to read.
type messageStore struct {
	*installation
	schema string
	client *messagedb.Client
}

func newMailbox(t *testing.T) *messageStore {
	t.Helper()
	i := newInstallation(t)
	m := &messageStore{installation: i, schema: strings.ToLower(i.Schema) + "_mail"}
	require.NoError(t, messagedb.Migrate(t.Context(), i.Pool, m.schema))
	t.Cleanup(func() { _, _ = i.Pool.Exec(context.Background(), "DROP SCHEMA "+m.schema+" CASCADE") })
	client, err := messagedb.NewClient(i.Pool, &messagedb.Config{Schema: m.schema})
	require.NoError(t, err)
	m.client = client
	return m
}

func (m *messageStore) write(stream messagedb.StreamName, from, to int) {
	m.t.Helper()
	for n := from; n <= to; n++ {
		_, err := m.client.WriteMessage(m.t.Context(), stream, messagedb.ProposedMessage{
			Type: "Counted", Data: map[string]int{"n": n}, Metadata: messagedb.Metadata{CorrelationStreamName: messagedb.StreamName(fmt.Sprintf("order%d-1", n%2))},
		}, messagedb.AnyVersion)
		require.NoError(m.t, err)
	}
}

func (m *messageStore) run(args ...string) result {
	m.t.Helper()
	return m.runWith(streams{}, args...)
}

func (m *messageStore) runWith(s streams, args ...string) result {
	m.t.Helper()
	return inProcess(m.t.Context(), s, append([]string{"messages"}, append(args, "--schema", m.schema, "--database-url", m.DatabaseURL)...)...)
}

func TestMessagesTail(t *testing.T) {
	t.Parallel()
	m := newMailbox(t)
	m.write("thing-1", 1, 30)
	m.write("thing-2", 31, 35)
	numbers := func(args ...string) (found []int) {
		t.Helper()
		r := m.run(append([]string{"tail", "-o", "json"}, args...)...)
		require.Equal(t, exitOK, r.code, r.stderr)
		for _, one := range decode[messagesJSON](t, r).Messages {
			var data struct{ N int }
			require.NoError(t, json.Unmarshal(one.Data, &data))
			found = append(found, data.N)
		}
		return found
	}
	require.Len(t, numbers("thing-1"), 20, "the last ones")
	require.Equal(t, []int{29, 30}, numbers("thing-1", "--limit", "2"))
	require.Equal(t, []int{1, 2}, numbers("thing-1", "--limit", "2", "--from", "0"))
	require.Equal(t, []int{34, 35}, numbers("thing", "--limit", "2"))
	require.Equal(t, []int{33, 35}, numbers("thing", "--limit", "2", "--correlation", "order1"))
	all, err := m.client.ReadCategory(t.Context(), "thing", messagedb.CategoryOptions{})
	require.NoError(t, err)
	require.Equal(t, []int{31, 32}, numbers("thing", "--limit", "2", "--from", fmt.Sprint(all[30].GlobalPosition)))
	require.Equal(t, []int{32, 34}, numbers("thing", "--correlation", "order0", "--from", fmt.Sprint(all[30].GlobalPosition)))
	require.Empty(t, numbers("none-1"))

	r := m.runWith(streams{width: 80}, "tail", "thing-1", "--limit", "1")
	require.Equal(t, exitOK, r.code, r.stderr)
	require.Regexp(t, `^\d+  20\S+Z  thing-1@29  Counted  \{"n": 30\}\n$`, r.stdout)
	_, err = m.client.WriteMessage(t.Context(), "thing-3", messagedb.ProposedMessage{Type: "\x1b[31mLong", Data: strings.Repeat("x", 500)}, messagedb.AnyVersion)
	require.NoError(t, err)
	requireNarrow(t, m.runWith(streams{width: 80}, "tail", "thing-3").stdout)
	r = m.run("tail", "none-1")
	require.Equal(t, exitOK, r.code)
	require.Empty(t, r.stdout)
	require.Contains(t, r.stderr, "no such messages")
}

// outputLines collects the output of the command, and calls a function with all of it at each write.
type outputLines struct {
	strings.Builder
	printed func(all string)
}

func (l *outputLines) Write(p []byte) (int, error) {
	n, err := l.Builder.Write(p)
	l.printed(l.String())
	return n, err
}

// followerURL returns the address of the database for a command whose connections awaitFollower finds.
func (m *messageStore) followerURL(t *testing.T, name string) string {
	t.Helper()
	address, err := url.Parse(m.DatabaseURL)
	require.NoError(t, err)
	values := address.Query()
	values.Set("application_name", name)
	address.RawQuery = values.Encode()
	return address.String()
}

// awaitFollower waits until the command has begun to follow a category. What it shows before that is read by another statement.
func (m *messageStore) awaitFollower(ctx context.Context, name string) {
	for follows := false; !follows && ctx.Err() == nil; time.Sleep(10 * time.Millisecond) {
		_ = m.Pool.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = $1 AND query LIKE '%get_category_messages%')", name).Scan(&follows)
	}
}

func TestMessagesTailFollows(t *testing.T) {
	t.Parallel()
	m := newMailbox(t)
	m.write("thing-1", 1, 5)
	for _, c := range []struct {
		args        []string
		first, next int
	}{
		{[]string{"thing", "--limit", "2"}, 2, 3},
		{[]string{"thing-1", "--limit", "2"}, 2, 3},
		{[]string{"thing-1", "--from", "3"}, 5, 3},
		{[]string{"thing", "--from", "0"}, 11, 3},
		{[]string{"other"}, 0, 0},
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		wrote := c.first == 0
		out := &outputLines{}
		out.printed = func(all string) {
			switch n := strings.Count(all, "\n"); {
			case n >= c.first && !wrote:
				wrote = true
				m.write("thing-1", 1, c.next)
			case n >= c.first+c.next && wrote:
				cancel(errInterrupted)
			}
		}
		name := messagedb.NewID()
		if c.first == 0 {
			go func() {
				m.awaitFollower(ctx, name)
				cancel(errInterrupted)
			}()
		}
		code := run(ctx, append([]string{"messages", "tail", "--follow", "-o", "json", "--schema", m.schema, "--database-url", m.followerURL(t, name)}, c.args...),
			streams{in: strings.NewReader(""), out: out, err: &outputLines{printed: func(string) {}}})
		require.Equal(t, exitOK, code, c.args)
		last := int64(-1)
		for line := range strings.Lines(out.String()) {
			var one messageJSON
			require.NoError(t, json.Unmarshal([]byte(line), &one), line)
			require.Greater(t, one.GlobalPosition, last)
			last = one.GlobalPosition
		}
		require.Equal(t, c.first+c.next, strings.Count(out.String(), "\n"), c.args)
	}
}

func TestMessagesStreams(t *testing.T) {
	t.Parallel()
	m := newMailbox(t)
	for n := range 5 {
		m.write(messagedb.StreamName(fmt.Sprintf("thing-%d", n)), 1, n+1)
	}
	first := decode[streamsJSON](t, m.run("streams", "thing", "--limit", "3", "-o", "json"))
	require.Len(t, first.Streams, 3)
	require.Equal(t, "thing-2", first.Streams[2].Stream)
	require.EqualValues(t, 2, first.Streams[2].Version)
	require.EqualValues(t, 3, first.Streams[2].Messages)
	require.NotNil(t, first.NextAfter)
	second := decode[streamsJSON](t, m.run("streams", "thing", "--limit", "3", "--after", fmt.Sprint(*first.NextAfter), "-o", "json"))
	require.Len(t, second.Streams, 2)
	require.Nil(t, second.NextAfter)
	require.Nil(t, decode[streamsJSON](t, m.run("streams", "thing", "--limit", "5", "-o", "json")).NextAfter, "a full page may be the last")
	r := m.runWith(streams{width: 80}, "streams", "thing", "--limit", "2")
	require.Equal(t, exitOK, r.code)
	require.Contains(t, r.stdout, "STREAM   VERSION  MESSAGES  LAST\nthing-0  0        1         ")
	require.Contains(t, r.stderr, "There are more: --after ")
	requireNarrow(t, r.stdout)
	require.Contains(t, m.run("streams", "none").stderr, "There are no streams")
}

func TestMessagesLag(t *testing.T) {
	t.Parallel()
	m := newMailbox(t)
	require.Contains(t, m.run("lag").stderr, "No consumer has saved a position")
	m.write("thing-1", 1, 10)
	require.NoError(t, messagedb.MigrateProjections(t.Context(), m.Pool, m.schema))
	consumer, err := m.client.NewConsumer(messagedb.ConsumerConfig{Category: "thing", Identifier: "x", Group: &messagedb.Group{Member: 0, Size: 1}, Handler: func(context.Context, *messagedb.Message) error { return nil }})
	require.NoError(t, err)
	projector, err := m.client.NewProjector(messagedb.ProjectorConfig{Category: "thing", Name: "things", Schema: m.schema, Handler: func(context.Context, pgx.Tx, *messagedb.Message) error { return nil }})
	require.NoError(t, err)
	for _, reader := range []struct {
		run, stop func(context.Context) error
		position  func() int64
	}{
		{consumer.Run, consumer.Stop, func() int64 { return consumer.Stats().Handled }}, {projector.Run, projector.Stop, func() int64 { return projector.Stats().Handled }},
	} {
		ended := make(chan error, 1)
		go func() { ended <- reader.run(context.WithoutCancel(t.Context())) }()
		require.Eventually(t, func() bool { return reader.position() == 10 }, testTimeout, time.Millisecond)
		require.NoError(t, reader.stop(t.Context()))
		require.NoError(t, <-ended)
	}
	m.write("thing-1", 11, 13)
	_, err = m.client.WriteMessage(t.Context(), "lost:position-1", messagedb.ProposedMessage{Type: "Recorded", Data: map[string]int{"position": 1e6}}, messagedb.AnyVersion)
	require.NoError(t, err)

	out := decode[lagJSON](t, m.run("lag", "--projection-schema", m.schema, "-o", "json"))
	require.Len(t, out.Consumers, 2)
	require.Equal(t, "lost", out.Consumers[0].Category)
	require.True(t, out.Consumers[0].Rewound)
	one := out.Consumers[1]
	require.Equal(t, "thing:position-x+0+1", one.PositionStream)
	require.Equal(t, "x", one.Identifier)
	require.Zero(t, *one.Member)
	require.Equal(t, 1, *one.Size)
	require.EqualValues(t, 3, one.Messages)
	require.False(t, one.Rewound)
	require.Len(t, out.Projections, 1)
	require.Equal(t, "live", out.Projections[0].State)
	require.EqualValues(t, 3, out.Projections[0].Messages)
	require.Empty(t, decode[lagJSON](t, m.run("lag", "none", "--projection-schema", m.schema, "-o", "json")).Projections)
	r := m.runWith(streams{width: 80}, "lag", "thing", "--projection-schema", m.schema)
	require.Equal(t, exitOK, r.code, r.stderr)
	requireNarrow(t, r.stdout)
	require.Contains(t, r.stdout, "thing:position-x+0+1  consumer")
	require.Contains(t, r.stdout, "things 1              live")
	require.Contains(t, m.run("lag", "lost").stdout, "REWOUND")
}

func TestMessagesMigrateProjections(t *testing.T) {
	t.Parallel()
	m := newMailbox(t)
	migrate := func(args ...string) result {
		t.Helper()
		return inProcess(t.Context(), streams{}, append([]string{"messages", "migrate-projections", "--database-url", m.DatabaseURL}, args...)...)
	}
	for range 2 {
		r := migrate("--projection-schema", m.schema)
		require.Equal(t, exitOK, r.code, r.stderr)
		require.Equal(t, "schema "+m.schema+" has a table of projections\n", r.stdout)
	}
	require.Equal(t, m.schema, decode[map[string]string](t, migrate("--projection-schema", m.schema, "-o", "json"))["schema"])
	projector, err := m.client.NewProjector(messagedb.ProjectorConfig{Category: "thing", Name: "things", Schema: m.schema, Handler: func(context.Context, pgx.Tx, *messagedb.Message) error { return nil }})
	require.NoError(t, err)
	m.write("thing-1", 1, 1)
	ended := make(chan error, 1)
	go func() { ended <- projector.Run(context.WithoutCancel(t.Context())) }()
	require.Eventually(t, func() bool { return projector.Stats().Handled == 1 }, testTimeout, time.Millisecond)
	require.NoError(t, projector.Stop(t.Context()))
	require.NoError(t, <-ended)
	require.Len(t, decode[lagJSON](t, m.run("lag", "--projection-schema", m.schema, "-o", "json")).Projections, 1)

	r := migrate("--projection-schema", m.schema+"_not")
	require.Equal(t, exitFailure, r.code)
	require.Contains(t, r.stderr, m.schema+"_not")
	r = migrate("--schema", m.schema)
	require.Equal(t, exitUsage, r.code)
	require.Contains(t, r.stderr, "--projection-schema")
}

// A reader is not behind a store that has lost its newest messages, even if another message took the position of the last one.
func TestMessagesLagOfAStoreThatLostMessages(t *testing.T) {
	t.Parallel()
	m := newMailbox(t)
	m.write("thing-1", 1, 5)
	require.NoError(t, messagedb.MigrateProjections(t.Context(), m.Pool, m.schema))
	last, err := m.client.LastMessage(t.Context(), "thing-1", "")
	require.NoError(t, err)
	_, err = m.client.WriteMessage(t.Context(), "thing:position-x", messagedb.ProposedMessage{
		Type: "Recorded", Data: map[string]int64{"position": last.GlobalPosition}, Metadata: map[string]string{"message": last.ID},
	}, messagedb.AnyVersion)
	require.NoError(t, err)
	_, err = m.Pool.Exec(t.Context(), "INSERT INTO "+m.schema+`.messagedb_projection (name, version, category, state, position, message_id)
		VALUES ('things', 1, 'thing', 'live', $1, $2)`, last.GlobalPosition, last.ID)
	require.NoError(t, err)
	rewound := func() (consumer, projection bool) {
		t.Helper()
		out := decode[lagJSON](t, m.run("lag", "--projection-schema", m.schema, "-o", "json"))
		require.Len(t, out.Consumers, 1)
		require.Len(t, out.Projections, 1)
		return out.Consumers[0].Rewound, out.Projections[0].Rewound
	}
	exec := func(sql string, args ...any) {
		t.Helper()
		_, err := m.Pool.Exec(t.Context(), fmt.Sprintf(sql, m.schema), args...)
		require.NoError(t, err)
	}
	exec("DELETE FROM %s.messages WHERE stream_name = 'thing-1'")
	exec("UPDATE %s.messages SET global_position = 1 WHERE stream_name = 'thing:position-x'") // so that no message is at or after the position
	consumer, projection := rewound()
	require.False(t, consumer, "the newest messages were deleted")
	require.False(t, projection)
	exec("INSERT INTO %s.messages (global_position, position, stream_name, type) VALUES ($1, 0, 'other-1', 'T')", last.GlobalPosition)
	consumer, projection = rewound()
	require.True(t, consumer, "another message has the position")
	require.True(t, projection)
	require.Contains(t, m.run("lag", "--projection-schema", m.schema).stdout, "REWOUND")
}

func TestMessagesUsedWrongly(t *testing.T) {
	t.Parallel()
	m := newMailbox(t)
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{}, exitUsage, "tail, streams, lag or migrate-projections"},
		{[]string{"tail"}, exitUsage, "accepts 1 arg"},
		{[]string{"tail", "a-1", "--limit", "0"}, exitUsage, "--limit 0: must be between 1 and 1000"},
		{[]string{"tail", "a-1", "--from", "-1"}, exitUsage, "--from -1: must not be negative"},
		{[]string{"tail", "a-1", "--from", "1", "--limit", "2", "-f"}, exitUsage, "--limit cannot be used with both --from and --follow"},
		{[]string{"tail", "a-1", "--correlation", "x"}, exitUsage, "is for categories"},
		{[]string{"tail", "a", "--correlation", "x-1"}, exitUsage, `Correlation "x-1"`},
		{[]string{"tail", ""}, exitUsage, "must not be empty"},
		{[]string{"streams", "a-1"}, exitUsage, `Category "a-1"`},
		{[]string{"streams", "a", "--limit", "1001"}, exitUsage, "--limit 1001"},
		{[]string{"streams", "a", "--after", "-1"}, exitUsage, "--after -1"},
		{[]string{"lag", "a-1"}, exitUsage, `Category "a-1"`},
	} {
		r := m.run(c.args...)
		require.Equal(t, c.code, r.code, "%v: %s", c.args, r.stderr)
		require.Contains(t, r.stderr, c.says)
		require.Empty(t, r.stdout)
	}
	for _, what := range [][]string{{"tail", "a-1"}, {"tail", "a"}, {"tail", "a", "-f"}, {"streams", "a"}, {"lag"}} {
		r := inProcess(t.Context(), streams{}, append([]string{"messages", "--schema", m.schema + "_not", "--database-url", m.DatabaseURL}, what...)...)
		require.Equal(t, exitUnreachable, r.code, "%v: %s", what, r.stderr)
		require.Contains(t, r.stderr, "call messagedb.Migrate")
	}
}
