package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/chariot-giving/delta/cdc"
)

// measureLatency measures the time from the server's commit until the client has the change, at a steady load.
func (c *cdcBench) measureLatency(ctx context.Context) ([]figure, error) {
	const every = 2 * time.Millisecond
	count := c.scaleCount(1000)
	figures := make([]figure, 3)
	shares := []float64{0.5, 0.95, 0.99}
	for i, share := range shares {
		figures[i] = figure{
			Name: fmt.Sprintf("cdc, commit to client, p%g", 100*share), Unit: "ms",
			What: "the server's time of commit until the change is decoded, one commit each 2 ms; bare is a loop that only receives the commit's message",
		}
	}
	for n := range c.rounds {
		if err := c.execAll(ctx, "TRUNCATE t"); err != nil {
			return nil, err
		}
		var sides [2][]float64
		for turn := range sides {
			side := (turn + n) % 2
			read := []func(context.Context, func(), int) ([]float64, error){c.sampleLatencies, c.sampleBareLatencies}[side]
			if _, err := cdc.CreateSlot(ctx, c.conn, cdcName, cdc.SlotOptions{}); err != nil {
				return nil, err
			}
			reading, stop := context.WithCancelCause(ctx)
			begin := func() {
				go func() {
					if err := c.writeSteadily(ctx, side*count, count, every); err != nil {
						stop(err)
					}
				}()
			}
			samples, err := read(reading, begin, count)
			err = errors.Join(err, context.Cause(reading))
			stop(nil)
			if err != nil {
				return nil, err
			}
			if err := c.dropSlot(ctx, cdcName); err != nil && !errors.Is(err, cdc.ErrNotFound) {
				return nil, err
			}
			sides[side] = samples
		}
		for i, share := range shares {
			figures[i].Rounds = append(figures[i].Rounds, round{Delta: computeQuantile(sides[0], share), Bare: computeQuantile(sides[1], share)})
		}
	}
	for i := range figures {
		figures[i] = figures[i].computeMedians()
	}
	return figures, nil
}

// writeSteadily commits one row at each tick of every.
func (c *cdcBench) writeSteadily(ctx context.Context, from, count int, every time.Duration) error {
	conn, err := pgx.ConnectConfig(ctx, c.config)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // everything is committed by then
	tick := time.NewTicker(every)
	defer tick.Stop()
	for i := range count {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if _, err := conn.Exec(ctx, "INSERT INTO t VALUES ($1::bigint, md5($1::bigint::text), now())", from+i); err != nil {
			return err
		}
	}
	return nil
}

func (c *cdcBench) sampleLatencies(ctx context.Context, begin func(), count int) (samples []float64, err error) {
	err = c.withStream(ctx, func(s *cdc.Stream) error {
		begin()
		for len(samples) < count {
			t, err := s.Next(ctx)
			if err != nil {
				return err
			}
			for _, err := range t.Changes() {
				if err != nil {
					return err
				}
				samples = append(samples, sinceCommit(t.CommitTime))
			}
			if err := s.Ack(t.EndLSN); err != nil {
				return err
			}
		}
		return nil
	})
	return samples, err
}

func (c *cdcBench) sampleBareLatencies(ctx context.Context, begin func(), count int) (samples []float64, err error) {
	config := c.config.Config.Copy()
	config.RuntimeParams["replication"] = "database"
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx) //nolint:errcheck // everything is read by then
	err = pglogrepl.StartReplication(ctx, conn, cdcName, 0, pglogrepl.StartReplicationOptions{
		PluginArgs: []string{"proto_version '1'", "publication_names '" + cdcName + "'"},
	})
	if err != nil {
		return nil, err
	}
	begin()
	for len(samples) < count {
		message, err := conn.ReceiveMessage(ctx)
		if err != nil {
			return nil, err
		}
		data, ok := message.(*pgproto3.CopyData)
		const header = 25 // bytes of an XLogData message before the plugin's message
		if !ok || data.Data[0] != pglogrepl.XLogDataByteID || data.Data[header] != 'C' {
			continue
		}
		var commit pglogrepl.CommitMessage
		if err := commit.Decode(data.Data[header+1:]); err != nil {
			return nil, err
		}
		samples = append(samples, sinceCommit(commit.CommitTime))
	}
	return samples, nil
}

func sinceCommit(since time.Time) float64 { return float64(time.Since(since).Microseconds()) / 1000 }
