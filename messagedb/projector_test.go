package messagedb_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/puddle/v2"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/internal/hostile"
	"github.com/chariot-giving/delta/internal/soak"
	"github.com/chariot-giving/delta/messagedb"
)

// newTallied is a store with a projection into public.tally, which has a row for each stream with the number of its messages and the sum of their data, so that a
// message that takes effect twice or not at all is noticed.
func newTallied(t *testing.T, tables ...string) *store {
	t.Helper()
	s := newStore(t)
	require.NoError(t, messagedb.MigrateProjections(t.Context(), s.pool, ""))
	for _, table := range append(tables, "tally") {
		_, err := s.pool.Exec(t.Context(), "CREATE TABLE public."+table+" (stream text PRIMARY KEY, messages bigint, sum bigint)")
		require.NoError(t, err)
	}
	return s
}

// openBeside returns the same store with a second pool, so that its connections survive when those of the first pool are ended.
func openBeside(t *testing.T, s *store) *store {
	t.Helper()
	pool, err := pgxpool.NewWithConfig(t.Context(), s.config.Copy())
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	client, err := messagedb.NewClient(pool, &messagedb.Config{Logger: quiet})
	require.NoError(t, err)
	return &store{pool, client, s.config}
}

func tallyInto(table string) messagedb.TxHandler {
	return func(ctx context.Context, tx pgx.Tx, m *messagedb.Message) error {
		amount, err := messagedb.Decode[int](m)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, "INSERT INTO public."+table+` AS t VALUES ($1, 1, $2)
			ON CONFLICT (stream) DO UPDATE SET messages = t.messages + 1, sum = t.sum + $2`, m.Stream.String(), amount)
		return err
	}
}

func newTestProjector(t *testing.T, s *store, config messagedb.ProjectorConfig) *messagedb.Projector {
	t.Helper()
	if config.Name == "" {
		config.Name = "tally"
	}
	config.Category, config.Polling = "a", messagedb.IdlePolling(5*time.Millisecond)
	p, err := s.client.NewProjector(config)
	require.NoError(t, err)
	return p
}

// runProjector runs a projector; the returned function waits for its end and returns the error.
func runProjector(t *testing.T, p *messagedb.Projector) <-chan error {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- p.Run(context.WithoutCancel(t.Context())) }()
	t.Cleanup(func() { _ = p.Stop(context.Background()) })
	return ended
}

// requireTally waits until a projection has all messages, and requires that each took effect once.
func requireTally(t *testing.T, s *store, table string, all []*messagedb.Message) {
	t.Helper()
	want := map[string][2]int64{}
	for _, m := range all {
		amount, err := messagedb.Decode[int64](m)
		require.NoError(t, err)
		sum := want[m.Stream.String()]
		want[m.Stream.String()] = [2]int64{sum[0] + 1, sum[1] + amount}
	}
	read := func() (messages int64, tally map[string][2]int64) {
		rows, err := s.pool.Query(t.Context(), "SELECT stream, messages, sum FROM public."+table)
		require.NoError(t, err)
		tally = map[string][2]int64{}
		var stream string
		var row [2]int64
		_, err = pgx.ForEachRow(rows, []any{&stream, &row[0], &row[1]}, func() error {
			tally[stream] = row
			messages += row[0]
			return nil
		})
		require.NoError(t, err)
		return messages, tally
	}
	require.Eventually(t, func() bool { messages, _ := read(); return messages >= int64(len(all)) }, soon, 10*time.Millisecond, "%d messages", len(all))
	_, tally := read()
	require.Equal(t, want, tally)
}

func readProjection(t *testing.T, s *store, version int) (found messagedb.Projection) {
	t.Helper()
	all, err := messagedb.Projections(t.Context(), s.pool, "")
	require.NoError(t, err)
	for _, p := range all {
		if p.Version == version {
			found = p
		}
	}
	return found
}

func TestAProjectionHasEachMessageOnce(t *testing.T) {
	t.Parallel()
	s := newTallied(t)
	all := fillCategory(t, s, "a", 3, 20)
	p := newTestProjector(t, s, messagedb.ProjectorConfig{Handler: tallyInto("tally")})
	ended := runProjector(t, p)
	requireTally(t, s, "tally", all)
	require.NoError(t, p.Stop(t.Context()))
	require.NoError(t, take(t, ended))
	row := readProjection(t, s, 1)
	require.Equal(t, messagedb.ProjectionLive, row.State, "the first one is live at once")
	require.Equal(t, all[59].GlobalPosition, row.Position)
	require.Equal(t, "a", row.Category)
	require.EqualValues(t, 60, p.Stats().Handled)
	require.True(t, p.Stats().Live)
	lag, err := newTestProjector(t, s, messagedb.ProjectorConfig{Handler: tallyInto("tally")}).Lag(t.Context())
	require.NoError(t, err)
	require.Zero(t, lag.Messages)

	// It goes on where it was, in another process, and handles by type, too.
	again := newTestProjector(t, s, messagedb.ProjectorConfig{})
	messagedb.Project(again, "T1", func(ctx context.Context, tx pgx.Tx, data int, m *messagedb.Message) error {
		require.Equal(t, fmt.Sprint(data), string(m.Data))
		return tallyInto("tally")(ctx, tx, m)
	})
	ended = runProjector(t, again)
	more := fillCategory(t, s, "a", 3, 3)[60:]
	require.Eventually(t, func() bool { s := again.Stats(); return s.Handled == 3 && s.Ignored == 6 }, soon, time.Millisecond)
	require.NoError(t, again.Stop(t.Context()))
	require.NoError(t, take(t, ended))
	for _, m := range more {
		if m.Type == "T1" {
			all = append(all, m)
		}
	}
	requireTally(t, s, "tally", all)
	require.Equal(t, more[8].GlobalPosition, readProjection(t, s, 1).Position, "what was passed over counts")
	last, err := s.client.StreamVersion(t.Context(), "a:position-tally+1")
	require.NoError(t, err)
	require.Equal(t, messagedb.NoStreamVersion, last, "the store keeps no position of it")
}

// The process dies, the connection is lost, and the commit's answer is lost: in each case after the handler has written.
func TestAProjectionHasEachMessageOnceThoughItsProjectorDies(t *testing.T) {
	hostile.NeedsDirect(t, "the number of a connection's process is made up")
	t.Parallel()
	s := newTallied(t)
	all := fillCategory(t, s, "a", 1, 30)
	kill := func(tx pgx.Tx) error {
		return runAsAdmin(t.Context(), fmt.Sprintf("SELECT pg_terminate_backend(%d, 10000)", tx.Conn().PgConn().PID()))
	}
	var p *messagedb.Projector
	deaths := map[int64]func(tx pgx.Tx) error{
		3: kill,
		7: func(pgx.Tx) error { p.Kill(); return nil },
		// The server commits, and the projector does not learn it.
		12: func(tx pgx.Tx) error {
			if _, err := tx.Exec(t.Context(), "COMMIT"); err != nil {
				return err
			}
			return kill(tx)
		},
		20: func(tx pgx.Tx) error { p.Kill(); return kill(tx) },
	}
	handle := func(ctx context.Context, tx pgx.Tx, m *messagedb.Message) error {
		if err := tallyInto("tally")(ctx, tx, m); err != nil {
			return err
		}
		if die := deaths[m.Position]; die != nil {
			delete(deaths, m.Position)
			return die(tx)
		}
		return nil
	}
	for readProjection(t, s, 1).Position < all[29].GlobalPosition {
		p = newTestProjector(t, s, messagedb.ProjectorConfig{Handler: handle})
		ended := runProjector(t, p)
		require.Eventually(t, func() bool { return len(ended) > 0 || p.Stats().Position >= all[29].GlobalPosition }, soon, time.Millisecond)
		require.NoError(t, p.Stop(t.Context()))
		require.NoError(t, take(t, ended))
	}
	require.Empty(t, deaths)
	requireTally(t, s, "tally", all)
}

// Several projectors of one name and version share the work: each message takes effect once, and in order.
func TestProjectorsOfOneNameShareTheWork(t *testing.T) {
	t.Parallel()
	s := newTallied(t)
	all := fillCategory(t, s, "a", 4, 100)
	_, err := s.pool.Exec(t.Context(), "CREATE TABLE public.seen (id bigserial, position bigint)")
	require.NoError(t, err)
	var first sync.Once
	handle := func(ctx context.Context, tx pgx.Tx, m *messagedb.Message) error {
		first.Do(func() { // goes on when another one waits for the same message, which that has not to handle then
			for began, n := time.Now(), 0; n == 0 && time.Since(began) < soon; time.Sleep(time.Millisecond) {
				_ = s.pool.QueryRow(ctx, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'").Scan(&n)
			}
		})
		if _, err := tx.Exec(ctx, "INSERT INTO public.seen (position) VALUES ($1)", m.GlobalPosition); err != nil {
			return err
		}
		return tallyInto("tally")(ctx, tx, m)
	}
	var ps []*messagedb.Projector
	var ends []<-chan error
	for range 3 {
		p := newTestProjector(t, s, messagedb.ProjectorConfig{Handler: handle})
		ps, ends = append(ps, p), append(ends, runProjector(t, p))
	}
	all = append(all, fillCategory(t, s, "a", 4, 50)[400:]...)
	requireTally(t, s, "tally", all)
	overtaken := int64(0)
	for i, p := range ps {
		require.NoError(t, p.Stop(t.Context()))
		require.NoError(t, take(t, ends[i]))
		overtaken += p.Stats().Overtaken
	}
	require.Positive(t, overtaken)
	rows, err := s.pool.Query(t.Context(), "SELECT position FROM public.seen ORDER BY id")
	require.NoError(t, err)
	order, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	require.NoError(t, err)
	require.Len(t, order, 600)
	for i, m := range all {
		require.Equal(t, m.GlobalPosition, order[i])
	}
}

// A projector that loses its connection in each attempt waits longer before each retry, although each loss makes the run begin again.
func TestAProjectorThatFailsForLongTriesLessOften(t *testing.T) {
	t.Parallel()
	s := newTallied(t)
	all := fillCategory(t, s, "a", 1, 2)
	var attempts []time.Time
	p := newTestProjector(t, s, messagedb.ProjectorConfig{Handler: func(ctx context.Context, tx pgx.Tx, m *messagedb.Message) error {
		if m.Position == 0 {
			return tallyInto("tally")(ctx, tx, m)
		}
		attempts = append(attempts, time.Now())
		if len(attempts) > 5 {
			return tallyInto("tally")(ctx, tx, m)
		}
		_, err := tx.Exec(ctx, "SELECT pg_terminate_backend(pg_backend_pid())")
		return err
	}})
	ended := runProjector(t, p)
	requireTally(t, s, "tally", all)
	require.NoError(t, p.Stop(t.Context()))
	require.NoError(t, take(t, ended))
	require.EqualValues(t, 5, p.Stats().Retried)
	// The delays are 100 ms, 200 ms, … 1.6 s, each less at most a half.
	require.GreaterOrEqual(t, attempts[5].Sub(attempts[4]), 800*time.Millisecond)
	require.GreaterOrEqual(t, attempts[4].Sub(attempts[3]), 400*time.Millisecond)
}

func TestAHandlerOfAProjectorThatFails(t *testing.T) {
	t.Parallel()
	s := newTallied(t)
	all := fillCategory(t, s, "a", 1, 10)
	boom := errors.New("boom")
	for name, c := range map[string]struct {
		fail func(ctx context.Context, tx pgx.Tx) error
		want string
	}{
		"error":        {func(context.Context, pgx.Tx) error { return boom }, "boom"},
		"panic":        {func(context.Context, pgx.Tx) error { panic("boom") }, "panic: boom"},
		"rolls back":   {func(ctx context.Context, tx pgx.Tx) error { return tx.Rollback(ctx) }, "was ended by what it is for"},
		"hides errors": {func(ctx context.Context, tx pgx.Tx) error { _, _ = tx.Exec(ctx, "SELECT 1/0"); return nil }, "its error was not returned"},
	} {
		p := newTestProjector(t, s, messagedb.ProjectorConfig{Name: name, Handler: func(ctx context.Context, tx pgx.Tx, m *messagedb.Message) error {
			if m.Position == 5 {
				return c.fail(ctx, tx)
			}
			return nil
		}})
		err := take(t, runProjector(t, p))
		failed := new(messagedb.HandlerError)
		require.ErrorAs(t, err, &failed, name)
		require.ErrorContains(t, err, c.want, name)
		require.Equal(t, all[5].ID, failed.Message.ID)
	}
	// The policy may skip the message, and then its writes are rolled back.
	tries := 0
	p := newTestProjector(t, s, messagedb.ProjectorConfig{
		ErrorPolicy: messagedb.ErrorPolicy{Retries: 2, Delay: time.Millisecond, Skip: true},
		Handler: func(ctx context.Context, tx pgx.Tx, m *messagedb.Message) error {
			if err := tallyInto("tally")(ctx, tx, m); err != nil || m.Position != 5 {
				return err
			}
			tries++
			return boom
		},
	})
	ended := runProjector(t, p)
	requireTally(t, s, "tally", append(append([]*messagedb.Message(nil), all[:5]...), all[6:]...))
	require.NoError(t, p.Stop(t.Context()))
	require.NoError(t, take(t, ended))
	require.Equal(t, 3, tries)
	skipped, err := s.client.LastMessage(t.Context(), "a:skipped-tally+1", messagedb.SkippedType)
	require.NoError(t, err)
	require.Equal(t, p.SkippedStream(), skipped.Stream)
	record, err := messagedb.Decode[messagedb.Skipped](skipped)
	require.NoError(t, err)
	require.Equal(t, all[5].ID, record.ID)
}

// A transaction that Postgres chose as a victim is repeated, and is no failure of the handler.
func TestATransactionOfAProjectorIsRepeated(t *testing.T) {
	t.Parallel()
	s := newTallied(t)
	all := fillCategory(t, s, "a", 1, 5)
	tries := 0
	p := newTestProjector(t, s, messagedb.ProjectorConfig{Handler: func(ctx context.Context, tx pgx.Tx, m *messagedb.Message) error {
		if err := tallyInto("tally")(ctx, tx, m); err != nil {
			return err
		}
		if tries++; m.Position == 2 && tries < 5 {
			_, err := tx.Exec(ctx, "DO $$ BEGIN RAISE EXCEPTION 'victim' USING ERRCODE = '40P01'; END $$")
			return err
		}
		return nil
	}})
	runProjector(t, p)
	requireTally(t, s, "tally", all)
	require.EqualValues(t, 2, p.Stats().Retried)
}

func TestWhatAProjectorCannotBe(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	handler := tallyInto("tally")
	for name, c := range map[string]struct {
		config messagedb.ProjectorConfig
		field  messagedb.Field
	}{
		"no name":       {messagedb.ProjectorConfig{Category: "a", Handler: handler}, messagedb.FieldName},
		"name with NUL": {messagedb.ProjectorConfig{Category: "a", Name: "\x00", Handler: handler}, messagedb.FieldName},
		"version":       {messagedb.ProjectorConfig{Category: "a", Name: "x", Version: -1, Handler: handler}, messagedb.FieldVersion},
		"category":      {messagedb.ProjectorConfig{Name: "x", Handler: handler}, messagedb.FieldCategory},
		"batch size":    {messagedb.ProjectorConfig{Category: "a", Name: "x", BatchSize: messagedb.Unlimited, Handler: handler}, messagedb.FieldBatchSize},
		"polling":       {messagedb.ProjectorConfig{Category: "a", Name: "x", Polling: func() messagedb.Polling { return nil }, Handler: handler}, messagedb.FieldPolling},
		"error policy":  {messagedb.ProjectorConfig{Category: "a", Name: "x", ErrorPolicy: messagedb.ErrorPolicy{Retries: -1}, Handler: handler}, messagedb.FieldErrorPolicy},
	} {
		_, err := s.client.NewProjector(c.config)
		bad := new(messagedb.InvalidError)
		require.ErrorAs(t, err, &bad, name)
		require.Equal(t, c.field, bad.Field, name)
	}
	for _, add := range []func(p *messagedb.Projector){
		func(*messagedb.Projector) {},
		func(p *messagedb.Projector) { messagedb.Project[int](p, "T", nil) },
		func(p *messagedb.Projector) {
			messagedb.Project(p, "", func(context.Context, pgx.Tx, int, *messagedb.Message) error { return nil })
		},
	} {
		p, err := s.client.NewProjector(messagedb.ProjectorConfig{Category: "a", Name: "x"})
		require.NoError(t, err)
		add(p)
		require.ErrorAs(t, p.Run(t.Context()), new(*messagedb.InvalidError))
	}
}

// Projectors that are killed at any moment, of two versions, while messages come and connections are cut.
func TestSoakProjections(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	projectors := newTallied(t, "tally2")
	s := openBeside(t, projectors)
	fillCategory(t, s, "a", 5, 20)
	over := make(chan struct{})
	ends := make(chan struct{}, 4)
	for i := range 4 {
		version, table := 1+i%2, []string{"tally", "tally2"}[i%2]
		go func() {
			defer func() { ends <- struct{}{} }()
			for n := 0; ; n++ {
				select {
				case <-over:
					return
				default:
				}
				p, err := projectors.client.NewProjector(messagedb.ProjectorConfig{
					Name: "tally", Category: "a", Version: version, BatchSize: 10, Polling: messagedb.IdlePolling(5 * time.Millisecond), Handler: tallyInto(table),
				})
				if err != nil {
					t.Error(err)
					return
				}
				life := time.Duration(20+n%7*30) * time.Millisecond * time.Duration(min(1+n/7, 10)) // on a busy machine, short ones come to nothing
				ctx, cancel := context.WithTimeout(context.Background(), life)
				if n%3 == 0 {
					go func() { <-ctx.Done(); p.Kill() }()
				}
				err = p.Run(ctx)
				cancel()
				if stopped := new(messagedb.ProjectionError); errors.As(err, &stopped) && version == 1 {
					return // the other one is live
				} else if err != nil && !messagedb.IsTransient(err) {
					t.Error(err)
					return
				}
			}
		}()
	}
	for n := range 20 {
		fillCategory(t, s, "a", 5, 4)
		if n%5 == 4 {
			// Those of projectors only, which have another pool than the test: it does not repeat its writes.
			require.NoError(t, runAsAdmin(t.Context(), "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE query LIKE '%messagedb_projection%' AND datname = '"+s.config.ConnConfig.Database+"'"))
		}
	}
	all, err := s.client.ReadCategory(t.Context(), "a", messagedb.CategoryOptions{BatchSize: messagedb.Unlimited})
	require.NoError(t, err)
	require.Len(t, all, 500)
	requireTally(t, s, "tally2", all)
	close(over)
	for range 4 {
		<-ends
	}
	// Those that were killed may all have been too short for the switch. One that is not makes it, if none has.
	last, err := projectors.client.NewProjector(messagedb.ProjectorConfig{Name: "tally", Category: "a", Version: 2, Handler: tallyInto("tally2")})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- last.Run(ctx) }()
	require.Eventually(t, func() bool { return readProjection(t, s, 2).State == messagedb.ProjectionLive }, 3*time.Minute, 10*time.Millisecond)
	cancel()
	require.NoError(t, <-ended)
	requireTally(t, s, "tally2", all)
}

// An error of the projector's own statements is not the message's, so no message is skipped.
func TestAProjectorSkipsNothingForAnErrorOfItsOwnDatabase(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]struct {
		breakIt, mendIt string // "" closes the pool
		want            func(err error) bool
	}{
		"a right that was taken away": {
			`CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE insufficient_privilege; END $$;
			CREATE TRIGGER refuse BEFORE UPDATE ON public.messagedb_projection FOR EACH ROW EXECUTE FUNCTION public.refuse()`,
			"DROP TRIGGER refuse ON public.messagedb_projection",
			func(err error) bool { pg := new(pgconn.PgError); return errors.As(err, &pg) && pg.Code == "42501" },
		},
		"a pool that was closed": {want: func(err error) bool { return errors.Is(err, puddle.ErrClosedPool) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newTallied(t)
			pool, err := pgxpool.NewWithConfig(t.Context(), s.pool.Config())
			require.NoError(t, err)
			defer pool.Close()
			skip := messagedb.ProjectorConfig{Handler: tallyInto("tally"), Pool: pool, ErrorPolicy: messagedb.ErrorPolicy{Skip: true}}
			all := fillCategory(t, s, "a", 1, 5)
			p := newTestProjector(t, s, skip)
			ended := runProjector(t, p)
			requireTally(t, s, "tally", all)
			if fault.breakIt == "" {
				pool.Close()
			} else {
				_, err = s.pool.Exec(t.Context(), fault.breakIt)
				require.NoError(t, err)
			}
			all = fillCategory(t, s, "a", 1, 5)
			err = take(t, ended)
			require.True(t, fault.want(err), "%v", err)
			require.NotErrorAs(t, err, new(*messagedb.HandlerError))
			require.Zero(t, p.Stats().Skipped)

			if fault.mendIt != "" {
				_, err = s.pool.Exec(t.Context(), fault.mendIt)
				require.NoError(t, err)
			}
			skip.Pool = nil
			runProjector(t, newTestProjector(t, s, skip))
			requireTally(t, s, "tally", all)
		})
	}
}
