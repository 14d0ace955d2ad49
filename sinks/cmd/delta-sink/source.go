package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/sinks"
	"github.com/chariot-giving/delta/sinks/changelog"
)

// connectPatience is how long Postgres may take to accept a connection, unless the URL says otherwise.
const connectPatience = 10 * time.Second

// opener opens the source of a relay.
type opener = func(ctx context.Context, logger *slog.Logger) (sinks.Source, func(), error)

// parseDatabase parses a URL. No problem shows it, because it has a password.
func (d *decoder) parseDatabase(target secret, field string) *pgxpool.Config {
	d.requireValue(field, target != "")
	config, err := pgxpool.ParseConfig(string(target))
	if err != nil {
		d.addProblemOnce(field, "must be as postgres://user:password@host:5432/database")
		return nil
	}
	if config.ConnConfig.ConnectTimeout == 0 {
		config.ConnConfig.ConnectTimeout = connectPatience
	}
	return config
}

var slotNamePattern = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)

// buildStreamSource returns the opener of the changes of a slot.
func (d *decoder) buildStreamSource(s streamSection, field string) opener {
	database := d.parseDatabase(s.DatabaseURL, field+".database_url")
	d.requireValue(field+".slot", s.Slot != "")
	if !slotNamePattern.MatchString(s.Slot) {
		d.addProblemOnce(field+".slot", "must be 1 to 63 of the characters a-z, 0-9 and _")
	}
	d.requireValue(field+".publications", len(s.Publications) > 0)
	prefix := s.IDPrefix
	if prefix == "" {
		prefix = s.Slot
	}
	return func(ctx context.Context, logger *slog.Logger) (sinks.Source, func(), error) {
		stream, err := cdc.Open(ctx, cdc.Config{
			Conn: database.ConnConfig, Slot: s.Slot, Publications: s.Publications, OnlyAcknowledged: true, SchemaChanges: s.SchemaChanges, Logger: logger,
		})
		if err != nil {
			return nil, nil, err
		}
		return sinks.NewStreamSource(stream, sinks.StreamConfig{Name: prefix, Keys: s.Keys}), stream.Close, nil
	}
}

// buildLogSource returns the opener of the log of changes. The consumer has the relay's name by default.
func (d *decoder) buildLogSource(s logSection, name string, kinds []string, field string) opener {
	database := d.parseDatabase(s.DatabaseURL, field+".database_url")
	consumer := delta.ChangeConsumer{Name: d.consumerName(s.Consumer, name, field), Members: s.Members, Member: s.Member, Kinds: kinds, Restart: s.Restart}
	d.checkGroup(s.Members, s.Member, field)
	return func(ctx context.Context, logger *slog.Logger) (sinks.Source, func(), error) {
		pool, err := pgxpool.NewWithConfig(ctx, database.Copy())
		if err != nil {
			return nil, nil, err
		}
		// The client only reads the log and is never started, so it needs no Temporal.
		client, err := delta.NewClient(pool, &delta.Config{Logger: logger})
		if err != nil {
			pool.Close()
			return nil, nil, err
		}
		release := func() {
			stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), connectPatience)
			defer cancel()
			_ = client.Stop(stopping)
			pool.Close()
		}
		source, err := changelog.New(changelog.Config{Client: client, Consumer: consumer, Prefix: s.IDPrefix})
		if err != nil {
			release()
			return nil, nil, err
		}
		return source, release, nil
	}
}

// consumerName returns the name under which the position is saved: the relay's, unless the file has one.
func (d *decoder) consumerName(consumer, relay, field string) string {
	if consumer == "" {
		return relay
	}
	if !relayNamePattern.MatchString(consumer) {
		d.addProblemOnce(field+".consumer", "must be letters, digits, '_', '-' and '.', at most 127, and not start with '-' or '.'")
	}
	return consumer
}

func (d *decoder) checkGroup(members, member int, field string) {
	if members < 0 || members > 1000 {
		d.addProblemOnce(field+".members", "must be between 1 and 1000")
	}
	if member < 0 || member > 0 && member >= max(members, 1) {
		d.addProblemOnce(field+".member", "must be between 0 and one less than members")
	}
}

// messageTypes are the types of messages of each source. A category has messages of any type.
var messageTypes = map[string][]string{
	"stream": {
		string(cdc.KindInsert), string(cdc.KindUpdate), string(cdc.KindDelete), string(cdc.KindTruncate), string(cdc.KindMessage), string(cdc.KindSchema),
	},
	"log": {
		string(delta.ChangeCreated), string(delta.ChangeUpdated), string(delta.ChangeFailed), string(delta.ChangeDeleted), string(delta.ChangeFinalized),
		string(delta.ChangeRevived),
	},
}

// buildFilter returns the function of a filter, nil if all messages are wanted.
func (d *decoder) buildFilter(f filterSection, source, field string) func(sinks.Message) bool {
	for _, of := range []struct {
		name, source string
		isSet        bool
	}{
		{"tables", "stream", f.Tables != nil}, {"kinds", "log", f.Kinds != nil}, {"namespaces", "log", f.Namespaces != nil},
	} {
		if of.isSet && source != "" && source != of.source {
			d.addProblem(field+"."+of.name, "is for the source %s only", of.source)
		}
	}
	for _, list := range []struct {
		name   string
		values []string
	}{{"tables", f.Tables}, {"kinds", f.Kinds}, {"namespaces", f.Namespaces}, {"types", f.Types}} {
		if list.values != nil && len(list.values) == 0 {
			d.addProblemOnce(field+"."+list.name, "must have at least one value, or be left out")
		}
		if i := slices.Index(list.values, ""); i >= 0 {
			d.addProblemOnce(indexedField(field+"."+list.name, i), "must not be empty")
		}
	}
	for i, pattern := range f.Tables {
		if _, err := cdc.MatchTable(pattern, ""); err != nil {
			d.addProblem(indexedField(field+".tables", i), "must be schema.table, or a pattern of *, ?, [a-z] and other characters, and is %q", pattern)
		}
	}
	for i, name := range f.Types {
		if messageTypes[source] != nil && !slices.Contains(messageTypes[source], name) {
			d.addProblemOnce(indexedField(field+".types", i), "must be one of %s, and is %q", strings.Join(messageTypes[source], ", "), name)
		}
	}
	if f.Tables == nil && f.Kinds == nil && f.Namespaces == nil && f.Types == nil {
		return nil
	}
	return func(m sinks.Message) bool {
		return (f.Types == nil || slices.Contains(f.Types, m.Type)) && (f.Kinds == nil || slices.Contains(f.Kinds, m.Subject)) &&
			(f.Tables == nil || isOfTables(m, f.Tables)) && (f.Namespaces == nil || slices.Contains(f.Namespaces, namespaceOf(m)))
	}
}

// isOfTables reports whether a message of a stream is about one of the tables. A logical message is about none.
func isOfTables(m sinks.Message, patterns []string) bool {
	return m.Type != string(cdc.KindMessage) && slices.ContainsFunc(patterns, func(pattern string) bool {
		matches, err := cdc.MatchTable(pattern, m.Subject)
		return err == nil && matches // the pattern was validated before
	})
}

// namespaceOf reads the namespace from the body of an entry of the log.
func namespaceOf(m sinks.Message) string {
	var entry struct {
		Namespace string `json:"namespace"`
	}
	if err := json.Unmarshal(m.Body, &entry); err != nil {
		panic(err) // the relay turns it into an error, so the message is neither delivered nor silently filtered
	}
	return entry.Namespace
}
