package cdc_test

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/internal/cdctest"
)

// logText collects log lines.
type logText struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logText) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), text)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (d *database) activePID() int {
	d.tb.Helper()
	return queryValue[int](d, `select coalesce(max(active_pid), 0) from pg_replication_slots where slot_name = $1`, d.name)
}

// The server does not notice the lost connection, because without wal_sender_timeout it never checks.
func TestASlotIsTakenOverFromALostConnection(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.exec(`create table t (id int primary key)`)
	p := d.newProxy()
	log := &logText{}
	s := d.openStream(func(c *cdc.Config) {
		c.Conn.Host, c.Conn.Port = p.Host, p.Port
		c.Conn.RuntimeParams["wal_sender_timeout"] = "0"
		c.Timeout, c.Logger = 2*time.Second, slog.New(slog.NewTextHandler(log, nil))
	})
	d.exec(`insert into t values (1)`)
	transaction, _ := nextTransaction(t, s)
	require.NoError(t, s.Ack(transaction.EndLSN))
	before := d.activePID()
	p.Freeze()
	d.exec(`insert into t values (2)`)
	_, changes := nextTransaction(t, s)
	require.Equal(t, []string{"insert t [2]"}, changes)
	require.NotEqual(t, before, d.activePID())
	require.True(t, log.has("a lost connection of this stream still read the slot"))
}

// A slot that another stream reads is left alone.
func TestASlotIsNotTakenFromAnotherStream(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.exec(`create table t (id int primary key)`)
	p := d.newProxy()
	log := &logText{}
	first := d.openStream(func(c *cdc.Config) {
		c.Conn.Host, c.Conn.Port = p.Host, p.Port
		c.Logger = slog.New(slog.NewTextHandler(log, nil))
	})
	d.exec(`insert into t values (1)`)
	nextTransaction(t, first)
	p.Refuse()
	// Otherwise the second may confirm what the server has read of other databases, and the first finds the slot advanced.
	second := d.openStream(func(c *cdc.Config) { c.OnlyAcknowledged = true })
	reader := d.activePID()
	p.Accept()
	require.Eventually(t, func() bool { return log.has("the slot is in use") }, cdctest.Patience, time.Millisecond, "%s", log)
	require.Equal(t, reader, d.activePID())
	d.exec(`insert into t values (2)`)
	_, changes := nextTransaction(t, second)
	require.Equal(t, []string{"insert t [1]"}, changes)
	_, changes = nextTransaction(t, second)
	require.Equal(t, []string{"insert t [2]"}, changes)
	require.Equal(t, reader, d.activePID())
	require.False(t, log.has("terminated"))
}
