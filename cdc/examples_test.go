package cdc_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/internal/cdctest"
)

// The example needs a database, so it is run from here. It prints, so this test is not parallel.
func TestTheExampleDoesWhatItSays(t *testing.T) {
	d := newDatabase(t)
	d.exec(`create table account (id int primary key, balance numeric)`, `insert into account values (1, 10), (2, 20.50)`)
	c := d.config()
	u := url.URL{Scheme: "postgres", User: url.UserPassword(c.User, c.Password), Host: net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port))), Path: "/" + d.name}
	if c.TLSConfig == nil {
		u.RawQuery = "sslmode=disable"
	}
	t.Setenv("DATABASE_URL", u.String())

	reader, writer, err := os.Pipe()
	require.NoError(t, err)
	stdout := os.Stdout
	os.Stdout = writer
	Example()
	os.Stdout = stdout
	require.NoError(t, writer.Close())
	text, err := io.ReadAll(reader)
	require.NoError(t, err)
	require.NoError(t, reader.Close())
	require.Equal(t, "read [1 10]\nread [2 20.50]\nupdate [1] [1 15]\ndelete [2] []\n", string(text))
}

func TestTheExampleOfABackfillGoesOn(t *testing.T) {
	d := newDatabase(t)
	d.exec(`create table account (id int primary key)`, `insert into account select generate_series(1, 12000)`, `create publication accounts for all tables`,
		`select pg_create_logical_replication_slot('accounts', 'pgoutput')`)
	var kept cdc.LSN
	var token string
	rows, crash := 0, errors.New("crash")
	run := func(until int) error {
		fresh := 0
		return copyAccounts(t.Context(), d.config(), kept, token, func(c *cdc.Change) error {
			fresh++
			return nil
		}, func(at cdc.LSN, next string) error {
			if rows+fresh > until {
				return crash
			}
			kept, token, rows, fresh = at, next, rows+fresh, 0
			return nil
		})
	}
	require.ErrorIs(t, run(7000), crash)
	require.Equal(t, 5000, rows)
	err := run(12000)
	// Postgres releases the slot shortly after its reader has closed, and Open itself waits for one second only.
	for end := time.Now().Add(cdctest.Patience); errors.Is(err, cdc.ErrSlotBusy) && time.Now().Before(end); {
		err = run(12000)
	}
	require.NoError(t, err)
	require.Equal(t, 12000, rows)
	require.Contains(t, token, `"done":true`)
}

// rowsSeen is a consumer that stores a position once it has seen all expected rows.
type rowsSeen struct {
	rows map[string]bool
	all  func()
}

func (*rowsSeen) load(context.Context) (cdc.LSN, error) { return 0, nil }

func (r *rowsSeen) apply(_ context.Context, t *cdc.Transaction) error {
	for change, err := range t.Changes() {
		if err != nil {
			return err
		}
		r.rows[change.New[0].Text] = true
	}
	return nil
}

func (r *rowsSeen) save(context.Context, cdc.LSN) error {
	if len(r.rows) == 2 {
		r.all()
	}
	return nil
}

func TestTheExampleOfConsumersThatShareASlot(t *testing.T) {
	d := newDatabase(t)
	d.exec(`create table account (id int primary key)`, `create publication accounts for all tables`,
		`select pg_create_logical_replication_slot('accounts', 'pgoutput')`, `insert into account values (1), (2)`)
	var both sync.WaitGroup
	both.Add(2)
	search, cache := &rowsSeen{map[string]bool{}, sync.OnceFunc(both.Done)}, &rowsSeen{map[string]bool{}, sync.OnceFunc(both.Done)}
	ctx, cancel := context.WithTimeout(t.Context(), cdctest.Patience)
	defer cancel()
	go func() {
		both.Wait()
		cancel()
	}()
	err := shareSlot(ctx, d.config(), search, cache)
	require.ErrorIs(t, ctx.Err(), context.Canceled, "%v", err)
	require.Equal(t, map[string]bool{"1": true, "2": true}, search.rows)
	require.Equal(t, map[string]bool{"1": true, "2": true}, cache.rows)
}
