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

// cdcBench is a separate database for package cdc, and a connection to it.
type cdcBench struct {
	*bench
	config *pgx.ConnConfig
	conn   *pgx.Conn
}

const cdcName = "bench_cdc"

// cdcFigures compares package cdc with tools of Postgres: pg_recvlogical, COPY, and a bare loop over the protocol.
func cdcFigures(ctx context.Context, b *bench) (_ []figure, err error) {
	if _, err := b.pool.Exec(ctx, "CREATE DATABASE "+cdcName); err != nil {
		return nil, err
	}
	defer func() {
		_, dropErr := b.pool.Exec(context.WithoutCancel(ctx), "DROP DATABASE "+cdcName+" WITH (FORCE)")
		err = errors.Join(err, dropErr)
	}()
	c := &cdcBench{bench: b, config: b.pool.Config().ConnConfig.Copy()}
	c.config.Database = cdcName
	// Changes must be available for decoding at once.
	c.config.RuntimeParams["synchronous_commit"] = "on"
	if c.conn, err = pgx.ConnectConfig(ctx, c.config); err != nil {
		return nil, err
	}
	defer c.conn.Close(ctx) //nolint:errcheck // its database is dropped
	err = c.execAll(ctx, "CREATE TABLE t (id bigint PRIMARY KEY, v text, t timestamptz)", "CREATE PUBLICATION "+cdcName+" FOR ALL TABLES")
	if err != nil {
		return nil, err
	}
	var figures []figure
	for _, measure := range []func(context.Context) ([]figure, error){c.measureThroughput, c.measureWebsocket, c.measureSnapshot, c.measureLatency, c.measureMemory} {
		some, err := measure(ctx)
		if err != nil {
			return nil, err
		}
		figures = append(figures, some...)
	}
	return figures, nil
}

func (c *cdcBench) execAll(ctx context.Context, statements ...string) error {
	for _, sql := range statements {
		if _, err := c.conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}

// withStream calls use with a stream, and then drops the stream's slot.
func (c *cdcBench) withStream(ctx context.Context, use func(*cdc.Stream) error) error {
	s, err := cdc.Open(ctx, cdc.Config{Conn: c.config, Slot: cdcName, Publications: []string{cdcName}, Logger: c.logger})
	if err != nil {
		return err
	}
	err = use(s)
	s.Close()
	return errors.Join(err, c.dropSlot(ctx, cdcName))
}

// dropSlot waits until the reader of the slot has released it, and drops it.
func (c *cdcBench) dropSlot(ctx context.Context, name string) error {
	for {
		err := cdc.DropSlot(ctx, c.conn, name)
		if !errors.Is(err, cdc.ErrSlotBusy) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// measureThroughput reads changes that are already written: half of them in transactions of one, half in transactions of a thousand.
func (c *cdcBench) measureThroughput(ctx context.Context) ([]figure, error) {
	program, err := clientProgram("pg_recvlogical")
	if err != nil {
		fmt.Fprintln(os.Stderr, "  cdc: throughput is not measured:", err)
		return nil, nil
	}
	f := figure{
		Name: "cdc, changes streamed", Unit: "/s", AtLeast: 0.8,
		What: "Stream.Next and all Changes, acknowledged, against pg_recvlogical that writes the same slot content of the same plugin to /dev/null",
	}
	half := c.scaleCount(50_000)
	makeSlot := func() error {
		_, err := cdc.CreateSlot(ctx, c.conn, cdcName, cdc.SlotOptions{})
		return err
	}
	f, err = c.compareWithReceiver(ctx, program, f, half, makeSlot, func() (float64, error) { return c.readAll(ctx, 2*half) })
	return []figure{f}, err
}

// compareWithReceiver measures the rounds of a figure: in each, read and pg_recvlogical read the same content from separate slots, in turns. It does
// not use [compareRates], because writing the content takes longer than reading it.
func (c *cdcBench) compareWithReceiver(ctx context.Context, program string, f figure, half int, makeSlot func() error, read func() (rate float64, err error)) (figure, error) {
	bareSlot := cdcName + "_bare"
	for n := range c.rounds {
		if err := c.execAll(ctx, "TRUNCATE t"); err != nil {
			return f, err
		}
		if err := makeSlot(); err != nil {
			return f, err
		}
		if _, err := cdc.CreateSlot(ctx, c.conn, bareSlot, cdc.SlotOptions{}); err != nil {
			return f, err
		}
		end, err := c.writeContent(ctx, half)
		if err != nil {
			return f, err
		}
		var r round
		sides := []func() error{
			func() (err error) { r.Delta, err = read(); return err },
			func() (err error) { r.Bare, err = c.runReceiver(ctx, program, bareSlot, end, 2*half); return err },
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
	return f.computeMedians(), nil
}

// writeContent writes the changes for both sides, and returns the position of their end.
func (c *cdcBench) writeContent(ctx context.Context, half int) (end string, err error) {
	err = c.execAll(ctx,
		fmt.Sprintf("DO $$ BEGIN FOR i IN 1..%d LOOP INSERT INTO t VALUES (i, md5(i::text), now()); COMMIT; END LOOP; END $$", half),
		fmt.Sprintf(`DO $$ BEGIN FOR i IN 1..%[1]d BY 1000 LOOP
			INSERT INTO t SELECT x, md5(x::text), now() FROM generate_series(%[1]d + i, %[1]d + least(i + 999, %[1]d)) x; COMMIT; END LOOP; END $$`, half))
	if err != nil {
		return "", err
	}
	err = c.conn.QueryRow(ctx, "SELECT pg_current_wal_flush_lsn()::text").Scan(&end)
	return end, err
}

func (c *cdcBench) readAll(ctx context.Context, count int) (rate float64, err error) {
	began := time.Now()
	err = c.withStream(ctx, func(s *cdc.Stream) error {
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

func (c *cdcBench) runReceiver(ctx context.Context, program, slot, end string, count int) (rate float64, err error) {
	command := exec.CommandContext(ctx, program, "-h", c.config.Host, "-p", strconv.Itoa(int(c.config.Port)), "-U", c.config.User, "-d", cdcName, "-w",
		"-S", slot, "--start", "-E", end, "-f", "/dev/null", "-o", "proto_version=1", "-o", "publication_names="+cdcName)
	command.Env = append(os.Environ(), "PGPASSWORD="+c.config.Password)
	began := time.Now()
	if out, err := command.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("pg_recvlogical: %w: %s", err, out)
	}
	return float64(count) / time.Since(began).Seconds(), nil
}

// clientProgram finds a client program of Postgres, on PATH or in Debian's directories.
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

// measureSnapshot measures reading a table.
func (c *cdcBench) measureSnapshot(ctx context.Context) ([]figure, error) {
	f := figure{
		Name: "cdc, snapshot", Unit: " rows/s", AtLeast: 0.6,
		What: "Snapshot.Rows with four connections and pages of 5000 rows, in the order of the key, against COPY t TO STDOUT by one connection, thrown away",
	}
	rows := c.scaleCount(1_000_000) // so that connecting takes a small part of the time
	err := c.execAll(ctx, "TRUNCATE t", fmt.Sprintf("INSERT INTO t SELECT x, md5(x::text), now() FROM generate_series(1, %d) x", rows), "VACUUM ANALYZE t")
	if err != nil {
		return nil, err
	}
	f, err = compareRates(ctx, c.rounds, 2, f, func(ctx context.Context, _ int) (int, time.Duration, error) {
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

// measureMemory measures the peak memory of this process while it reads a transaction of a million rows.
func (c *cdcBench) measureMemory(ctx context.Context) ([]figure, error) {
	f := figure{
		Name: "cdc, memory for one transaction", Unit: " MB", DeltaAtMost: 256,
	}
	rows := c.scaleCount(1_000_000)
	f.What = fmt.Sprintf("what this whole process holds of the system's memory at most while one transaction of %d rows passes, with the default limits", rows)
	var peaks []float64
	for range c.rounds {
		if err := c.execAll(ctx, "TRUNCATE t"); err != nil {
			return nil, err
		}
		if _, err := cdc.CreateSlot(ctx, c.conn, cdcName, cdc.SlotOptions{}); err != nil {
			return nil, err
		}
		if err := c.execAll(ctx, fmt.Sprintf("INSERT INTO t SELECT x, md5(x::text), now() FROM generate_series(1, %d) x", rows)); err != nil {
			return nil, err
		}
		debug.FreeOSMemory()
		peak := watchMemory()
		err := c.withStream(ctx, func(s *cdc.Stream) error {
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
	return []figure{f.withValues(peaks...)}, nil
}

// watchMemory samples the memory of this process until peak is called, which returns the maximum in megabytes.
func watchMemory() (peak func() float64) {
	most, stop, done := 0.0, make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			most = max(most, heldMemoryMB())
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
