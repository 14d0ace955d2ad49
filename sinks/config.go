package sinks

import (
	"context"
	"fmt"
	"log/slog"
	"time"
)

// ErrorPolicy is what a Relay does with a message that cannot be delivered: the sink refused it with an error that [Permanent] made, a transform
// function failed, or [Config.MaxAttempts] are over.
type ErrorPolicy string

const (
	// Block tries the message again, each [Config.LongestRetry]. Its key waits; when [Config.Window] is full, so does everything.
	Block ErrorPolicy = "block"
	// SetAside gives the message to [Config.SetAside], and goes on with the next one of its key.
	SetAside ErrorPolicy = "set_aside"
	// Stop ends [Relay.Run] with a [*DeliveryError]. The message comes again from the next source, in another relay.
	Stop ErrorPolicy = "stop"
)

// Config is what a [Relay] needs. Source and Sink are required.
type Config struct {
	// Source gives the messages.
	Source Source
	// Sink delivers them.
	Sink Sink
	// Filter reports whether a message is to be delivered. It may be called by several goroutines at once. Default: all are.
	Filter func(m Message) bool
	// Transform returns what is delivered instead of a message. It may be called by several goroutines at once, and must not change the
	// message's Position or Key; maps and slices of the message belong to it. Default: messages are delivered as they are.
	Transform func(ctx context.Context, m Message) (Message, error)
	// BatchSize is how many messages, all of different keys, the sink is given at once. Default: 500.
	BatchSize int
	// Parallelism is how many calls of the sink run at once. Default: 2.
	Parallelism int
	// Window is how many messages may be read and not confirmed. They are kept in memory. Default: 10,000; at least BatchSize.
	Window int
	// WindowBytes bounds the bodies of these messages: no more is read while they have as many bytes. The last page that was read comes on top.
	// Default: 64 MiB.
	WindowBytes int
	// ShortestRetry and LongestRetry bound the delay before a message is tried again. It doubles with each attempt. Defaults: 100
	// milliseconds, 30 seconds.
	ShortestRetry, LongestRetry time.Duration
	// MaxAttempts is how often a message is tried before it cannot be delivered. Default: 0, without end: a system that is away is waited
	// for.
	MaxAttempts int
	// Undeliverable says what to do with a message that cannot be delivered. Default: [Block].
	Undeliverable ErrorPolicy
	// SetAside keeps a message that cannot be delivered, with the reason; it is required with the policy of the same name. It must be
	// idempotent. If it fails, the message is tried again like one that was blocked.
	SetAside func(ctx context.Context, m Message, reason error) error
	// DeliveryTimeout bounds one call of the sink. Default: 30 seconds.
	DeliveryTimeout time.Duration
	// ConfirmInterval is how often the source is confirmed while messages are delivered. Default: 1 second.
	ConfirmInterval time.Duration
	// Logger gets failed deliveries, messages that cannot be delivered, and errors of the source. It never gets a body. Default:
	// [slog.Default].
	Logger *slog.Logger
}

// WithDefaults returns a copy in which what is unset has its default.
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

// InvalidError says which field of a configuration breaks which rule.
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
