package messagedb_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/internal/hostile"
	"github.com/chariot-giving/delta/internal/soak"
	"github.com/chariot-giving/delta/messagedb"
)

// fillCategory writes messages of type T0 and T1 in turn to streams of the category, and returns them as they are read.
func fillCategory(t *testing.T, s *store, category string, streams, each int) []*messagedb.Message {
	t.Helper()
	for n := range streams {
		var ms []messagedb.ProposedMessage
		for i := range each {
			ms = append(ms, messagedb.ProposedMessage{
				Type: fmt.Sprintf("T%d", i%2), Data: i,
				Metadata: map[string]string{messagedb.CorrelationKey: fmt.Sprintf("from%d-1", n%2)},
			})
		}
		_, err := s.client.Write(t.Context(), messagedb.StreamName(fmt.Sprintf("%s-%d", category, n)), ms, messagedb.AnyVersion)
		require.NoError(t, err)
	}
	all, err := s.client.ReadCategory(t.Context(), category, messagedb.CategoryOptions{BatchSize: messagedb.Unlimited})
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(all), streams*each)
	return all
}

func withConditions(c *pgxpool.Config) {
	c.ConnConfig.RuntimeParams["message_store.sql_condition"] = "on"
}

func TestEveryOptionOfAStream(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	for kind := range kinds {
		s := newStoreOf(t, kind, withConditions)
		all := fillCategory(t, s, "a", 1, 1100)
		for _, c := range []struct {
			options messagedb.StreamOptions
			want    []*messagedb.Message
		}{
			{messagedb.StreamOptions{}, all[:1000]},
			{messagedb.StreamOptions{BatchSize: messagedb.Unlimited}, all},
			{messagedb.StreamOptions{From: 1050}, all[1050:]},
			{messagedb.StreamOptions{From: 10, BatchSize: 5}, all[10:15]},
			{messagedb.StreamOptions{From: 1100}, nil},
			{messagedb.StreamOptions{Condition: "position = 7"}, all[7:8]},
			{messagedb.StreamOptions{Condition: "false"}, nil},
		} {
			got, err := s.client.ReadStream(t.Context(), "a-0", c.options)
			require.NoError(t, err)
			require.Equal(t, c.want, got, "%+v", c.options)
		}
		none, err := s.client.ReadStream(t.Context(), "none-1", messagedb.StreamOptions{})
		require.NoError(t, err)
		require.Empty(t, none)
	}
}

func TestEveryOptionOfACategory(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	for kind := range kinds {
		s := newStoreOf(t, kind, withConditions)
		all := fillCategory(t, s, "a", 11, 100)
		fillCategory(t, s, "b", 1, 3)
		filter := func(keep func(m *messagedb.Message) bool) (kept []*messagedb.Message) {
			for _, m := range all {
				if keep(m) {
					kept = append(kept, m)
				}
			}
			return kept
		}
		for _, c := range []struct {
			options messagedb.CategoryOptions
			want    []*messagedb.Message
		}{
			{messagedb.CategoryOptions{}, all[:1000]},
			{messagedb.CategoryOptions{BatchSize: messagedb.Unlimited}, all},
			{messagedb.CategoryOptions{From: all[500].GlobalPosition, BatchSize: 3}, all[500:503]},
			{messagedb.CategoryOptions{From: 1 << 40}, nil},
			{messagedb.CategoryOptions{Correlation: "from1"}, filter(func(m *messagedb.Message) bool { return strings.Contains(string(m.Metadata), "from1") })},
			{messagedb.CategoryOptions{Correlation: "from9"}, nil},
			{messagedb.CategoryOptions{Condition: "type = 'T1'"}, filter(func(m *messagedb.Message) bool { return m.Type == "T1" })},
			{messagedb.CategoryOptions{Condition: "type = 'T1'", Correlation: "from0", BatchSize: 2, Group: &messagedb.Group{Size: 1}}, []*messagedb.Message{all[1], all[3]}},
			{messagedb.CategoryOptions{Condition: "type = 'T1'", Correlation: "from0", BatchSize: 2, Group: &messagedb.Group{}}, []*messagedb.Message{all[1], all[3]}},
		} {
			got, err := s.client.ReadCategory(t.Context(), "a", c.options)
			require.NoError(t, err)
			require.Equal(t, c.want, got, "%+v", c.options)
		}
		for _, size := range []int{1, 2, 3, 7, messagedb.MaxGroupSize} {
			total := 0
			for member := range min(size, 8) {
				group := &messagedb.Group{Member: member, Size: size}
				got, err := s.client.ReadCategory(t.Context(), "a", messagedb.CategoryOptions{BatchSize: messagedb.Unlimited, Group: group})
				require.NoError(t, err)
				require.Equal(t, filter(func(m *messagedb.Message) bool { of, ok := m.Stream.Member(size); return ok && of == member }), got, "%+v", group)
				total += len(got)
			}
			if size < 8 {
				require.Len(t, all, total, "the members have all of it")
			}
		}
	}
}

func TestLastMessages(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *store) {
		all := fillCategory(t, s, "a", 1, 4)
		for kind, want := range map[string]*messagedb.Message{"": all[3], "T0": all[2], "T1": all[3]} {
			got, err := s.client.LastMessage(t.Context(), "a-0", kind)
			require.NoError(t, err)
			require.Equal(t, want, got)
		}
		_, err := s.client.LastMessage(t.Context(), "a-0", "T2")
		require.ErrorIs(t, err, messagedb.ErrNoMessage)
		_, err = s.client.LastMessage(t.Context(), "a-1", "")
		require.ErrorIs(t, err, messagedb.ErrNoMessage)
	})
}

func TestIteratorsReadEverythingInBatches(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	onBoth(t, func(t *testing.T, s *store) {
		all := fillCategory(t, s, "a", 3, 100)
		for _, batch := range []int{0, 1, 7, 100, 150, 300, 301} {
			var got []*messagedb.Message
			for m, err := range s.client.CategoryMessages(t.Context(), "a", messagedb.CategoryOptions{BatchSize: batch}) {
				require.NoError(t, err)
				// The body may use the pool, even one of a single connection: the iterator holds none.
				require.Zero(t, s.pool.Stat().AcquiredConns())
				got = append(got, m)
			}
			require.Equal(t, all, got, "batches of %d", batch)
			got = nil
			for m, err := range s.client.StreamMessages(t.Context(), "a-1", messagedb.StreamOptions{BatchSize: batch, From: 20}) {
				require.NoError(t, err)
				got = append(got, m)
			}
			require.Equal(t, all[120:200], got, "batches of %d", batch)
		}
		count := 0
		for _, err := range s.client.CategoryMessages(t.Context(), "a", messagedb.CategoryOptions{BatchSize: 10}) {
			require.NoError(t, err)
			if count++; count == 15 {
				break
			}
		}
		require.Equal(t, 15, count)

		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var last error
		for m, err := range s.client.StreamMessages(ctx, "a-1", messagedb.StreamOptions{BatchSize: 10}) {
			if last = err; err != nil {
				require.Nil(t, m)
				continue
			}
			if m.Position == 14 {
				cancel()
			}
		}
		require.ErrorIs(t, last, context.Canceled, "an error is the last element")
	})
}

func TestAConditionThatIsOffIsTyped(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *store) {
		_, err := s.client.ReadStream(t.Context(), "a-1", messagedb.StreamOptions{Condition: "true"})
		disabled := new(messagedb.ConditionDisabledError)
		require.ErrorAs(t, err, &disabled)
		require.Equal(t, "true", disabled.Condition)
		_, err = s.client.ReadCategory(t.Context(), "a", messagedb.CategoryOptions{Condition: "position > 1"})
		require.ErrorAs(t, err, &disabled)
		require.Equal(t, "position > 1", disabled.Condition)
	})
}

func TestSummaries(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *store) {
		fillCategory(t, s, "a", 1, 3)
		fillCategory(t, s, "b", 1, 1)
		for view, want := range map[messagedb.View][]messagedb.SummaryRow{
			messagedb.StreamSummary:       {{Stream: "a-0", Messages: 3, Percent: 75}, {Stream: "b-0", Messages: 1, Percent: 25}},
			messagedb.TypeSummary:         {{Type: "T0", Messages: 3, Percent: 75}, {Type: "T1", Messages: 1, Percent: 25}},
			messagedb.StreamTypeSummary:   {{Stream: "a-0", Type: "T0", Messages: 2, Percent: 50}, {Stream: "a-0", Type: "T1", Messages: 1, Percent: 25}, {Stream: "b-0", Type: "T0", Messages: 1, Percent: 25}},
			messagedb.TypeStreamSummary:   {{Stream: "a-0", Type: "T0", Messages: 2, Percent: 50}, {Stream: "b-0", Type: "T0", Messages: 1, Percent: 25}, {Stream: "a-0", Type: "T1", Messages: 1, Percent: 25}},
			messagedb.CategoryTypeSummary: {{Category: "a", Type: "T0", Messages: 2, Percent: 50}, {Category: "a", Type: "T1", Messages: 1, Percent: 25}, {Category: "b", Type: "T0", Messages: 1, Percent: 25}},
			messagedb.TypeCategorySummary: {{Category: "a", Type: "T0", Messages: 2, Percent: 50}, {Category: "b", Type: "T0", Messages: 1, Percent: 25}, {Category: "a", Type: "T1", Messages: 1, Percent: 25}},
		} {
			got, err := s.client.Summary(t.Context(), view)
			require.NoError(t, err)
			require.Equal(t, want, got, view)
		}
	})
}

// Each connection prepares a fixed number of statements, however many calls are made.
func TestNoStatementIsLeftBehind(t *testing.T) {
	t.Parallel()
	s := newStore(t, func(c *pgxpool.Config) { c.MaxConns = 1 })
	prepared := func() (n int) {
		require.NoError(t, s.pool.QueryRow(t.Context(), "SELECT count(*) FROM pg_prepared_statements").Scan(&n))
		return n
	}
	useEverything(t, s.client)
	first := prepared()
	for range 20 {
		useEverything(t, s.client)
	}
	require.Equal(t, first, prepared())
}

// Whether the planner knows the arguments or not, no function is called before the path is set.
func TestEveryWayToExecuteWorks(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	for _, mode := range []pgx.QueryExecMode{
		pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol,
	} {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			for kind := range kinds {
				s := newStoreOf(t, kind, func(c *pgxpool.Config) {
					c.MaxConns = 1
					c.ConnConfig.DefaultQueryExecMode = mode
					c.ConnConfig.RuntimeParams["search_path"] = "pg_catalog"
				})
				tx, err := s.pool.Begin(t.Context())
				require.NoError(t, err)
				use := func(c *messagedb.Client) {
					for range 7 { // Postgres may plan without the arguments from the sixth time on
						useEverything(t, c)
						_, err := c.Write(t.Context(), "a-1", newMessages(1, 2), messagedb.NoStreamVersion, messagedb.Idempotent())
						require.NoError(t, err)
					}
				}
				use(s.client.InTx(tx))
				require.Equal(t, "pg_catalog", searchPath(t, tx))
				require.NoError(t, tx.Commit(t.Context()))
				use(s.client)
				require.Equal(t, "pg_catalog", searchPath(t, s.pool))
			}
		})
	}
}

// Message DB's own functions work in a schema of another name, if it is on the search path. The client puts it there.
func TestASchemaOfAnyName(t *testing.T) {
	hostile.NeedsDirect(t, "migrations refuse it")
	t.Parallel()
	const name = `Weird "schema"' \name`
	official := newStore(t)
	_, err := official.pool.Exec(t.Context(), "ALTER SCHEMA message_store RENAME TO "+pgx.Identifier{name}.Sanitize())
	require.NoError(t, err)
	useEverything(t, official.clientWith(t, messagedb.Config{Schema: name}))

	_, err = official.client.Version(t.Context())
	missing := new(messagedb.NotInstalledError)
	require.ErrorAs(t, err, &missing)
	require.Equal(t, "message_store", missing.Schema)
	require.False(t, messagedb.IsTransient(err))
	_, err = official.client.ReadCategory(t.Context(), "a", messagedb.CategoryOptions{})
	require.ErrorAs(t, err, &missing)

	const ours = `Ours "x"' y`
	require.NoError(t, messagedb.Migrate(t.Context(), official.pool, ours))
	useEverything(t, official.clientWith(t, messagedb.Config{Schema: ours}))
}
