package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chariot-giving/delta/messagedb"
	"github.com/chariot-giving/delta/sinks"
	"github.com/chariot-giving/delta/sinks/category"
)

// buildCategorySource returns the opener of a category of Message DB. The consumer has the relay's name by default.
func (d *decoder) buildCategorySource(s categorySection, name, field string) opener {
	database := d.parseStore(s.DatabaseURL, s.Schema, s.Category, field)
	config := category.SourceConfig{
		Consumer: messagedb.ConsumerConfig{
			Category: s.Category, Identifier: d.consumerName(s.Consumer, name, field), Polling: messagedb.ExpBackoffPolling(minPolling, maxPolling, 2),
		},
		Prefix: s.IDPrefix,
	}
	d.checkGroup(s.Members, s.Member, field)
	if s.Members > 0 {
		config.Consumer.Group = &messagedb.Group{Member: s.Member, Size: s.Members}
	}
	if s.Restart {
		config.Consumer.Rewind = messagedb.RewindRestart
	}
	return func(ctx context.Context, logger *slog.Logger) (sinks.Source, func(), error) {
		config := config
		client, release, err := openStore(ctx, database, s.Schema, logger)
		if err != nil {
			return nil, nil, err
		}
		config.Client = client
		source, err := category.NewSource(config)
		if err != nil {
			release()
			return nil, nil, err
		}
		return source, release, nil
	}
}

// minPolling and maxPolling limit how often a category without new messages is read.
const (
	minPolling = 50 * time.Millisecond
	maxPolling = time.Second
)

// buildMessageDBSink returns the connector of a category to write to.
func (d *decoder) buildMessageDBSink(s messageDBSection, field string) connector {
	database := d.parseStore(s.DatabaseURL, s.Schema, s.Category, field)
	return func(logger *slog.Logger) (sinks.Sink, func(), error) {
		client, release, err := openStore(context.Background(), database, s.Schema, logger)
		if err != nil {
			return nil, nil, err
		}
		sink, err := category.NewSink(category.SinkConfig{Client: client, Category: s.Category})
		if err != nil {
			release()
			return nil, nil, err
		}
		return sink, release, nil
	}
}

const maxSchema = 63

// parseStore validates the fields that name a category.
func (d *decoder) parseStore(target secret, schema, name, field string) *pgxpool.Config {
	database := d.parseDatabase(target, field+".database_url")
	if len(schema) > maxSchema {
		d.addProblem(field+".schema", "must not be longer than %d bytes", maxSchema)
	}
	d.requireValue(field+".category", name != "")
	var invalid *messagedb.InvalidError
	if _, err := messagedb.NewStreamName(name, "1"); errors.As(err, &invalid) {
		d.addProblemOnce(field+".category", "%s", invalid.Rule)
	}
	return database
}

// openStore creates the client of a message store. It connects at the first use.
func openStore(ctx context.Context, database *pgxpool.Config, schema string, logger *slog.Logger) (*messagedb.Client, func(), error) {
	pool, err := pgxpool.NewWithConfig(ctx, database.Copy())
	if err != nil {
		return nil, nil, err
	}
	client, err := messagedb.NewClient(pool, &messagedb.Config{Schema: schema, Logger: logger})
	if err != nil {
		pool.Close()
		return nil, nil, err
	}
	return client, pool.Close, nil
}
