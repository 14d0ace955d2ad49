package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/chariot-giving/delta/sinks"
)

// relay is a relay of a file. config has everything but the source, the sink and the logger, which are created when it runs.
type relay struct {
	name, sourceType, sinkType string
	config                     sinks.Config
	// open opens the source after the last confirmed message. release closes the source's connections.
	open func(ctx context.Context, logger *slog.Logger) (source sinks.Source, release func(), err error)
	// connect creates the sink, which waits for a system that is away.
	connect func(logger *slog.Logger) (sink sinks.Sink, release func(), err error)
}

var relayNamePattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,126}$`)

// buildRelays returns the relays of a file, and adds a problem for each broken rule.
func (d *decoder) buildRelays(f file) (relays []*relay) {
	if len(f.Relays) == 0 {
		d.addProblemOnce("relays", "must have at least one relay")
	}
	names, files := map[string]bool{}, map[string]bool{}
	for i, section := range f.Relays {
		field := fmt.Sprintf("relays[%d]", i)
		switch {
		case !relayNamePattern.MatchString(section.Name):
			d.addProblemOnce(field+".name", "must be letters, digits, '_', '-' and '.', at most 127, and not start with '-' or '.'")
		case names[section.Name]:
			d.addProblem(field+".name", "is that of another relay: %s", section.Name)
		}
		names[section.Name] = true
		if kept := section.Undeliverable.File; kept != "" {
			if files[kept] {
				d.addProblem(field+".undeliverable.file", "is that of another relay")
			}
			files[kept] = true
		}
		relays = append(relays, d.buildRelay(section, field))
	}
	return relays
}

func (d *decoder) buildRelay(s relaySection, field string) *relay {
	r := &relay{name: s.Name}
	r.sourceType = d.findOnlyOne(field+".source", map[string]bool{
		"stream": s.Source.Stream != nil, "log": s.Source.Log != nil, "messagedb": s.Source.MessageDB != nil,
	})
	at := field + ".source." + r.sourceType
	switch {
	case r.sourceType == "":
	case s.Source.Stream != nil:
		r.open = d.buildStreamSource(*s.Source.Stream, at)
	case s.Source.Log != nil:
		r.open = d.buildLogSource(*s.Source.Log, s.Name, s.Filter.Kinds, at)
	case s.Source.MessageDB != nil:
		r.open = d.buildCategorySource(*s.Source.MessageDB, s.Name, at)
	}
	r.sinkType = d.findOnlyOne(field+".sink", map[string]bool{
		"webhook": s.Sink.Webhook != nil, "nats": s.Sink.NATS != nil, "kafka": s.Sink.Kafka != nil, "redis": s.Sink.Redis != nil, "messagedb": s.Sink.MessageDB != nil,
	})
	at = field + ".sink." + r.sinkType
	switch {
	case r.sinkType == "":
	case s.Sink.Webhook != nil:
		r.connect = d.buildWebhookSink(*s.Sink.Webhook, at)
	case s.Sink.NATS != nil:
		r.connect = d.buildNATSSink(*s.Sink.NATS, s.Name, at)
	case s.Sink.Kafka != nil:
		r.connect = d.buildKafkaSink(*s.Sink.Kafka, at)
	case s.Sink.Redis != nil:
		r.connect = d.buildRedisSink(*s.Sink.Redis, at)
	case s.Sink.MessageDB != nil:
		r.connect = d.buildMessageDBSink(*s.Sink.MessageDB, at)
	}
	r.config = sinks.Config{
		Filter: d.buildFilter(s.Filter, r.sourceType, field+".filter"), BatchSize: s.Limits.BatchSize, Parallelism: s.Limits.Parallelism, Window: s.Limits.Window,
		WindowBytes: s.Limits.WindowBytes, ConfirmInterval: s.Limits.ConfirmInterval, ShortestRetry: s.Retry.Shortest, LongestRetry: s.Retry.Longest,
		MaxAttempts: s.Retry.MaxAttempts, DeliveryTimeout: s.Retry.Timeout, Undeliverable: sinks.ErrorPolicy(s.Undeliverable.Policy),
		SetAside: d.buildSetAside(s, field+".undeliverable"),
	}
	d.validateConfig(r.config, field)
	return r
}

// findOnlyOne returns the one field that is set.
func (d *decoder) findOnlyOne(field string, set map[string]bool) (one string) {
	names := slices.Sorted(maps.Keys(set))
	for _, name := range names {
		if !set[name] {
			continue
		}
		if one != "" {
			d.addProblemOnce(field, "must have one of %s, and has %s and %s", strings.Join(names, ", "), one, name)
			return ""
		}
		one = name
	}
	if one == "" {
		d.addProblemOnce(field, "must have one of %s", strings.Join(names, ", "))
	}
	return one
}

// addProblemOnce adds a problem of a field, unless the field or a part of it has one already: a value that could not be read is also
// missing.
func (d *decoder) addProblemOnce(field, format string, args ...any) {
	for _, p := range d.problems {
		if isWithin(p.field, field) {
			return
		}
	}
	d.addProblem(field, format, args...)
}

// isWithin reports whether a field is another one, or a part of it.
func isWithin(field, other string) bool {
	rest, found := strings.CutPrefix(field, other)
	return found && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

// requireValue adds a problem if a field has no value.
func (d *decoder) requireValue(field string, isSet bool) {
	if !isSet {
		d.addProblemOnce(field, "is required")
	}
}

// configFields maps the fields of a relay's configuration to their names in the file.
var configFields = map[string]string{
	"BatchSize": "limits.batch_size", "Parallelism": "limits.parallelism", "Window": "limits.window", "WindowBytes": "limits.window_bytes",
	"ConfirmInterval": "limits.confirm_interval", "ShortestRetry": "retry.shortest", "LongestRetry": "retry.longest", "MaxAttempts": "retry.max_attempts",
	"DeliveryTimeout": "retry.timeout", "Undeliverable": "undeliverable.policy", "SetAside": "undeliverable.file",
}

// validateConfig validates with the package sinks, and adds its error with the names of the file.
func (d *decoder) validateConfig(config sinks.Config, field string) {
	config.Source, config.Sink = noSource{}, sinks.SinkFunc(func(context.Context, []sinks.Message) []error { return nil })
	_, err := sinks.NewRelay(config)
	d.addInvalid(err, field, configFields)
}

// addInvalid adds an error of the package sinks about a field.
func (d *decoder) addInvalid(err error, field string, names map[string]string) {
	var invalid *sinks.InvalidError
	if !errors.As(err, &invalid) {
		return
	}
	name, index, _ := strings.Cut(invalid.Field, "[")
	if index != "" {
		index = "[" + index
	}
	rule := invalid.Rule
	for ours, its := range names {
		rule = strings.ReplaceAll(rule, ours, its)
	}
	d.addProblemOnce(field+"."+names[name]+index, "%s", rule)
}

// noSource stands for a source that is opened later.
type noSource struct{}

func (noSource) Next(context.Context, int) ([]sinks.Message, error) {
	return nil, errors.New("no source")
}
func (noSource) Confirm(context.Context, any) error { return nil }

// buildSetAside returns the function that stores messages that cannot be delivered, nil if the policy is another one.
func (d *decoder) buildSetAside(s relaySection, field string) func(context.Context, sinks.Message, error) error {
	kept := s.Undeliverable.File
	if (kept != "") != (sinks.ErrorPolicy(s.Undeliverable.Policy) == sinks.SetAside) {
		if kept == "" {
			d.addProblemOnce(field+".file", "is required where the policy is set_aside")
		} else {
			d.addProblem(field+".file", "is for the policy set_aside only")
		}
		return nil
	}
	if kept == "" {
		return nil
	}
	if info, err := os.Stat(filepath.Dir(kept)); err != nil || !info.IsDir() {
		d.addProblem(field+".file", "must be in a folder that exists, and is %q", kept)
	}
	return (&setAsideFile{path: kept, relay: s.Name}).appendMessage
}
