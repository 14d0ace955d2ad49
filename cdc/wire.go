package cdc

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"
	"unsafe"
)

// messageReader reads the fields of a message one after the other. The first missing field sets the error, and all
// later ones are zero.
type messageReader struct {
	rest []byte
	err  error
}

func (w *messageReader) takeBytes(n int) []byte {
	if w.err != nil || n < 0 || n > len(w.rest) {
		w.fail("%d bytes are left where %d are needed", len(w.rest), n)
		return nil
	}
	taken := w.rest[:n]
	w.rest = w.rest[n:]
	return taken
}

func (w *messageReader) fail(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf("%w: %s", ErrProtocol, fmt.Sprintf(format, args...))
	}
}

func (w *messageReader) readByte() byte {
	if b := w.takeBytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (w *messageReader) readUint16() uint16 {
	if b := w.takeBytes(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (w *messageReader) readUint32() uint32 {
	if b := w.takeBytes(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (w *messageReader) readUint64() uint64 {
	if b := w.takeBytes(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (w *messageReader) readLSN() LSN { return LSN(w.readUint64()) }

func (w *messageReader) readTime() time.Time {
	return postgresEpoch.Add(time.Duration(int64(w.readUint64())) * time.Microsecond) //nolint:gosec // signed on the server
}

func (w *messageReader) readString() string {
	end := bytes.IndexByte(w.rest, 0)
	if end < 0 {
		w.fail("a string has no end")
		return ""
	}
	s := string(w.takeBytes(end))
	w.takeBytes(1)
	return s
}

// readRow reads the values of a row. Their texts share one string.
func (w *messageReader) readRow() []Value {
	n := int(w.readUint16())
	if n > len(w.rest) { // each takes at least one byte
		w.fail("a row of %d columns has %d bytes", n, len(w.rest))
		return nil
	}
	values := make([]Value, n)
	texts, start := bytesToString(w.rest), w.rest
	for i := range values {
		switch kind := w.readByte(); kind {
		case 'n':
		case 'u':
			values[i].State = ValueUnchanged
		case 't':
			length := int(w.readUint32())
			at := len(start) - len(w.rest)
			if w.takeBytes(length); w.err == nil {
				values[i] = Value{State: ValuePresent, Text: texts[at : at+length]}
			}
		default:
			w.fail("a value of the unknown format %q", kind)
		}
		if w.err != nil {
			return nil
		}
	}
	return values
}

// bytesToString returns the data of an entry, or the end of it, as a string. That of a large entry is not copied, see
// [entry].
func bytesToString(data []byte) string {
	if len(data) < largestChunk {
		return string(data)
	}
	return unsafe.String(unsafe.SliceData(data), len(data)) //nolint:gosec // nothing writes to it any more
}
