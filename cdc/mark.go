package cdc

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
)

// The prefixes of the messages that this package writes into the log itself. They are never delivered.
const (
	prefixMark      = "delta_watermark"
	prefixHeartbeat = "delta_heartbeat"
)

// mark is a position that a [Backfill] has written into the log: the low one before a chunk is read, the high one after it.
type mark struct {
	backfill string
	chunk    uint64
	high     bool
}

func (m mark) String() string {
	side := "low"
	if m.high {
		side = "high"
	}
	return fmt.Sprintf("%s %d %s", m.backfill, m.chunk, side)
}

// parseMark reads what String makes. Anybody can write messages, so that anything else is only no mark.
func parseMark(s string) (m mark, ok bool) {
	parts := strings.Split(s, " ")
	if len(parts) != 3 || parts[2] != "low" && parts[2] != "high" {
		return m, false
	}
	chunk, err := strconv.ParseUint(parts[1], 10, 64)
	return mark{backfill: parts[0], chunk: chunk, high: parts[2] == "high"}, err == nil
}

// connectWriter makes a connection that stays, and that writes messages.
func (s *Stream) connectWriter(ctx context.Context, config *pgx.ConnConfig) (*connection, error) {
	return connect(ctx, config, s.config.BeforeConnect, false)
}

// emit writes a message into the log.
func (c *connection) emit(ctx context.Context, prefix, content string) error {
	_, err := c.Exec(ctx, "SELECT pg_logical_emit_message(true, "+literal(prefix)+", "+literal(content)+")").ReadAll()
	if err != nil {
		return fmt.Errorf("cdc: writing a message into the log: %w", err)
	}
	return nil
}

// ownMessage returns the prefix and the content of a logical message that is one of this package's; the prefix is empty otherwise.
func ownMessage(data []byte, streamed bool) (prefix, content string) {
	w := &wire{rest: data[1:]}
	if streamed {
		w.uint32()
	}
	w.byte()
	w.lsn()
	if prefix = w.string(); prefix != prefixHeartbeat && prefix != prefixMark {
		return "", ""
	}
	content = string(w.take(int(w.uint32())))
	if w.err != nil {
		return "", ""
	}
	return prefix, content
}
