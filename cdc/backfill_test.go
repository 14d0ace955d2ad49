package cdc_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/internal/cdctest"
	"github.com/chariot-giving/delta/internal/soak"
)

// tableCopy is a copy of a table made from the stream and a backfill, without a snapshot. truth is a copy of the same
// table made from a snapshot and the stream, to compare each row with when the backfill delivers it.
type tableCopy struct {
	copy, truth *replica
	at          cdc.LSN
	token       string
	reads       int
}

func (c *tableCopy) clone() *tableCopy {
	clone := *c
	clone.copy = &replica{keys: c.copy.keys, rows: maps.Clone(c.copy.rows)}
	clone.truth = &replica{keys: c.truth.keys, rows: maps.Clone(c.truth.rows)}
	return &clone
}

func (c *tableCopy) apply(change *cdc.Change) error {
	r := c.copy
	if change.Kind == cdc.KindRead {
		key := r.key(change, change.New)
		if got, want := formatRow(change.New), formatRow(c.truth.rows[key]); got != want {
			return fmt.Errorf("row %s was read as\n%.400s\nand is\n%.400s", key, got, want)
		}
		c.reads++
		r.rows[key] = change.New
		return nil
	}
	if err := c.truth.apply(change); err != nil {
		return err
	}
	before := change.New
	if change.Key != nil {
		before = change.Key
	}
	if change.Old != nil {
		before = change.Old
	}
	switch change.Kind {
	case cdc.KindInsert:
		r.rows[r.key(change, change.New)] = change.New
	case cdc.KindDelete:
		delete(r.rows, r.key(change, before))
	case cdc.KindUpdate:
		old := r.rows[r.key(change, before)]
		delete(r.rows, r.key(change, before))
		row := slices.Clone(change.New)
		for i := range row {
			if row[i].State == cdc.ValueUnchanged && old != nil {
				row[i] = old[i]
			}
		}
		r.rows[r.key(change, row)] = row
	case cdc.KindTruncate:
		clear(r.rows)
	case cdc.KindRead, cdc.KindMessage, cdc.KindSchema:
	}
	return nil
}

// beginCopy reads the truth's snapshot. The copy is empty.
func (d *database) beginCopy(table string, keys ...string) *tableCopy {
	d.tb.Helper()
	snapshot := d.createSnapshot()
	c := &tableCopy{copy: newReplica(keys...), truth: newReplica(keys...), at: snapshot.LSN}
	for change, err := range snapshot.Rows(d.tb.Context(), "public", table) {
		require.NoError(d.tb, err)
		require.NoError(d.tb, c.truth.apply(change))
	}
	snapshot.Close()
	return c
}

// consume applies one transaction, and reports whether it is the end that the test has written.
func (c *tableCopy) consume(tb testing.TB, s *cdc.Stream, b *cdc.Backfill) (ended bool) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), cdctest.Patience)
	defer cancel()
	t, err := s.Next(ctx)
	require.NoError(tb, err)
	for change, err := range t.Changes() {
		require.NoError(tb, err)
		require.NoError(tb, c.apply(change), "%s of transaction %d at %s", change.Kind, t.XID, t.EndLSN)
		require.Equal(tb, change.Kind == cdc.KindRead, t.Backfill != nil)
		ended = ended || change.Kind == cdc.KindMessage && change.Message.Prefix == "end"
	}
	c.at, c.token = t.EndLSN, b.Token()
	return ended
}

// equalLines compares rows without printing thousands of them.
func equalLines(tb testing.TB, want, got []string) {
	tb.Helper()
	require.Len(tb, got, len(want))
	for i := range want {
		if want[i] != got[i] {
			require.Equal(tb, fmt.Sprintf("%.400s", want[i]), fmt.Sprintf("%.400s", got[i]), "line %d", i)
			require.FailNow(tb, "they differ in large values")
		}
	}
}

func isDone(b *cdc.Backfill) bool {
	select {
	case <-b.Done():
		return true
	default:
		return false
	}
}

func TestBackfillBesideWritersEqualsTheTable(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	for name, full := range map[string]bool{"primary key": false, "replica identity full": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDatabase(t)
			const keys = 3000
			d.fillTable(keys)
			if full {
				// With a generated column that is not published, Postgres 18 would refuse the updates.
				d.exec(`ALTER TABLE everything DROP COLUMN g`, `ALTER TABLE everything REPLICA IDENTITY FULL`)
			}
			pace := newPace(300)
			stop := d.startWriters(3, keys, pace)
			c := d.beginCopy("everything", "s", "n")
			s := d.openStream(func(config *cdc.Config) { config.Start = c.at })
			b, err := s.Backfill(t.Context(), cdc.BackfillConfig{Table: "everything", ChunkSize: 100})
			require.NoError(t, err)
			for !isDone(b) {
				c.consume(t, s, b)
				pace.more()
				require.NoError(t, s.Ack(c.at))
			}
			require.NoError(t, b.Err())
			written := stop()
			d.exec(`SELECT pg_logical_emit_message(true, 'end', '')`)
			for !c.consume(t, s, b) {
			}
			equalLines(t, d.tableLines(), c.copy.lines())
			equalLines(t, c.truth.lines(), c.copy.lines())
			t.Logf("%d rows read, %d in the table, %d transactions written", c.reads, len(c.copy.rows), written)
		})
	}
}

func TestBackfillGoesOnAfterItWasKilled(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	d := newDatabase(t)
	const keys = 3000
	d.fillTable(keys)
	// One transaction is written for three that are consumed. The consumer dies and gets transactions again, but must make
	// progress.
	pace := newPace(300)
	stop := d.startWriters(1, keys, pace)
	kept := d.beginCopy("everything", "s", "n")
	lives, ended := 0, false
	for written := false; !ended; lives++ {
		c, life := kept.clone(), 20+rand.IntN(200)
		if lives == 0 {
			life = 20 + rand.IntN(40) // fewer than there are chunks
		}
		s := d.openStream(func(config *cdc.Config) { config.Start, config.OnlyAcknowledged = kept.at, true })
		b, err := s.Backfill(t.Context(), cdc.BackfillConfig{Table: "everything", ChunkSize: 40, Token: kept.token})
		require.NoError(t, err)
		for i := 0; !ended && (i < life || isDone(b)); i++ {
			if i%3 == 0 {
				pace.more()
			}
			if ended = c.consume(t, s, b); i%17 == 0 || ended {
				kept = c.clone()
				require.NoError(t, s.Ack(c.at))
			}
			if i%150 == 90 {
				d.exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()
					AND (backend_type = 'walsender' OR query LIKE '%LOCK TABLE%' OR query LIKE '%pg_logical_emit%') AND pid <> pg_backend_pid()`)
			}
			if isDone(b) && !written {
				require.NoError(t, b.Err())
				stop()
				d.exec(`SELECT pg_logical_emit_message(true, 'end', '')`)
				written = true
			}
		}
		s.Close()
		if !isDone(b) || b.Err() != nil {
			require.ErrorIs(t, b.Err(), cdc.ErrClosed)
		}
	}
	require.Greater(t, lives, 1)
	equalLines(t, d.tableLines(), kept.copy.lines())
	t.Logf("%d lives, %d rows read, %d in the table", lives, kept.reads, len(kept.copy.rows))
}
