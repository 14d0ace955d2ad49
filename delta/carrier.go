package delta

import (
	"context"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/chariot-giving/delta/delta/deltatype"
)

const (
	// maxCarriedSpan and maxCarriedHeaders bound the values that an object carries, in bytes.
	maxCarriedSpan    = 4 << 10
	maxCarriedHeaders = 16 << 10
)

// carrier has the values that an inform carries to the Work of its generation. They are stored in a separate column, one
// line for each value; the line of a traceparent has no name. JSON was rejected: it was larger, and took longer to write
// and read than the rest of the work for a span.
type carrier struct {
	// span has the values that Telemetry.Inject has set, such as "traceparent: 00-...".
	span map[string]string
	// headers are set by the client's context propagators: Temporal payloads, by name. Their lines begin with headerLine,
	// and names and payloads are base64.
	headers map[string][]byte
}

const (
	headerLine = "header "
	separator  = ": "
)

// appendHeaders adds the lines of headers to a stored carrier.
func appendHeaders(stored string, headers map[string][]byte) string {
	if len(headers) == 0 {
		return stored
	}
	var lines []string
	if stored != "" {
		lines = append(lines, stored)
	}
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		lines = append(lines, headerLine+base64.RawStdEncoding.EncodeToString([]byte(name))+separator+base64.RawStdEncoding.EncodeToString(headers[name]))
	}
	return strings.Join(lines, "\n")
}

// readCarrier decodes a stored carrier.
func readCarrier(stored string) (c carrier, err error) {
	for line := range strings.SplitSeq(stored, "\n") {
		name, value, ok := strings.Cut(line, separator)
		if !ok {
			name = traceparent
			if value, err = unpackTraceparent(line); err != nil {
				return c, err
			}
		}
		encoded, isHeader := strings.CutPrefix(name, headerLine)
		if !isHeader {
			if c.span == nil {
				c.span = make(map[string]string, 2)
			}
			c.span[name] = value
			continue
		}
		header, err := base64.RawStdEncoding.DecodeString(encoded)
		if err != nil {
			return c, fmt.Errorf("the row's carrier: the name of a header: %w", err)
		}
		payload, err := base64.RawStdEncoding.DecodeString(value)
		if err != nil {
			return c, fmt.Errorf("the row's carrier: header %q: %w", header, err)
		}
		if c.headers == nil {
			c.headers = map[string][]byte{}
		}
		c.headers[string(header)] = payload
	}
	return c, nil
}

// attachCarrier adds to objects the values that the context of their inform carries.
func (c *Client) attachCarrier(ctx context.Context, params []deltatype.ObjectInformParams) error {
	if c.telemetry == nil && len(c.propagators.all) == 0 {
		return nil
	}
	var stored string
	if c.telemetry != nil {
		stored = c.telemetry.injectLines(ctx)
	}
	headers, err := c.propagators.injectHeaders(ctx)
	if err != nil {
		return err
	}
	stored = appendHeaders(stored, headers)
	for i := range params {
		params[i].Carrier = stored
	}
	return nil
}

// injectLines returns the lines of the values that Inject sets. It drops values that cannot be stored, because an inform
// must not fail for them.
func (t *telemetry) injectLines(ctx context.Context) string {
	var set injection
	if !t.callInject(ctx, set.addValue) {
		return ""
	}
	if set.refused != "" {
		t.warnRarely("Config.Telemetry.Inject has set a value that is not printable ASCII: objects do not carry it", "name", set.refused)
	}
	if set.size > maxCarriedSpan {
		t.warnRarely("Config.Telemetry.Inject has set too much: objects do not carry it", "bytes", set.size, "most", maxCarriedSpan)
		return ""
	}
	return set.lines
}

// injection collects the values that Inject sets, mostly a single one.
type injection struct {
	lines string
	size  int
	// refused is the name of a value that cannot be stored; empty if there is none.
	refused string
}

func (i *injection) addValue(name, value string) {
	i.size += len(name) + len(value)
	switch {
	case !isStorable(name, value):
		i.refused = name
	case i.size > maxCarriedSpan:
	case i.lines == "":
		i.lines = encodeLine(name, value)
	default:
		i.lines += "\n" + encodeLine(name, value)
	}
}

// encodeLine returns the line of a value.
func encodeLine(name, value string) string {
	if name == traceparent {
		if packed, ok := packTraceparent(value); ok {
			return packed
		}
	}
	return name + separator + value
}

// isStorable reports whether a value of Inject can be a line.
func isStorable(name, value string) bool {
	return name != "" && isPrintable(name) && isPrintable(value) && !strings.ContainsAny(name, " :")
}

func isPrintable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// carrierReader decodes carriers, and remembers the latest: resources that were informed together carry the same values,
// and are often worked one after the other.
type carrierReader struct{ latest atomic.Pointer[readBefore] }

type readBefore struct {
	stored string
	carrier
}

// readAll decodes the carriers of the resources of a call.
func (r *carrierReader) readAll(stored []string) ([]carrier, error) {
	all := make([]carrier, len(stored))
	latest := r.latest.Load()
	for i, one := range stored {
		if one == "" {
			continue
		}
		if latest == nil || latest.stored != one {
			read, err := readCarrier(one)
			if err != nil {
				return nil, err
			}
			latest = &readBefore{one, read}
			r.latest.Store(latest)
		}
		all[i] = latest.carrier
	}
	return all, nil
}
