package cdc_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
)

// everything creates a table with a key of two columns, one of them text, values of the common types and some that are
// stored out of line.
const everything = `
	CREATE TYPE mood AS ENUM ('glad', 'so so');
	CREATE TABLE everything (
		n int, s text, PRIMARY KEY (s, n),
		b boolean, f float8, r real, money numeric(12,4), u uuid, bin bytea, j jsonb, js json, d date, t timestamptz, ts timestamp,
		i interval, a text[], na int[], m mood, bits bit(5), c char(4), big text, g int GENERATED ALWAYS AS (n + 1) STORED
	)`

// row is an SQL list of random values for the columns after the key.
const row = `random() < 0.5, random() * 1e10, random(), (random() * 1e6)::numeric(12,4), gen_random_uuid(), decode(md5(random()::text), 'hex'),
	jsonb_build_object('k', random(), 'q', '"quoted"'), '{"b": 1,  "a": null}', current_date, clock_timestamp(), clock_timestamp(),
	random() * interval '40 days', ARRAY['x,y', NULL, 'q"'], NULL, 'so so', B'10110', 'ab',
	(SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 150 * (random() < 0.3)::int))`

const columns = `n, s, b, f, r, money, u, bin, j, js, d, t, ts, i, a, na, m, bits, c, big`

// fillTable inserts rows before anything else.
func (d *database) fillTable(rows int) {
	d.tb.Helper()
	d.exec(everything, fmt.Sprintf(`INSERT INTO everything (%s) SELECT x, CASE x %% 3 WHEN 0 THEN 'a''"b' WHEN 1 THEN 'B' ELSE 'ü\' END, %s FROM generate_series(1, %d) x`,
		columns, row, rows))
}

// pace bounds how far writers are ahead of the reader: each transaction takes a token.
type pace chan struct{}

// newPace returns a pace with which writers may be ahead by some transactions.
func newPace(ahead int) pace {
	p := make(pace, ahead)
	for range ahead {
		p <- struct{}{}
	}
	return p
}

// more allows one more transaction.
func (p pace) more() {
	select {
	case p <- struct{}{}:
	default:
	}
}

// startWriters changes the table at random from several connections until stop is called. It returns when each
// connection has written. Without a pace, they write as fast as they can.
func (d *database) startWriters(writers, keys int, p pace) (stop func() (transactions int64)) {
	d.tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var work, begun sync.WaitGroup
	begun.Add(writers)
	var transactions atomic.Int64
	for range writers {
		work.Go(func() {
			began := sync.OnceFunc(begun.Done)
			defer began()
			conn, err := pgx.ConnectConfig(ctx, d.config())
			if err != nil {
				d.tb.Error(err)
				return
			}
			defer func() { _ = conn.Close(context.Background()) }()
			for ctx.Err() == nil {
				if p != nil {
					select {
					case <-p:
					case <-ctx.Done():
						return
					}
				}
				if err := d.writeOnce(conn, keys); err != nil {
					d.tb.Error(err)
					return
				}
				transactions.Add(1)
				began()
			}
		})
	}
	stop = func() int64 {
		cancel()
		work.Wait()
		return transactions.Load()
	}
	d.tb.Cleanup(func() { stop() })
	begun.Wait()
	return stop
}

// writeOnce runs one transaction. A collision with another transaction is not an error.
func (d *database) writeOnce(conn *pgx.Conn, keys int) error {
	ctx := context.Background()
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(ctx) }()
	for range 1 + rand.IntN(4) {
		n := rand.IntN(keys)
		sql := ""
		switch rand.IntN(7) {
		case 0, 1:
			sql = fmt.Sprintf(`INSERT INTO everything (%s) SELECT %d, 'B', %s ON CONFLICT DO NOTHING`, columns, n, row)
		case 2:
			sql = fmt.Sprintf(`DELETE FROM everything WHERE n = %d`, n)
		case 3:
			sql = fmt.Sprintf(`UPDATE everything SET n = %d WHERE n = %d AND s = 'B' AND NOT EXISTS (SELECT FROM everything WHERE n = %[1]d AND s = 'B')`, rand.IntN(keys), n)
		case 4:
			sql = fmt.Sprintf(`UPDATE everything SET big = NULL, na = '{1,NULL}' WHERE n = %d`, n)
		default:
			sql = fmt.Sprintf(`UPDATE everything SET f = random(), t = clock_timestamp() WHERE n BETWEEN %d AND %d`, n, n+2)
		}
		if _, err := tx.Exec(ctx, sql); err != nil {
			return ignoreCollision(err)
		}
	}
	if rand.IntN(8) == 0 {
		return nil // rolled back
	}
	return ignoreCollision(tx.Commit(ctx))
}

// ignoreCollision returns nil for a deadlock, and for a row that another transaction has inserted.
func ignoreCollision(err error) error {
	var server *pgconn.PgError
	if errors.As(err, &server) && (server.Code == "40P01" || server.Code == "23505") {
		return nil
	}
	return err
}

// tableLines returns the rows of the table as sorted text, printed with the settings of this package.
func (d *database) tableLines() []string {
	d.tb.Helper()
	config := d.config()
	for name, value := range map[string]string{"timezone": "UTC", "datestyle": "ISO, YMD", "intervalstyle": "postgres", "extra_float_digits": "3", "bytea_output": "hex"} {
		config.RuntimeParams[name] = value
	}
	conn, err := pgx.ConnectConfig(context.Background(), config)
	require.NoError(d.tb, err)
	defer func() { _ = conn.Close(context.Background()) }()
	result := conn.PgConn().ExecParams(context.Background(), `SELECT `+columns+` FROM everything`, nil, nil, nil, nil).Read()
	require.NoError(d.tb, result.Err)
	return textLines(result.Rows)
}
