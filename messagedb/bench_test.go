package messagedb_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/messagedb"
)

// Each benchmark lets the client and the bare SQL call take turns on one server and gives the client's rate as a share of
// the bare one's: go test ./messagedb -run '^$' -bench . -benchtime 2000x

// openBarePool is a pool as Message DB's documentation wants it: with the schema on the search path.
func openBarePool(b *testing.B, s *store) *pgxpool.Pool {
	b.Helper()
	config := s.config.Copy()
	config.ConnConfig.RuntimeParams["search_path"] = "message_store, public"
	pool, err := pgxpool.NewWithConfig(b.Context(), config)
	require.NoError(b, err)
	b.Cleanup(pool.Close)
	return pool
}

// reportShare runs both sides in turns of so many calls and reports their rates: the median of the turns, because a machine does
// other things too.
func reportShare(b *testing.B, client, bare func(n int)) {
	b.Helper()
	const turn = 50
	client(turn)
	bare(turn)
	var ratios []float64
	var took [2]time.Duration
	b.ResetTimer()
	for done := 0; done < b.N; done += turn {
		var d [2]time.Duration
		for i := range 2 {
			side := (done/turn + i) % 2
			start := time.Now()
			[]func(int){client, bare}[side](turn)
			d[side] = time.Since(start)
			took[side] += d[side]
		}
		ratios = append(ratios, d[1].Seconds()/d[0].Seconds())
	}
	b.StopTimer()
	slices.Sort(ratios)
	b.ReportMetric(ratios[len(ratios)/2], "share")
	calls := float64(len(ratios) * turn)
	b.ReportMetric(calls/took[0].Seconds(), "calls/s")
	b.ReportMetric(calls/took[1].Seconds(), "bare/s")
	b.ReportMetric(0, "ns/op")
}

func BenchmarkWrite(b *testing.B) {
	s := newStore(b)
	pool, ctx := openBarePool(b, s), b.Context()
	data := `{"owner": "ann", "amount": 17, "currency": "EUR"}`
	n := 0
	stream := func() string { n++; return fmt.Sprintf("bench-%d", n%100) }
	reportShare(b, func(count int) {
		for range count {
			_, err := s.client.WriteMessage(ctx, messagedb.StreamName(stream()), messagedb.ProposedMessage{Type: "T", Data: map[string]any{"owner": "ann", "amount": 17, "currency": "EUR"}}, messagedb.AnyVersion)
			require.NoError(b, err)
		}
	}, func(count int) {
		for range count {
			var position int64
			require.NoError(b, pool.QueryRow(ctx, "SELECT write_message($1, $2, $3, $4, $5, $6)", messagedb.NewID(), stream(), "T", data, nil, nil).Scan(&position))
		}
	})
}

func BenchmarkReadCategory(b *testing.B) {
	for _, batch := range []int{1, 100, 1000} {
		b.Run(fmt.Sprint(batch), func(b *testing.B) {
			s := newStore(b)
			pool, ctx := openBarePool(b, s), b.Context()
			for n := range 20 {
				ms := make([]messagedb.ProposedMessage, 100)
				for i := range ms {
					ms[i] = messagedb.ProposedMessage{Type: "T", Data: map[string]any{"owner": "ann", "amount": i}}
				}
				_, err := s.client.Write(ctx, messagedb.StreamName(fmt.Sprintf("bench-%d", n)), ms, messagedb.AnyVersion)
				require.NoError(b, err)
			}
			reportShare(b, func(count int) {
				for range count {
					got, err := s.client.ReadCategory(ctx, "bench", messagedb.CategoryOptions{BatchSize: batch})
					require.NoError(b, err)
					require.Len(b, got, batch)
				}
			}, func(count int) {
				for range count {
					rows, err := pool.Query(ctx, "SELECT id, stream_name, type, position, global_position, data, metadata, time FROM get_category_messages($1, $2, $3)", "bench", 0, batch)
					require.NoError(b, err)
					var all []*messagedb.Message
					for rows.Next() {
						m := &messagedb.Message{}
						require.NoError(b, rows.Scan(&m.ID, (*string)(&m.Stream), &m.Type, &m.Position, &m.GlobalPosition, (*[]byte)(&m.Data), (*[]byte)(&m.Metadata), &m.Time))
						all = append(all, m)
					}
					require.NoError(b, rows.Err())
					require.Len(b, all, batch)
				}
			})
		})
	}
}

// From the write to the handler, at the default polling interval: with and without notifications.
func BenchmarkDelivery(b *testing.B) {
	for _, notify := range []bool{false, true} {
		b.Run(fmt.Sprintf("notify=%v", notify), func(b *testing.B) {
			s := newStore(b)
			client := s.client
			if notify {
				var err error
				client, err = messagedb.NewClient(s.pool, &messagedb.Config{Notify: true, Logger: quiet})
				require.NoError(b, err)
			}
			handled := make(chan time.Time)
			sub, err := client.SubscribeToCategory(b.Context(), "bench", func(context.Context, *messagedb.Message) error { handled <- time.Now(); return nil },
				messagedb.CategoryOptions{}, messagedb.SubscriptionOptions{Notify: notify})
			require.NoError(b, err)
			var took []time.Duration
			write := func() time.Duration {
				_, err := client.WriteMessage(b.Context(), "bench-1", messagedb.ProposedMessage{Type: "T", Data: 1}, messagedb.AnyVersion)
				require.NoError(b, err)
				written := time.Now()
				return (<-handled).Sub(written)
			}
			time.Sleep(300 * time.Millisecond) // it listens by then
			write()
			for range b.N {
				time.Sleep(3 * time.Millisecond)
				took = append(took, write())
			}
			sub.Stop()
			require.NoError(b, sub.Err())
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-median")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "ms-p99")
			b.ReportMetric(0, "ns/op")
		})
	}
}
