package cdc

import (
	"slices"
	"time"
)

// FanoutConfig configures [OpenFanout].
type FanoutConfig struct {
	// Config configures the stream. OnlyAcknowledged is always set. Temporary must be false.
	Config
	// Consumers are the names of the consumers: 1 to 100 names of 1 to 63 bytes. Each consumer has a separate position.
	// The slot keeps what one of them has not acknowledged, even while it is detached. A name that is left out after a
	// restart is forgotten.
	Consumers []string
	// BufferLimit bounds the memory for changes that a consumer has not read or not acknowledged, in bytes. The
	// stream's own memory (MemoryLimit) is not included. Default: 64 MiB; at least 64 KiB.
	BufferLimit int64
	// SlowConsumerTimeout is how long a full buffer may block a waiting consumer because another one is behind or
	// detached. After that the slow consumer is cut: it has to start over, and the others continue. Default: 10
	// seconds. Negative: cut at once.
	SlowConsumerTimeout time.Duration
}

// The fields of [FanoutConfig] that can be wrong.
const (
	FieldConsumers   Field = "Consumers"
	FieldBufferLimit Field = "BufferLimit"
)

const (
	defaultSlowConsumerTimeout = 10 * time.Second
	maxConsumers               = 100
)

// WithDefaults returns a copy in which each zero field has its default.
func (c FanoutConfig) WithDefaults() FanoutConfig {
	c.Config = c.Config.WithDefaults()
	c.OnlyAcknowledged = true
	setDefault(&c.BufferLimit, 64<<20)
	setDefault(&c.SlowConsumerTimeout, defaultSlowConsumerTimeout)
	return c
}

func (c *FanoutConfig) validate() error {
	if len(c.Consumers) == 0 || len(c.Consumers) > maxConsumers {
		return newInvalidError(FieldConsumers, len(c.Consumers), "1 to 100 names")
	}
	for i, name := range c.Consumers {
		if err := validateName(FieldConsumers, name); err != nil {
			return err
		}
		if slices.Contains(c.Consumers[:i], name) {
			return newInvalidError(FieldConsumers, name, "each name once")
		}
	}
	switch {
	case c.Temporary:
		return newInvalidError(FieldSlot, c.Slot, "a slot that is not temporary")
	case c.BufferLimit < 64<<10:
		return newInvalidError(FieldBufferLimit, c.BufferLimit, "at least 65536 bytes")
	}
	return nil
}
