package sinks

import (
	"context"
	"fmt"
	"log/slog"
	"time"
)

// ErrorPolicy decides about a message that cannot be delivered: the sink refused it with an error marked by [Permanent], a transform
// function failed, or it has failed [Config.MaxAttempts] times.
type ErrorPolicy string

const (
	// Block tries the message again, every [Config.LongestRetry]. Its key waits; when [Config.Window] is full, everything does.
	Block ErrorPolicy = "block"
	// SetAside passes the message to [Config.SetAside], and continues with the next message of its key.
	SetAside ErrorPolicy = "set_aside"
	// Stop ends [Relay.Run] with a [*DeliveryError]. Another relay, with a new source, gets the message again.
	Stop ErrorPolicy = "stop"
)

// Config configures a [Relay]. Source and Sink are required.
type Config struct {
	// Source gives the messages.
	Source Source
	// Sink delivers them.
	Sink Sink
	// Filter reports whether a message is to be delivered. It may be called concurrently. Default: all are delivered.
	Filter func(m Message) bool
	// Transform returns the message to deliver instead. It may be called concurrently, may change the maps and slices of the message, and
	// must not change its Position or Key. Default: messages are delivered as they are.
	Transform func(ctx context.Context, m Message) (Message, error)
	// BatchSize is how many messages, all of different keys, one call of the sink gets at most. Default: 500.
	BatchSize int
	// Parallelism is how many calls of the sink run at once. Default: 2.
	Parallelism int
	// Window is how many messages may be read and not confirmed. They are kept in memory. Default: 10,000; at least BatchSize.
	Window int
	// WindowBytes limits the bodies of these messages: the source is not read while they have as many bytes. They may exceed it by the last
	// page that was read. Default: 64 MiB.
	WindowBytes int
	// ShortestRetry and LongestRetry limit the delay before a message is tried again. It doubles with each attempt. Defaults: 100
	// milliseconds, 30 seconds.
	ShortestRetry, LongestRetry time.Duration
	// MaxAttempts is how often a message is tried before Undeliverable applies. Default: 0, no limit, because a system that is away may
	// return.
	MaxAttempts int
	// Undeliverable is the policy for a message that cannot be delivered. Default: [Block].
	Undeliverable ErrorPolicy
	// SetAside stores a message that cannot be delivered, with the reason. It is required with the policy of the same name, and must be
	// idempotent. If it fails, the message is tried again as with [Block].
	SetAside func(ctx context.Context, m Message, reason error) error
	// DeliveryTimeout limits one call of the sink. Default: 30 seconds.
	DeliveryTimeout time.Duration
	// ConfirmInterval is how often the source is confirmed while messages are delivered. Default: 1 second.
	ConfirmInterval time.Duration
	// Logger gets failed deliveries, messages that cannot be delivered, and errors of the source. It never gets a body. Default:
	// [slog.Default].
	Logger *slog.Logger
}

// WithDefaults returns a copy in which every zero field has its default.
func (c Config) WithDefaults() Config {
	setDefault(&c.BatchSize, 500)
	setDefault(&c.Parallelism, 2)
	setDefault(&c.Window, max(10_000, c.BatchSize))
	setDefault(&c.WindowBytes, 64<<20)
	setDefault(&c.ShortestRetry, 100*time.Millisecond)
	setDefault(&c.LongestRetry, max(30*time.Second, c.ShortestRetry))
	setDefault(&c.Undeliverable, Block)
	setDefault(&c.DeliveryTimeout, 30*time.Second)
	setDefault(&c.ConfirmInterval, time.Second)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (c Config) validate() error {
	for _, rule := range []struct {
		field  string
		value  any
		broken bool
		rule   string
	}{
		{"Source", c.Source, c.Source == nil, "is required"},
		{"Sink", c.Sink, c.Sink == nil, "is required"},
		{"BatchSize", c.BatchSize, c.BatchSize < 1, "must be positive"},
		{"Parallelism", c.Parallelism, c.Parallelism < 1, "must be positive"},
		{"Window", c.Window, c.Window < c.BatchSize, fmt.Sprintf("must be at least BatchSize, %d", c.BatchSize)},
		{"WindowBytes", c.WindowBytes, c.WindowBytes < 1, "must be positive"},
		{"ShortestRetry", c.ShortestRetry, c.ShortestRetry < 0, "must be positive"},
		{"LongestRetry", c.LongestRetry, c.LongestRetry < c.ShortestRetry, fmt.Sprintf("must be at least ShortestRetry, %s", c.ShortestRetry)},
		{"MaxAttempts", c.MaxAttempts, c.MaxAttempts < 0, "must not be negative"},
		{
			"Undeliverable", c.Undeliverable, c.Undeliverable != Block && c.Undeliverable != SetAside && c.Undeliverable != Stop,
			"must be block, set_aside or stop",
		},
		{"SetAside", nil, c.Undeliverable == SetAside && c.SetAside == nil, "is required where Undeliverable is set_aside"},
		{"DeliveryTimeout", c.DeliveryTimeout, c.DeliveryTimeout < 0, "must be positive"},
		{"ConfirmInterval", c.ConfirmInterval, c.ConfirmInterval < 0, "must be positive"},
	} {
		if rule.broken {
			return &InvalidError{Field: rule.field, Value: fmt.Sprint(rule.value), Rule: rule.rule}
		}
	}
	return nil
}

// InvalidError says which field of a configuration violates which rule.
type InvalidError struct{ Field, Value, Rule string }

func (e *InvalidError) Error() string {
	return fmt.Sprintf("sinks: %s %s, and is %s", e.Field, e.Rule, e.Value)
}

// DeliveryError says which message could not be delivered, and why.
type DeliveryError struct {
	Message  Message
	Attempts int
	Err      error
}

func (e *DeliveryError) Error() string {
	return fmt.Sprintf("sinks: message %s of %s cannot be delivered after %d attempts: %s", e.Message.ID, e.Message.Subject, e.Attempts, e.Err)
}

func (e *DeliveryError) Unwrap() error { return e.Err }
