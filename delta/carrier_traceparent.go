package delta

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
)

const (
	// traceparent is the name of W3C's header, which nearly every object carries whose inform has a span.
	traceparent = "traceparent"
	// A traceparent of version 00 is "00-", the trace's id, "-", the span's id, "-" and flags, in hexadecimal digits:
	// https://www.w3.org/TR/trace-context/#traceparent-header
	traceparentPrefix                     = "00-"
	traceparentLength                     = 55
	traceIDEnd, spanIDStart, spanIDEnd    = 35, 36, 52
	flagsStart                            = 53
	traceIDBytes, spanIDBytes, flagsBytes = 16, 8, 1
	traceparentBytes                      = traceIDBytes + spanIDBytes + flagsBytes
)

// packTraceparent returns the bytes of a traceparent in base64, which has no separator and half the length of the line. The
// length was most of the cost of telemetry, because the row is written with its carrier for the inform, the claim and the
// outcome. ok is false for any value that would not be unpacked unchanged.
func packTraceparent(value string) (packed string, ok bool) {
	if len(value) != traceparentLength || value[:len(traceparentPrefix)] != traceparentPrefix || value[traceIDEnd] != '-' || value[spanIDEnd] != '-' {
		return "", false
	}
	var text [traceparentLength]byte
	copy(text[:], value)
	for _, c := range text {
		if c >= 'A' && c <= 'F' {
			return "", false
		}
	}
	var raw [traceparentBytes]byte
	for _, part := range []struct{ to, from []byte }{
		{raw[:traceIDBytes], text[len(traceparentPrefix):traceIDEnd]},
		{raw[traceIDBytes : traceIDBytes+spanIDBytes], text[spanIDStart:spanIDEnd]},
		{raw[traceIDBytes+spanIDBytes:], text[flagsStart:]},
	} {
		if _, err := hex.Decode(part.to, part.from); err != nil {
			return "", false
		}
	}
	return base64.RawStdEncoding.EncodeToString(raw[:]), true
}

// unpackTraceparent reverses packTraceparent.
func unpackTraceparent(packed string) (value string, err error) {
	raw, err := base64.RawStdEncoding.DecodeString(packed)
	if err != nil || len(raw) != traceparentBytes {
		return "", fmt.Errorf("the row's carrier has a line that has neither %q nor is a %s", separator, traceparent)
	}
	text := make([]byte, 0, traceparentLength)
	text = append(text, traceparentPrefix...)
	text = append(hex.AppendEncode(text, raw[:traceIDBytes]), '-')
	text = append(hex.AppendEncode(text, raw[traceIDBytes:traceIDBytes+spanIDBytes]), '-')
	return string(hex.AppendEncode(text, raw[traceIDBytes+spanIDBytes:])), nil
}
