package delta

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"

	commonpb "go.temporal.io/api/common/v1"
	"google.golang.org/protobuf/proto"

	"github.com/chariot-giving/delta/delta/deltatype"
)

const (
	// maxCarriedSpan and maxCarriedHeaders bound what an object carries, in bytes.
	maxCarriedSpan    = 4 << 10
	maxCarriedHeaders = 16 << 10
)

// carrier has the values that an inform carries to the Work of the generation that it makes. It is in a column of its own, a line for each of its values: JSON
// was larger, and took longer to write and to read than all else that is done for a span.
type carrier struct {
	// span has the values that Telemetry.Inject has returned, such as "traceparent: 00-...".
	span map[string]string
	// headers are what Config.ContextPropagators have set: payloads of Temporal's, by name. Their lines begin with headerLine, and names and
	// payloads are base64.
	headers map[string][]byte
}

const (
	headerLine = "header "
	separator  = ": "
)

// encode is the carrier as it is stored.
func (c carrier) encode() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(c.span)) {
		b.WriteString(name + separator + c.span[name] + "\n")
	}
	for _, name := range slices.Sorted(maps.Keys(c.headers)) {
		b.WriteString(headerLine + base64.RawStdEncoding.EncodeToString([]byte(name)) + separator + base64.RawStdEncoding.EncodeToString(c.headers[name]) + "\n")
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// readCarrier is the carrier of what is stored.
func readCarrier(stored string) (c carrier, err error) {
	for line := range strings.SplitSeq(stored, "\n") {
		name, value, ok := strings.Cut(line, separator)
		if !ok {
			return c, fmt.Errorf("the row's carrier has a line without %q", separator)
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

// carry gives objects what the context of their inform carries.
func (c *Client) carry(ctx context.Context, params []deltatype.ObjectInformParams) error {
	if c.telemetry == nil && len(c.config.ContextPropagators) == 0 {
		return nil
	}
	var carried carrier
	if c.telemetry != nil {
		carried.span = c.telemetry.injected(ctx)
	}
	var err error
	if carried.headers, err = c.headersOf(ctx); err != nil {
		return err
	}
	encoded := carried.encode()
	for i := range params {
		params[i].Carrier = encoded
	}
	return nil
}

// injected returns the values of Inject, without those that cannot be stored: an inform does not fail for them.
func (t *telemetry) injected(ctx context.Context) map[string]string {
	injected, size := t.inject(ctx), 0
	for name, value := range injected {
		size += len(name) + len(value)
		if !isStorable(name, value) {
			t.warn("Config.Telemetry.Inject returned what is not printable ASCII: objects do not carry it", "name", name)
			kept := maps.Clone(injected)
			maps.DeleteFunc(kept, func(name, value string) bool { return !isStorable(name, value) })
			injected = kept
		}
	}
	if size > maxCarriedSpan {
		t.warn("Config.Telemetry.Inject returned too much: objects do not carry it", "bytes", size, "most", maxCarriedSpan)
		return nil
	}
	return injected
}

// isStorable reports whether a value of Inject can be a line of its own.
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

// headersOf are the headers that the propagators set.
func (c *Client) headersOf(ctx context.Context) (headers map[string][]byte, err error) {
	size := 0
	for i, propagator := range c.config.ContextPropagators {
		set := headerWriter{}
		if err := guarded("Inject", i, func() error { return propagator.Inject(ctx, set) }); err != nil {
			return nil, err
		}
		for name, payload := range set {
			encoded, err := proto.Marshal(payload)
			if err != nil {
				return nil, fmt.Errorf("Config.ContextPropagators[%d]: encoding header %q: %w", i, name, err)
			}
			if headers == nil {
				headers = map[string][]byte{}
			}
			headers[name] = encoded
			if size += len(name) + len(encoded); size > maxCarriedHeaders {
				return nil, inputError(fmt.Sprintf("Config.ContextPropagators[%d]", i), fmt.Sprintf("header %q", name),
					"must set headers of %d bytes at most together", maxCarriedHeaders)
			}
		}
	}
	return headers, nil
}

// guarded calls a propagator. A panic is an error.
func guarded(method string, i int, do func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("Config.ContextPropagators[%d]: %s panicked: %v\n%s", i, method, v, debug.Stack())
		}
	}()
	if err := do(); err != nil {
		return fmt.Errorf("Config.ContextPropagators[%d]: %s: %w", i, method, err)
	}
	return nil
}

// carrierReader reads carriers. Resources that were informed together carry the same, and are often worked one after the other: it is read once.
type carrierReader struct{ latest atomic.Pointer[readBefore] }

type readBefore struct {
	stored string
	carrier
}

// read decodes what the resources of a call carry.
func (r *carrierReader) read(stored []string) ([]carrier, error) {
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

// extract is the context with what the propagators find in the headers of the resources, if they all have the same.
func (c *Client) extract(ctx context.Context, carriers []carrier) (context.Context, error) {
	if len(c.config.ContextPropagators) == 0 || len(carriers) == 0 || len(carriers[0].headers) == 0 {
		return ctx, nil
	}
	headers := headerReader{}
	for _, other := range carriers[1:] {
		if !maps.EqualFunc(carriers[0].headers, other.headers, bytes.Equal) {
			return ctx, nil
		}
	}
	for name, encoded := range carriers[0].headers {
		payload := new(commonpb.Payload)
		if err := proto.Unmarshal(encoded, payload); err != nil {
			return nil, fmt.Errorf("the row's carrier: header %q: %w", name, err)
		}
		headers[name] = payload
	}
	for i, propagator := range c.config.ContextPropagators {
		err := guarded("Extract", i, func() error {
			extracted, err := propagator.Extract(ctx, headers)
			if err == nil && extracted != nil {
				ctx = extracted
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return ctx, nil
}

// headerWriter is Temporal's workflow.HeaderWriter.
type headerWriter map[string]*commonpb.Payload

func (w headerWriter) Set(name string, payload *commonpb.Payload) { w[name] = payload }

// headerReader is Temporal's workflow.HeaderReader.
type headerReader map[string]*commonpb.Payload

func (r headerReader) Get(name string) (*commonpb.Payload, bool) {
	payload, ok := r[name]
	return payload, ok
}

func (r headerReader) ForEachKey(handle func(string, *commonpb.Payload) error) error {
	for name, payload := range r {
		if err := handle(name, payload); err != nil {
			return err
		}
	}
	return nil
}
