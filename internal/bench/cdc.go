package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chariot-giving/delta/cdc"
)

// changes is a database of its own for package cdc, and a connection to it.
type changes struct {
	*bench
	config *pgx.ConnConfig
	conn   *pgx.Conn
}

const cdcName = "bench_cdc"

// cdcFigures compares package cdc with what comes with Postgres: pg_recvlogical, COPY, and a bare loop over the protocol.
func cdcFigures(ctx context.Context, b *bench) (_ []figure, err error) {
	if _, err := b.pool.Exec(ctx, "CREATE DATABASE "+cdcName); err != nil {
		return nil, err
	}
	defer func() {
		_, dropErr := b.pool.Exec(context.WithoutCancel(ctx), "DROP DATABASE "+cdcName+" WITH (FORCE)")
		err = errors.Join(err, dropErr)
	}()
	c := &changes{bench: b, config: b.pool.Config().ConnConfig.Copy()}
	c.config.Database = cdcName
	// What is written is to be there for decoding at once.
	c.config.RuntimeParams["synchronous_commit"] = "on"
	if c.conn, err = pgx.ConnectConfig(ctx, c.config); err != nil {
		return nil, err
	}
	defer c.conn.Close(ctx) //nolint:errcheck // its database is dropped
	err = c.exec(ctx, "CREATE TABLE t (id bigint PRIMARY KEY, v text, t timestamptz)", "CREATE PUBLICATION "+cdcName+" FOR ALL TABLES")
	if err != nil {
		return nil, err
	}
	var figures []figure
	for _, measure := range []func(context.Context) ([]figure, error){c.throughput, c.websocket, c.snapshot, c.latency, c.memory} {
		some, err := measure(ctx)
		if err != nil {
			return nil, err
		}
		figures = append(figures, some...)
	}
	return figures, nil
}

func (c *changes) exec(ctx context.Context, statements ...string) error {
	for _, sql := range statements {
		if _, err := c.conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}

// streaming gives a stream to a function, and drops its slot.
func (c *changes) streaming(ctx context.Context, use func(*cdc.Stream) error) error {
	s, err := cdc.Open(ctx, cdc.Config{Conn: c.config, Slot: cdcName, Publications: []string{cdcName}, Logger: c.logger})
	if err != nil {
		return err
	}
	err = use(s)
	s.Close()
	return errors.Join(err, c.dropSlot(ctx, cdcName))
}

// dropSlot waits until its reader has let go of it.
func (c *changes) dropSlot(ctx context.Context, name string) error {
	for {
		err := cdc.DropSlot(ctx, c.conn, name)
		if !errors.Is(err, cdc.ErrSlotBusy) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// throughput reads what is there: half of the changes in transactions of one, half in transactions of a thousand.
func (c *changes) throughput(ctx context.Context) ([]figure, error) {
	program, err := clientProgram("pg_recvlogical")
	if err != nil {
		fmt.Fprintln(os.Stderr, "  cdc: throughput is not measured:", err)
		return nil, nil
	}
	f := figure{
		Name: "cdc, changes streamed", Unit: "/s", AtLeast: 0.8,
		What: "Stream.Next and all Changes, acknowledged, against pg_recvlogical that writes the same slot content of the same plugin to /dev/null",
	}
	half := c.scaled(50_000)
	makeSlot := func() error {
		_, err := cdc.CreateSlot(ctx, c.conn, cdcName, cdc.SlotOptions{})
		return err
	}
	f, err = c.besideReceiver(ctx, program, f, half, makeSlot, func() (float64, error) { return c.readAll(ctx, 2*half) })
	return []figure{f}, err
}

// besideReceiver fills the rounds of a figure: in each, read and pg_recvlogical read the same content from slots of their own, in
// turns. It is not [compare], because to write the content takes longer than to read it.
func (c *changes) besideReceiver(ctx context.Context, program string, f figure, half int, makeSlot func() error, read func() (rate float64, err error)) (figure, error) {
	bareSlot := cdcName + "_bare"
	for n := range c.rounds {
		if err := c.exec(ctx, "TRUNCATE t"); err != nil {
			return f, err
		}
		if err := makeSlot(); err != nil {
			return f, err
		}
		if _, err := cdc.CreateSlot(ctx, c.conn, bareSlot, cdc.SlotOptions{}); err != nil {
			return f, err
		}
		end, err := c.content(ctx, half)
		if err != nil {
			return f, err
		}
		var r round
		sides := []func() error{
			func() (err error) { r.Delta, err = read(); return err },
			func() (err error) { r.Bare, err = c.receive(ctx, program, bareSlot, end, 2*half); return err },
		}
		if n%2 == 1 {
			slices.Reverse(sides)
		}
		for _, side := range sides {
			if err := side(); err != nil {
				return f, err
			}
		}
		if err := c.dropSlot(ctx, bareSlot); err != nil {
			return f, err
		}
		f.Rounds = append(f.Rounds, r)
	}
	return f.settle(), nil
}

// content writes what both sides read, and says where it ends.
func (c *changes) content(ctx context.Context, half int) (end string, err error) {
	err = c.exec(ctx,
		fmt.Sprintf("DO $$ BEGIN FOR i IN 1..%d LOOP INSERT INTO t VALUES (i, md5(i::text), now()); COMMIT; END LOOP; END $$", half),
		fmt.Sprintf(`DO $$ BEGIN FOR i IN 1..%[1]d BY 1000 LOOP
			INSERT INTO t SELECT x, md5(x::text), now() FROM generate_series(%[1]d + i, %[1]d + least(i + 999, %[1]d)) x; COMMIT; END LOOP; END $$`, half))
	if err != nil {
		return "", err
	}
	err = c.conn.QueryRow(ctx, "SELECT pg_current_wal_flush_lsn()::text").Scan(&end)
	return end, err
}

func (c *changes) readAll(ctx context.Context, count int) (rate float64, err error) {
	began := time.Now()
	err = c.streaming(ctx, func(s *cdc.Stream) error {
		for n := 0; n < count; {
			t, err := s.Next(ctx)
			if err != nil {
				return err
			}
			for _, err := range t.Changes() {
				if err != nil {
					return err
				}
				n++
			}
			if err := s.Ack(t.EndLSN); err != nil {
				return err
			}
		}
		rate = float64(count) / time.Since(began).Seconds()
		return nil
	})
	return rate, err
}

func (c *changes) receive(ctx context.Context, program, slot, end string, count int) (rate float64, err error) {
	command := exec.CommandContext(ctx, program, "-h", c.config.Host, "-p", strconv.Itoa(int(c.config.Port)), "-U", c.config.User, "-d", cdcName, "-w",
		"-S", slot, "--start", "-E", end, "-f", "/dev/null", "-o", "proto_version=1", "-o", "publication_names="+cdcName)
	command.Env = append(os.Environ(), "PGPASSWORD="+c.config.Password)
	began := time.Now()
	if out, err := command.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("pg_recvlogical: %w: %s", err, out)
	}
	return float64(count) / time.Since(began).Seconds(), nil
}

// clientProgram finds a program of Postgres, which need not be on the path.
func clientProgram(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if err != nil || len(found) == 0 {
		return "", errors.Join(err, fmt.Errorf("there is no %s on the path or in /usr/lib/postgresql", name))
	}
	return found[len(found)-1], nil
}

// snapshot reads a table.
func (c *changes) snapshot(ctx context.Context) ([]figure, error) {
	f := figure{
		Name: "cdc, snapshot", Unit: " rows/s", AtLeast: 0.6,
		What: "Snapshot.Rows with four connections and pages of 5000 rows, in the order of the key, against COPY t TO STDOUT by one connection, thrown away",
	}
	rows := c.scaled(1_000_000) // so that the making of connections is a small part of it
	err := c.exec(ctx, "TRUNCATE t", fmt.Sprintf("INSERT INTO t SELECT x, md5(x::text), now() FROM generate_series(1, %d) x", rows), "VACUUM ANALYZE t")
	if err != nil {
		return nil, err
	}
	f, err = compare(ctx, c.rounds, 2, f, func(ctx context.Context, _ int) (int, time.Duration, error) {
		s, err := cdc.CreateSnapshot(ctx, cdc.SnapshotConfig{Conn: c.config, Slot: cdcName, PageSize: 5000})
		if err != nil {
			return 0, 0, err
		}
		began, n := time.Now(), 0
		for _, err := range s.Rows(ctx, "public", "t") {
			if err != nil {
				return 0, 0, err
			}
			n++
		}
		took := time.Since(began)
		s.Close()
		if n != rows {
			return 0, 0, fmt.Errorf("%d rows were read, not %d", n, rows)
		}
		return n, took, c.dropSlot(ctx, cdcName)
	}, func(ctx context.Context, _ int) (int, time.Duration, error) {
		began := time.Now()
		tag, err := c.conn.PgConn().CopyTo(ctx, io.Discard, "COPY t TO STDOUT")
		return int(tag.RowsAffected()), time.Since(began), err
	})
	return []figure{f}, err
}

// memory is the most that this process takes from the system while a transaction of a million rows passes.
func (c *changes) memory(ctx context.Context) ([]figure, error) {
	f := figure{
		Name: "cdc, memory for one transaction", Unit: " MB", DeltaAtMost: 256,
	}
	rows := c.scaled(1_000_000)
	f.What = fmt.Sprintf("what this whole process holds of the system's memory at most while one transaction of %d rows passes, with the default limits", rows)
	var peaks []float64
	for range c.rounds {
		if err := c.exec(ctx, "TRUNCATE t"); err != nil {
			return nil, err
		}
		if _, err := cdc.CreateSlot(ctx, c.conn, cdcName, cdc.SlotOptions{}); err != nil {
			return nil, err
		}
		if err := c.exec(ctx, fmt.Sprintf("INSERT INTO t SELECT x, md5(x::text), now() FROM generate_series(1, %d) x", rows)); err != nil {
			return nil, err
		}
		debug.FreeOSMemory()
		peak := watchMemory()
		err := c.streaming(ctx, func(s *cdc.Stream) error {
			t, err := s.Next(ctx)
			if err != nil {
				return err
			}
			n := 0
			for _, err := range t.Changes() {
				if err != nil {
					return err
				}
				n++
			}
			if n != rows {
				return fmt.Errorf("%d rows came, not %d", n, rows)
			}
			return s.Ack(t.EndLSN)
		})
		most := peak()
		if err != nil {
			return nil, err
		}
		peaks = append(peaks, most)
	}
	return []figure{f.alone(peaks...)}, nil
}

// watchMemory looks at it until the function it returns is called, which says the most it saw, in megabytes.
func watchMemory() (peak func() float64) {
	most, stop, done := 0.0, make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			most = max(most, heldMB())
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	return func() float64 {
		close(stop)
		<-done
		return most
	}
}
