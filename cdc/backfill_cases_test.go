package cdc_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/internal/cdctest"
	"github.com/chariot-giving/delta/internal/soak"
)

// applyUntilDone applies changes until the backfill is done and everything written before has arrived.
func (c *tableCopy) applyUntilDone(d *database, s *cdc.Stream, b *cdc.Backfill) {
	d.tb.Helper()
	for !isDone(b) {
		c.consume(d.tb, s, b)
	}
	require.NoError(d.tb, b.Err())
	d.exec(`SELECT pg_logical_emit_message(true, 'end', '')`)
	for !c.consume(d.tb, s, b) {
	}
	equalLines(d.tb, c.truth.lines(), c.copy.lines())
}

func TestBackfillFollowsWhatHappensBetweenChunks(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	for name, harm := range map[string][]string{
		"large values under a new key": {`update t set id = -id where id > 80`},
		"and changed again":            {`update t set id = -id where id > 80`, `update t set v = 'x' where id < 0`, `update t set id = 1000 - id where id < 0`},
		"deletes":                      {`delete from t where id % 2 = 0`},
		"truncated":                    {`truncate t`, `insert into t values (3, 'new', 'small')`, `insert into t values (300, 'new', 'small')`},
		"a key that comes and goes":    {`update t set id = id + 1000 where id <= 10`, `update t set id = id - 1000 where id > 1000`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDatabase(t)
			d.exec(`create table t (id int primary key, v text, big text)`, `alter table t alter big set storage external`,
				`insert into t select i, 'v' || i, repeat(md5(i::text), 100) from generate_series(1, 100) i`)
			c := d.beginCopy("t", "id")
			s := d.openStream(func(config *cdc.Config) { config.Start = c.at })
			b, err := s.Backfill(t.Context(), cdc.BackfillConfig{Table: "t", ChunkSize: 15})
			require.NoError(t, err)
			for c.reads == 0 {
				c.consume(t, s, b)
			}
			b.Pause()
			for c.reads < 30 { // the next chunk may already have been read
				d.exec(`select pg_logical_emit_message(true, 'mine', '')`)
				if c.consume(t, s, b); c.reads == 15 {
					break
				}
			}
			d.exec(harm...)
			b.Resume()
			c.applyUntilDone(d, s, b)
		})
	}
}

func TestBackfillFollowsChangesOfTheTable(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.exec(`create table t (id int primary key, v int, gone text)`, `insert into t select i, i, 'x' from generate_series(1, 400) i`)
	s := d.openStream()
	b, err := s.Backfill(t.Context(), cdc.BackfillConfig{Table: "t", ChunkSize: 10})
	require.NoError(t, err)
	rows := map[string]map[string]string{}
	for i := 0; !isDone(b); i++ {
		switch i {
		case 3:
			d.exec(`alter table t add more text default 'added'`, `update t set v = v + 1 where id in (5, 395)`)
		case 6:
			d.exec(`alter table t drop gone`, `alter table t alter v type text using 'v' || v`, `update t set v = v || '!' where id > 390`)
		}
		transaction, err := s.Next(t.Context())
		require.NoError(t, err)
		for change, err := range transaction.Changes() {
			require.NoError(t, err)
			if change.Kind == cdc.KindRead || change.Kind == cdc.KindUpdate {
				row := map[string]string{}
				for at, column := range change.Relation.Columns {
					row[column.Name] = change.New[at].Text
				}
				rows[row["id"]] = row
			}
		}
		require.NoError(t, s.Ack(transaction.EndLSN))
	}
	require.NoError(t, b.Err())
	require.Len(t, rows, 400)
	require.Equal(t, map[string]string{"id": "1", "v": "1", "gone": "x"}, rows["1"], "it was read before")
	require.Equal(t, map[string]string{"id": "395", "v": "v396!", "more": "added"}, rows["395"])
	require.Equal(t, map[string]string{"id": "300", "v": "v300", "more": "added"}, rows["300"])

	b, err = s.Backfill(t.Context(), cdc.BackfillConfig{Table: "t", ChunkSize: 10})
	require.NoError(t, err)
	transaction, err := s.Next(t.Context())
	require.NoError(t, err)
	require.NoError(t, s.Ack(transaction.EndLSN))
	d.exec(`alter table t drop constraint t_pkey, add primary key (id, v)`)
	for !isDone(b) {
		d.exec(`select pg_logical_emit_message(true, 'mine', '')`)
		_, err := s.Next(t.Context())
		require.NoError(t, err, "the stream continues")
	}
	require.ErrorContains(t, b.Err(), "another key")
}

// A table is published while a transaction that has written to it is open. The stream need not have these changes, so
// the backfill has to read the row.
func TestBackfillOfATableThatIsPublishedLater(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := t.Context()
	d.exec(`create table first (id int primary key)`, `create table t (id int primary key, v text)`,
		`insert into t select i, 'old' from generate_series(1, 50) i`, `create publication `+d.name+` for table first`)
	s := d.openStream()
	_, err := s.Backfill(ctx, cdc.BackfillConfig{Table: "t"})
	require.ErrorContains(t, err, "it must be in one of the publications")
	late, err := d.pool.Begin(ctx)
	require.NoError(t, err)
	_, err = late.Exec(ctx, `update t set v = 'early' where id = 7`)
	require.NoError(t, err)
	d.exec(`alter publication ` + d.name + ` add table t`)
	b, err := s.Backfill(ctx, cdc.BackfillConfig{Table: "t"})
	require.NoError(t, err)
	// The backfill waits for the writer; the stream does not.
	d.exec(`insert into first values (1)`)
	_, changes := nextTransaction(t, s)
	require.Equal(t, []string{"insert first [1]"}, changes)
	require.False(t, isDone(b))
	_, err = late.Exec(ctx, `update t set v = 'late' where id = 8`)
	require.NoError(t, err)
	require.NoError(t, late.Commit(ctx))
	rows := map[string]string{}
	for !isDone(b) {
		transaction, err := s.Next(ctx)
		require.NoError(t, err)
		for change, err := range transaction.Changes() {
			require.NoError(t, err)
			rows[change.New[0].Text] = change.New[1].Text
		}
	}
	require.Len(t, rows, 50)
	require.Equal(t, "early", rows["7"])
	require.Equal(t, "late", rows["8"])
}

func TestBackfillRefusesInvalidInput(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.exec(`create table t (id int primary key)`, `create table keyless (id int)`, `create table other (id int primary key)`,
		`insert into t select generate_series(1, 100)`)
	s := d.openStream()
	good := `{"version":1,"schema":"public","table":"t","columns":["id"],"key":["50"]}`
	for name, c := range map[string]struct {
		field  cdc.Field
		config cdc.BackfillConfig
	}{
		"primary key":               {cdc.FieldTable, cdc.BackfillConfig{Table: "keyless"}},
		"no table of this name":     {cdc.FieldTable, cdc.BackfillConfig{Table: "none"}},
		"1 to 63 bytes":             {cdc.FieldTable, cdc.BackfillConfig{}},
		"1 to 100000":               {cdc.FieldChunkSize, cdc.BackfillConfig{Table: "t", ChunkSize: 100_001}},
		"not negative":              {cdc.FieldInterval, cdc.BackfillConfig{Table: "t", Interval: -1}},
		"a value of Backfill.Token": {cdc.FieldToken, cdc.BackfillConfig{Table: "t", Token: "{}"}},
		"a value for each column":   {cdc.FieldToken, cdc.BackfillConfig{Table: "t", Token: strings.Replace(good, `["50"]`, `["1","2"]`, 1)}},
		"of the table":              {cdc.FieldToken, cdc.BackfillConfig{Table: "other", Token: good}},
		"with the same key":         {cdc.FieldToken, cdc.BackfillConfig{Table: "t", Token: strings.Replace(good, `["id"]`, `["x"]`, 1)}},
	} {
		_, err := s.Backfill(t.Context(), c.config)
		var invalid *cdc.InvalidError
		require.ErrorAs(t, err, &invalid, name)
		require.Equal(t, c.field, invalid.Field, name)
		require.ErrorContains(t, err, name)
	}

	b, err := s.Backfill(t.Context(), cdc.BackfillConfig{Table: "t", Token: good, ChunkSize: 20})
	require.NoError(t, err)
	_, err = s.Backfill(t.Context(), cdc.BackfillConfig{Table: "t"})
	require.ErrorContains(t, err, "not being backfilled already")
	first, changes := nextTransaction(t, s)
	require.Equal(t, b, first.Backfill)
	require.Len(t, changes, 20)
	require.Equal(t, "read t [51]", changes[0])
	require.Contains(t, b.Token(), `"key":["70"]`)
	_, err = s.Backfill(t.Context(), cdc.BackfillConfig{Table: "other", Token: strings.Replace(good, `"t"`, `"other"`, 1)})
	require.ErrorContains(t, err, "before the first call of Next")
	b.Stop()
	<-b.Done()
	require.ErrorIs(t, b.Err(), cdc.ErrClosed)

	again, err := s.Backfill(t.Context(), cdc.BackfillConfig{Table: "t"})
	require.NoError(t, err)
	s.Close()
	<-again.Done()
	require.ErrorIs(t, again.Err(), cdc.ErrClosed)
	_, err = s.Backfill(t.Context(), cdc.BackfillConfig{Table: "t"})
	require.ErrorIs(t, err, cdc.ErrClosed)
}

// If a chunk's transaction exceeds ChunkTimeout, the chunk is read again with fewer rows, down to one.
func TestChunkTimeoutShrinksChunks(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.exec(`create table t (id int primary key, v text)`)
	log := make(said, 100)
	s := d.openStream(func(c *cdc.Config) { c.Logger = slog.New(slog.NewTextHandler(log, nil)) })
	d.exec(`insert into t select i, repeat('x', 20000000) from generate_series(1, 4) i`) // reading one row takes more than a millisecond
	_, err := s.Backfill(t.Context(), cdc.BackfillConfig{Table: "t", ChunkTimeout: 1})
	wrong := new(cdc.InvalidError)
	require.ErrorAs(t, err, &wrong)
	require.Equal(t, cdc.FieldChunkTimeout, wrong.Field)
	b, err := s.Backfill(t.Context(), cdc.BackfillConfig{Table: "t", ChunkSize: 4, ChunkTimeout: time.Millisecond})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), cdctest.Patience)
	defer cancel()
	go func() {
		<-b.Done()
		cancel()
	}()
	for err == nil {
		_, err = s.Next(ctx)
	}
	require.True(t, isDone(b))
	require.ErrorAs(t, b.Err(), &wrong)
	require.Equal(t, cdc.FieldChunkTimeout, wrong.Field)
	require.Contains(t, wrong.Rule, `"t"`)
	var rows []string
	for len(log) > 0 {
		if line := <-log; strings.Contains(line, "fewer rows") {
			rows = append(rows, line[strings.Index(line, "rows=")+5:][:1])
		}
	}
	require.Equal(t, []string{"2", "1"}, rows)
	require.Eventually(t, func() bool {
		return !queryValue[bool](d, `select exists (select from pg_locks where relation = 't'::regclass and pid <> pg_backend_pid() and mode = 'AccessShareLock')`)
	}, cdctest.Patience, 20*time.Millisecond)
}
