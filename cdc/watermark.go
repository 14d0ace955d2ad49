package cdc

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
)

// The prefixes of the messages that this package writes into the log. They are never delivered.
const (
	prefixWatermark = "delta_watermark"
	prefixHeartbeat = "delta_heartbeat"
)

// watermark is a position that a [Backfill] has written into the log: the low one before a chunk is read, the high one
// after it.
type watermark struct {
	backfill string
	chunk    uint64
	high     bool
}

func (m watermark) String() string {
	side := "low"
	if m.high {
		side = "high"
	}
	return fmt.Sprintf("%s %d %s", m.backfill, m.chunk, side)
}

// parseWatermark parses the result of String. Any user of the database can write messages, so other content is ignored.
func parseWatermark(s string) (m watermark, ok bool) {
	parts := strings.Split(s, " ")
	if len(parts) != 3 || parts[2] != "low" && parts[2] != "high" {
		return m, false
	}
	chunk, err := strconv.ParseUint(parts[1], 10, 64)
	return watermark{backfill: parts[0], chunk: chunk, high: parts[2] == "high"}, err == nil
}

// connectWriter opens a connection for writing messages.
func (s *Stream) connectWriter(ctx context.Context, config *pgx.ConnConfig) (*connection, error) {
	return openConnection(ctx, config, s.config.BeforeConnect, false)
}

// emitMessage writes a message into the log.
func (c *connection) emitMessage(ctx context.Context, prefix, content string) error {
	_, err := c.Exec(ctx, "SELECT pg_logical_emit_message(true, "+quoteLiteral(prefix)+", "+quoteLiteral(content)+")").ReadAll()
	if err != nil {
		return fmt.Errorf("cdc: writing a message into the log: %w", err)
	}
	return nil
}

// ownMessage returns the prefix and the content of a logical message of this package. prefix is empty for other
// messages.
func ownMessage(data []byte, streamed bool) (prefix, content string) {
	w := &messageReader{rest: data[1:]}
	if streamed {
		w.readUint32()
	}
	w.readByte()
	w.readLSN()
	if prefix = w.readString(); prefix != prefixHeartbeat && prefix != prefixWatermark {
		return "", ""
	}
	content = string(w.takeBytes(int(w.readUint32())))
	if w.err != nil {
		return "", ""
	}
	return prefix, content
}
