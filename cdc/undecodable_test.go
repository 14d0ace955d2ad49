package cdc_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/internal/cdctest"
	"github.com/chariot-giving/delta/internal/hostile"
)

// nextTexts returns the changes of the next transaction that has any, or the error that Next returns instead.
func nextTexts(t *testing.T, s *cdc.Stream) ([]string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), cdctest.Patience)
	defer cancel()
	for {
		transaction, err := s.Next(ctx)
		if err != nil {
			return nil, err
		}
		var all []string
		for change, err := range transaction.Changes() {
			if err != nil {
				return nil, err
			}
			all = append(all, fmt.Sprint(change.Kind, " ", change.New))
		}
		if len(all) > 0 {
			require.NoError(t, s.Ack(transaction.EndLSN))
			return all, nil
		}
	}
}

// openFree opens a slot that the server may release only shortly afterwards.
func openFree(t *testing.T, c cdc.Config) (s *cdc.Stream) {
	t.Helper()
	s, err := cdc.Open(t.Context(), c)
	for end := time.Now().Add(cdctest.Patience); errors.Is(err, cdc.ErrSlotBusy) && time.Now().Before(end); {
		s, err = cdc.Open(t.Context(), c)
	}
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return s
}

// undecodableDatabase makes a slot, and then a table with a row of which the second column is not valid text.
func undecodableDatabase(t *testing.T) (*pgx.ConnConfig, *pgx.Conn, *cdc.Snapshot) {
	t.Helper()
	config := hostile.MakeEncoded(t, cdctest.Admin(t), "SQL_ASCII")
	owner := hostile.Owner(t, cdctest.Admin(t), config)
	execAs(t, owner, `CREATE TABLE t (id int PRIMARY KEY, v text)`, `CREATE PUBLICATION p FOR TABLE t`, `SET client_encoding = 'SQL_ASCII'`,
		`INSERT INTO t VALUES (1, 'a'), (2, E'caf\xe9'), (3, 'größe')`)
	snapshot, err := cdc.CreateSnapshot(t.Context(), cdc.SnapshotConfig{Conn: config, Slot: config.Database, Publications: []string{"p"}, Logger: quiet})
	require.NoError(t, err)
	t.Cleanup(snapshot.Close)
	execAs(t, owner, `BEGIN`, `INSERT INTO t VALUES (4, 'd')`, `INSERT INTO t VALUES (5, E'th\xe9')`, `INSERT INTO t VALUES (6, 'f')`, `COMMIT`,
		`UPDATE t SET v = 'größer' WHERE id = 3`)
	return config, owner, snapshot
}

func TestAnUndecodableRowIsLeftOutOnlyIfChosen(t *testing.T) {
	t.Parallel()
	config, owner, snapshot := undecodableDatabase(t)
	log := make(said, 100)
	// From the slot's own position, which may move while the stream has nothing to acknowledge.
	c := cdc.Config{Conn: config, Slot: snapshot.Slot, Publications: []string{"p"}, Logger: slog.New(slog.NewTextHandler(log, nil))}
	s := openFree(t, c)
	_, err := nextTexts(t, s)
	row := new(cdc.UndecodableError)
	require.ErrorAs(t, err, &row)
	require.Equal(t, "public.t", row.Table)
	require.Equal(t, "v", row.Column)
	require.NotZero(t, row.LSN)
	require.False(t, row.WholeTransaction)
	require.ErrorContains(t, err, "SQL_ASCII")
	_, err = nextTexts(t, s)
	require.ErrorAs(t, err, &row, "it stays")
	s.Close()

	s, err = leaveOut(t.Context(), c, row.LSN)
	for end := time.Now().Add(cdctest.Patience); errors.Is(err, cdc.ErrSlotBusy) && time.Now().Before(end); {
		s, err = leaveOut(t.Context(), c, row.LSN)
	}
	require.NoError(t, err)
	defer s.Close()
	got, err := nextTexts(t, s)
	require.NoError(t, err)
	require.Equal(t, []string{"insert [4 d]", "insert [6 f]"}, got, "the rest of the transaction is delivered")
	got, err = nextTexts(t, s)
	require.NoError(t, err)
	require.Equal(t, []string{"update [3 größer]"}, got)
	require.Positive(t, s.Stats().Undecodable, "again after a lost connection")
	line := log.await("is left out")
	for _, part := range []string{"level=WARN", "table=public.t", "column=v", "position=" + row.LSN.String(), "SQL_ASCII"} {
		require.Contains(t, line, part)
	}
	execAs(t, owner, `INSERT INTO t VALUES (7, E'na\xefve')`)
	_, err = nextTexts(t, s)
	other := new(cdc.UndecodableError)
	require.ErrorAs(t, err, &other, "only one row was to be left out")
	require.Greater(t, other.LSN, row.LSN)
}

func TestUndecodableRowsAreLeftOutOfSnapshotsAndBackfills(t *testing.T) {
	t.Parallel()
	config, _, first := undecodableDatabase(t)
	rows := func(s *cdc.Snapshot) (all []string, last error) {
		for change, err := range s.Rows(t.Context(), "public", "t") {
			if err != nil {
				return all, err
			}
			all = append(all, fmt.Sprint(change.New))
		}
		return all, nil
	}
	_, err := rows(first)
	row := new(cdc.UndecodableError)
	require.ErrorAs(t, err, &row)
	require.Equal(t, "public.t", row.Table)
	require.Equal(t, "v", row.Column)
	require.Equal(t, first.LSN, row.LSN)
	_, err = first.Page(t.Context(), "public", "t", nil, 10, 1<<20)
	require.ErrorAs(t, err, &row)
	for _, err = range first.Query(t.Context(), `SELECT v FROM t ORDER BY id DESC`) {
	}
	require.ErrorAs(t, err, &row)

	skip := func(*cdc.UndecodableError) bool { return true }
	second, err := cdc.CreateSnapshot(t.Context(), cdc.SnapshotConfig{
		Conn: config, Slot: config.Database + "_2", Publications: []string{"p"}, PageSize: 1, Connections: 2, Logger: quiet, SkipUndecodable: skip,
	})
	require.NoError(t, err)
	defer second.Close()
	left := []string{"[1 a]", "[3 größer]", "[4 d]", "[6 f]"}
	got, err := rows(second)
	require.NoError(t, err)
	require.Equal(t, left, got)
	page, err := second.Page(t.Context(), "public", "t", nil, 2, 1<<20)
	require.NoError(t, err)
	require.Len(t, page.Rows, 1)
	require.Equal(t, []string{"2"}, page.Next, "the key is that of the row that was left out")

	c := cdc.Config{Conn: config, Slot: second.Slot, Publications: []string{"p"}, Logger: quiet}
	s := openFree(t, c)
	b, err := s.Backfill(t.Context(), cdc.BackfillConfig{Table: "t", ChunkSize: 1})
	require.NoError(t, err)
	reading, cancel := context.WithTimeout(t.Context(), cdctest.Patience)
	defer cancel()
	go func() {
		<-b.Done()
		cancel()
	}()
	for err == nil {
		_, err = s.Next(reading)
	}
	require.True(t, isDone(b))
	require.ErrorAs(t, b.Err(), &row)
	require.Equal(t, "public.t", row.Table)
	s.Close()
	c.SkipUndecodable = skip
	s = openFree(t, c)
	got = nil
	readAll(t, s, "t", func(change *cdc.Change) { got = append(got, fmt.Sprint(change.New)) })
	require.Equal(t, left, got)
	require.EqualValues(t, 2, s.Stats().Undecodable)
}

// The server itself finds a character of the database without an equivalent in UTF-8, and sends nothing more of the
// transaction.
func TestAnUndecodableTransactionIsSkippedOnlyIfChosen(t *testing.T) {
	t.Parallel()
	config := hostile.MakeEncoded(t, cdctest.Admin(t), "WIN1252")
	owner := hostile.Owner(t, cdctest.Admin(t), config)
	execAs(t, owner, `CREATE TABLE t (id int PRIMARY KEY, v text)`, `CREATE PUBLICATION p FOR TABLE t`)
	_, err := cdc.CreateSlot(t.Context(), owner, config.Database, cdc.SlotOptions{})
	require.NoError(t, err)
	execAs(t, owner, `SET client_encoding = 'WIN1252'`, `INSERT INTO t VALUES (1, 'a')`,
		`BEGIN`, `INSERT INTO t VALUES (2, 'b')`, `INSERT INTO t VALUES (3, convert_from('\x81', 'WIN1252'))`, `COMMIT`, `INSERT INTO t VALUES (4, 'd')`)
	for _, protocol := range []int{1, 2} {
		t.Run(fmt.Sprint("protocol ", protocol), func(t *testing.T) {
			c := cdc.Config{Conn: config, Slot: config.Database, Publications: []string{"p"}, Logger: quiet, Protocol: protocol, OnlyAcknowledged: true}
			s := openFree(t, c)
			took, err := s.Next(t.Context())
			require.NoError(t, err)
			require.Equal(t, []string{"insert [1 a]"}, changeTexts(t, took))
			_, err = nextTexts(t, s)
			row := new(cdc.UndecodableError)
			require.ErrorAs(t, err, &row)
			require.True(t, row.WholeTransaction)
			require.NotZero(t, row.LSN)
			require.NotZero(t, row.XID)
			var server *pgconn.PgError
			require.ErrorAs(t, err, &server)
			require.Equal(t, "22P05", server.Code)
			s.Close()

			c.SkipUndecodable = func(other *cdc.UndecodableError) bool { return other.LSN == row.LSN }
			s = openFree(t, c)
			for _, want := range []string{"insert [1 a]", "insert [4 d]"} { // again, because nothing was acknowledged
				transaction, err := s.Next(t.Context())
				require.NoError(t, err)
				require.Equal(t, []string{want}, changeTexts(t, transaction))
			}
			require.EqualValues(t, 1, s.Stats().Undecodable)
		})
	}
}
