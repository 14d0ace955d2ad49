package cdc_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/internal/cdctest"
)

// schemaChanges reads a transaction and returns its changes as text, schema changes with their description.
func schemaChanges(t *testing.T, s *cdc.Stream) (changes []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), cdctest.Patience)
	defer cancel()
	transaction, err := s.Next(ctx)
	require.NoError(t, err)
	for c, err := range transaction.Changes() {
		require.NoError(t, err)
		text := fmt.Sprint(c.Kind, " ", c.Relation.Table)
		if c.Schema != nil {
			text += ": " + c.Schema.String()
		}
		changes = append(changes, text)
	}
	return changes
}

func TestSchemaChangesAreDelivered(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.exec(`create table t (id int primary key, v varchar(5))`)
	s := d.openStream(func(c *cdc.Config) { c.SchemaChanges = true })
	d.exec(`insert into t values (1, 'a')`)
	require.Equal(t, []string{"insert t"}, schemaChanges(t, s), "a table that is new to the stream has not changed")
	for _, c := range []struct{ statement, says string }{
		{`alter table t add w text`, "added w"},
		{`alter table t alter v type varchar(9)`, "retyped v"},
		{`alter table t rename v to x`, "added x; dropped v"},
		{`alter table t drop x`, "dropped x"},
		{`alter table t replica identity full`, "another replica identity"},
		{`analyze t`, ""},
		{`drop table t; create table t (id int primary key, w text)`, "recreated; another replica identity"},
	} {
		d.exec(c.statement, `insert into t (id) values (2)`, `delete from t where id = 2`)
		changes := []string{"insert t", "delete t"}
		if got := schemaChanges(t, s); c.says != "" {
			require.Equal(t, []string{"schema t: " + c.says, "insert t"}, got, c.statement)
		} else {
			require.Equal(t, changes[:1], got, c.statement)
		}
		require.Equal(t, changes[1:], schemaChanges(t, s), c.statement)
	}
	d.exec(`alter table t rename to u`, `insert into u (id) values (3)`)
	require.Equal(t, []string{"schema u: renamed from public.t", "insert u"}, schemaChanges(t, s))

	// Within a transaction the schema change is between changes of both definitions. Rolled-back changes do not count.
	tx, err := d.pool.Begin(t.Context())
	require.NoError(t, err)
	for _, statement := range []string{
		`insert into u (id) values (4)`, `savepoint a`, `alter table u add lost int`, `insert into u (id) values (5)`, `rollback to a`,
		`insert into u (id) values (6)`, `alter table u add kept int`, `truncate u`,
	} {
		_, err := tx.Exec(t.Context(), statement)
		require.NoError(t, err)
	}
	require.NoError(t, tx.Commit(t.Context()))
	require.Equal(t, []string{"insert u", "insert u", "schema u: added kept", "truncate u"}, schemaChanges(t, s))
}

func TestADroppedPublicationNeedsAResync(t *testing.T) {
	t.Parallel()
	for name, again := range map[string]bool{"dropped": false, "made again": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDatabase(t)
			d.exec(`create table t (id int primary key)`)
			s := d.openStream()
			d.exec(`insert into t values (1)`)
			nextTransaction(t, s)
			d.exec(`drop publication "`+d.name+`"`, `insert into t values (2)`)
			if again {
				d.exec(`create publication "` + d.name + `" for all tables`)
			}
			ctx, cancel := context.WithTimeout(t.Context(), cdctest.Patience)
			defer cancel()
			_, err := s.Next(ctx)
			var resync *cdc.ResyncError
			require.ErrorAs(t, err, &resync)
			require.ErrorIs(t, err, cdc.ErrResyncNeeded)
			require.Equal(t, cdc.PublicationMissing, resync.Reason)
		})
	}
}

func TestAnUnwritableSpillFolderIsReported(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.exec(`create table t (id int primary key, v text)`)
	folder := filepath.Join(t.TempDir(), "gone")
	s := d.openStream(func(c *cdc.Config) { c.MemoryLimit, c.SpillFolder = 64<<10, folder })
	d.exec(`insert into t select i, repeat('x', 1000) from generate_series(1, 5000) i`)
	ctx, cancel := context.WithTimeout(t.Context(), cdctest.Patience)
	defer cancel()
	_, err := s.Next(ctx)
	var spill *cdc.SpillError
	require.ErrorAs(t, err, &spill)
	require.Equal(t, folder, spill.Folder)
	require.ErrorContains(t, err, "SpillFolder")
	require.NotErrorIs(t, err, cdc.ErrResyncNeeded)
}

func TestPatternsMatchSlashes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pattern, name string
		match         bool
	}{
		{"*", "public.in/out", true},
		{"public.*", "public.in/out", true},
		{"public.in?out", "public.in/out", true},
		{"public.in/*", "public.in/out", true},
		{"public.in/out", "public.in/out", true},
		{"public.in/out", "public.in_out", false},
		{`public.a\*`, "public.a*", true},
		{`public.a\*`, "public.ab", false},
		{"public.*", "shop.in/out", false},
	} {
		match, err := cdc.MatchTable(c.pattern, c.name)
		require.NoError(t, err)
		require.Equal(t, c.match, match, "%s %s", c.pattern, c.name)
	}
	_, err := cdc.MatchTable("[a", "a")
	require.ErrorAs(t, err, new(*cdc.InvalidError))
}
