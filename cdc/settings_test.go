package cdc_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/internal/cdctest"
	"github.com/chariot-giving/delta/internal/hostile"
	"github.com/chariot-giving/delta/internal/soak"
)

// printed creates a table of which the texts would depend on settings. Its key is an array with a null, which has to
// survive as the key of a page.
var printed = []string{
	`CREATE TABLE "Printed" (k text[] PRIMARY KEY, at timestamptz, day date, lasts interval, raw bytea, ratio float8, words text, price money)`,
	`INSERT INTO "Printed" VALUES (ARRAY['NULL', 'z']), (ARRAY[NULL, 'a']), (ARRAY[NULL, 'b'])`,
	`UPDATE "Printed" SET at = '2026-03-04 05:06:07+00', day = '2026-03-04', lasts = make_interval(days => -1, hours => 2), raw = decode('dead00ef', 'hex'),
		ratio = 0.1::float8 + 0.2::float8, words = E'a\\b ''c''', price = 1234.5::numeric::money`,
	`CREATE PUBLICATION p FOR TABLE "Printed"`,
}

// printedTexts are the texts of all columns but the key.
var printedTexts = []string{"2026-03-04 05:06:07+00", "2026-03-04", "-1 days +02:00:00", `\xdead00ef`, "0.30000000000000004", `a\b 'c'`, "$1,234.50"}

func rowTexts(row []cdc.Value) (all []string) {
	for _, v := range row {
		all = append(all, v.Text)
	}
	return all
}

func execAs(t *testing.T, conn *pgx.Conn, statements ...string) {
	t.Helper()
	for _, s := range statements {
		_, err := conn.Exec(t.Context(), s)
		require.NoError(t, err, s)
	}
}

// forEachCase runs a test with each family of settings, made by a role or by a database.
func forEachCase(t *testing.T, test func(t *testing.T, config *pgx.ConnConfig, c hostile.Case)) {
	t.Helper()
	for _, c := range hostile.Cases() {
		t.Run(c.Name(), func(t *testing.T) {
			t.Parallel()
			test(t, hostile.Make(t, cdctest.Admin(t), c), c)
		})
	}
}

func TestSettingsOfARoleOrADatabaseChangeNothing(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	forEachCase(t, func(t *testing.T, config *pgx.ConnConfig, _ hostile.Case) {
		owner := hostile.Owner(t, cdctest.Admin(t), config)
		execAs(t, owner, printed...)
		snapshot := snapshotBesideAWriter(t, config)
		var keys []string
		for change, err := range snapshot.Rows(t.Context(), "public", "Printed") {
			require.NoError(t, err)
			require.Equal(t, printedTexts, rowTexts(change.New[1:]))
			keys = append(keys, change.New[0].Text)
			require.LessOrEqual(t, len(keys), 3, "%s", keys) // otherwise the loop may not end
			time.Sleep(300 * time.Millisecond)               // altogether longer than the idle timeouts of the role
		}
		require.Equal(t, []string{`{"NULL",z}`, `{NULL,a}`, `{NULL,b}`}, keys, "each row is read once, in order")
		for row, err := range snapshot.Query(t.Context(), `SELECT count(*) FROM public."Printed"`) {
			require.NoError(t, err)
			require.Equal(t, "3", row[0].Text)
		}
		snapshot.Close()

		conn, err := cdc.Connect(t.Context(), config, nil)
		require.NoError(t, err)
		row, err := conn.Query(t.Context(), `SELECT ARRAY[at::text, day::text, lasts::text, raw::text, ratio::text, words, price::text] FROM public."Printed" LIMIT 1`)
		require.NoError(t, err)
		beside, err := pgx.CollectExactlyOneRow(row, pgx.RowTo[[]string])
		require.NoError(t, err)
		require.Equal(t, printedTexts, beside, "a connection beside them prints the same")
		require.NoError(t, conn.Close(t.Context()))

		stream := streamOf(t, config, snapshot)
		execAs(t, owner, `UPDATE "Printed" SET words = words WHERE k = ARRAY['NULL', 'z']`)
		require.Equal(t, printedTexts, rowTexts(nextChange(t, stream).New[1:]), "the walsender prints as queries do")
		require.Equal(t, 3, readAll(t, stream, "Printed", func(change *cdc.Change) {
			require.Equal(t, printedTexts, rowTexts(change.New[1:]))
		}))
	})
}

// snapshotBesideAWriter makes a slot and a snapshot while a transaction is open, which the server waits for.
func snapshotBesideAWriter(t *testing.T, config *pgx.ConnConfig) *cdc.Snapshot {
	t.Helper()
	writer := hostile.Owner(t, cdctest.Admin(t), config)
	watcher := hostile.Owner(t, cdctest.Admin(t), config) // because a transaction sees the activity as of its first look
	execAs(t, writer, `CREATE TABLE other ()`, `BEGIN`, `INSERT INTO other DEFAULT VALUES`)
	type made struct {
		snapshot *cdc.Snapshot
		err      error
	}
	making := make(chan made, 1)
	go func() {
		s, err := cdc.CreateSnapshot(context.WithoutCancel(t.Context()), cdc.SnapshotConfig{
			Conn: config, Slot: config.Database, Publications: []string{"p"}, PageSize: 1, Connections: 2,
		})
		making <- made{s, err}
	}()
	require.Eventually(t, func() bool {
		var waits bool
		err := watcher.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'walsender' AND usename = $1 AND wait_event_type = 'Lock')`,
			config.User).Scan(&waits)
		return err == nil && waits || len(making) > 0
	}, cdctest.Patience, 20*time.Millisecond)
	time.Sleep(time.Second) // longer than the lock_timeout of the role
	execAs(t, writer, `COMMIT`)
	m := <-making
	require.NoError(t, m.err)
	t.Cleanup(m.snapshot.Close)
	return m.snapshot
}

func streamOf(t *testing.T, config *pgx.ConnConfig, snapshot *cdc.Snapshot) *cdc.Stream {
	t.Helper()
	s, err := cdc.Open(t.Context(), cdc.Config{
		Conn: config, Slot: snapshot.Slot, Publications: []string{"p"}, Start: snapshot.LSN, Logger: quiet, StatusInterval: 200 * time.Millisecond, Timeout: time.Minute,
	})
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return s
}

// nextChange returns the first change that arrives.
func nextChange(t *testing.T, s *cdc.Stream) *cdc.Change {
	t.Helper()
	for {
		ctx, cancel := context.WithTimeout(t.Context(), cdctest.Patience)
		transaction, err := s.Next(ctx)
		cancel()
		require.NoError(t, err)
		for change, err := range transaction.Changes() {
			require.NoError(t, err)
			return change
		}
	}
}

// readAll backfills a table and counts its rows.
func readAll(t *testing.T, s *cdc.Stream, table string, use func(*cdc.Change)) (rows int) {
	t.Helper()
	b, err := s.Backfill(t.Context(), cdc.BackfillConfig{Table: table, ChunkSize: 1})
	require.NoError(t, err)
	for !isDone(b) {
		ctx, cancel := context.WithTimeout(t.Context(), cdctest.Patience)
		transaction, err := s.Next(ctx)
		cancel()
		require.NoError(t, err)
		for change, err := range transaction.Changes() {
			require.NoError(t, err)
			if change.Kind == cdc.KindRead {
				use(change)
				rows++
			}
		}
	}
	require.NoError(t, b.Err())
	return rows
}

// The server must not end the connection that is idle between heartbeats. The timeout is so long that a stall between the login and the library's
// first statement, which lifts it, is shorter.
func TestHeartbeatsOutliveTheIdleTimeoutOfTheirRole(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	config := hostile.Make(t, cdctest.Admin(t), hostile.Case{Place: "role", Family: hostile.Family{Settings: []hostile.Setting{{Name: "idle_session_timeout", Value: "2s"}}}})
	execAs(t, hostile.Owner(t, cdctest.Admin(t), config), printed...)
	snapshot, err := cdc.CreateSnapshot(t.Context(), cdc.SnapshotConfig{Conn: config, Slot: config.Database})
	require.NoError(t, err)
	snapshot.Close()
	log := make(said, 100)
	s, err := cdc.Open(t.Context(), cdc.Config{
		Conn: config, Slot: config.Database, Publications: []string{"p"}, Heartbeat: 3 * time.Second, Logger: slog.New(slog.NewTextHandler(log, nil)),
	})
	require.NoError(t, err)
	defer s.Close()
	require.Eventually(t, func() bool { return s.Stats().Heartbeats >= 3 }, cdctest.Patience, 20*time.Millisecond)
	for len(log) > 0 {
		require.NotContains(t, <-log, "a heartbeat could not be written")
	}
}

func TestTextIsUTF8WhateverTheEncodingOfTheDatabaseIs(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	for encoding, name := range map[string]string{"LATIN1": "größe", "EUC_JP": "大きさ", "SQL_ASCII": "größe", "WIN1251": "размер"} {
		t.Run(encoding, func(t *testing.T) {
			t.Parallel()
			config := hostile.MakeEncoded(t, cdctest.Admin(t), encoding)
			owner := hostile.Owner(t, cdctest.Admin(t), config)
			execAs(t, owner, `CREATE TABLE "`+name+`" ("`+name+`" text PRIMARY KEY)`, `INSERT INTO "`+name+`" VALUES ('`+name+`'), ('`+name+name+`')`,
				`CREATE PUBLICATION p FOR TABLE "`+name+`"`)
			snapshot, err := cdc.CreateSnapshot(t.Context(), cdc.SnapshotConfig{Conn: config, Slot: config.Database, Publications: []string{"p"}, PageSize: 1})
			require.NoError(t, err)
			defer snapshot.Close()
			var read []string
			for change, err := range snapshot.Rows(t.Context(), "public", name) {
				require.NoError(t, err)
				require.Equal(t, name, change.Relation.Table)
				require.Equal(t, name, change.Relation.Columns[0].Name)
				read = append(read, change.New[0].Text)
			}
			require.Equal(t, []string{name, name + name}, read)
			stream := streamOf(t, config, snapshot)
			execAs(t, owner, `INSERT INTO "`+name+`" VALUES ('`+name+`3')`)
			change := nextChange(t, stream)
			require.Equal(t, name, change.Relation.Table)
			require.Equal(t, name+"3", change.New[0].Text)
			require.Equal(t, 3, readAll(t, stream, name, func(*cdc.Change) {}))
		})
	}
}

func TestConnectionsOfOtherEncodingsAreRefused(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	config := hostile.MakeEncoded(t, cdctest.Admin(t), "LATIN1")
	pooled, err := pgxpool.ParseConfig("")
	require.NoError(t, err)
	pooled.ConnConfig = config
	pool, err := pgxpool.NewWithConfig(ctx, pooled)
	require.NoError(t, err)
	defer pool.Close()
	conn, err := pgx.ConnectConfig(ctx, config)
	require.NoError(t, err)
	defer func() { _ = conn.Close(ctx) }()
	tx, err := pool.Begin(ctx)
	require.NoError(t, err)
	defer func() { _ = tx.Rollback(ctx) }()
	for _, db := range []cdc.DB{pool, conn, tx} {
		_, find := cdc.FindTables(ctx, db, "*")
		_, list := cdc.Publications(ctx, db)
		for _, err := range []error{
			find, list, cdc.CreatePublication(ctx, db, cdc.Publication{Name: "größe", Tables: []cdc.PublishedTable{{Table: "größe"}}}), cdc.DropPublication(ctx, db, "größe"),
		} {
			bad := new(cdc.InvalidError)
			require.ErrorAs(t, err, &bad)
			require.Equal(t, cdc.FieldClientEncoding, bad.Field)
			require.Equal(t, "LATIN1", bad.Value)
		}
	}
	_, err = conn.Exec(ctx, `SET client_encoding = 'UTF8'`)
	require.NoError(t, err)
	_, err = cdc.Publications(ctx, conn)
	require.NoError(t, err)
}

func TestRowsThatAPolicyHidesAreAnError(t *testing.T) {
	t.Parallel()
	admin := cdctest.Admin(t)
	config := hostile.MakeEncoded(t, admin, "UTF8")
	owner := hostile.Owner(t, admin, config)
	execAs(t, owner, `CREATE TABLE t (id int PRIMARY KEY, tenant text)`, `INSERT INTO t VALUES (1, 'a'), (2, 'b')`, `CREATE PUBLICATION p FOR TABLE t`,
		`ALTER TABLE t ENABLE ROW LEVEL SECURITY`, `CREATE POLICY p ON t USING (tenant = 'a')`)
	var snapshot *cdc.Snapshot
	rows := func(slot string) (read int, last error) {
		snapshot, last = cdc.CreateSnapshot(t.Context(), cdc.SnapshotConfig{Conn: config, Slot: slot})
		require.NoError(t, last)
		t.Cleanup(snapshot.Close)
		for _, err := range snapshot.Rows(t.Context(), "public", "t") {
			if last = err; err == nil {
				read++
			}
		}
		return read, last
	}
	read, err := rows(config.Database + "_1")
	require.NoError(t, err, "policies do not apply to the owner of the table")
	require.Equal(t, 2, read)
	snapshot.Close() // because it has locked the table

	execAs(t, owner, `ALTER TABLE t FORCE ROW LEVEL SECURITY`)
	read, err = rows(config.Database + "_2")
	hidden := new(cdc.RowSecurityError)
	require.ErrorAs(t, err, &hidden)
	require.Equal(t, cdc.RowSecurityError{Table: "public.t", Role: config.User}, *hidden)
	require.ErrorContains(t, err, "BYPASSRLS")
	require.Zero(t, read)
	for _, err = range snapshot.Query(t.Context(), `SELECT id FROM t`) {
	}
	require.ErrorContains(t, err, `"t"`)
	require.ErrorContains(t, err, "BYPASSRLS")
	stream := streamOf(t, config, snapshot)
	_, err = stream.Backfill(t.Context(), cdc.BackfillConfig{Table: "t"})
	require.ErrorAs(t, err, &hidden)

	cdctest.Administer(t, `ALTER ROLE `+config.User+` BYPASSRLS`)
	snapshot.Close()
	require.Equal(t, 2, readAll(t, stream, "t", func(*cdc.Change) {}))
}
