package delta

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"runtime/debug"

	commonpb "go.temporal.io/api/common/v1"
	"google.golang.org/protobuf/proto"

	"github.com/chariot-giving/delta/delta/deltatype"
)

const (
	// maxCarriedSpan and maxCarriedHeaders bound what an object carries, in bytes.
	maxCarriedSpan    = 4 << 10
	maxCarriedHeaders = 16 << 10
)

// carrier is what an inform carries to the Work of the generation that it makes. It is in a column of its own, as JSON.
type carrier struct {
	// Span is what Telemetry.Inject has returned.
	Span map[string]string `json:"span,omitempty"`
	// Headers are what Config.ContextPropagators have set: payloads of Temporal's, by name.
	Headers map[string][]byte `json:"headers,omitempty"`
}

// carry gives objects what the context of their inform carries.
func (c *Client) carry(ctx context.Context, params []deltatype.ObjectInformParams) error {
	if c.telemetry == nil && len(c.config.ContextPropagators) == 0 {
		return nil
	}
	var carried carrier
	if c.telemetry != nil {
		carried.Span = c.telemetry.injected(ctx)
	}
	var err error
	if carried.Headers, err = c.headersOf(ctx); err != nil {
		return err
	}
	if len(carried.Span) == 0 && len(carried.Headers) == 0 {
		return nil
	}
	encoded, err := json.Marshal(carried)
	if err != nil {
		return err
	}
	for i := range params {
		params[i].Carrier = encoded
	}
	return nil
}

// injected is what Inject returns, without what cannot be stored: an inform does not fail for it.
func (t *telemetry) injected(ctx context.Context) map[string]string {
	injected, size := t.inject(ctx), 0
	for name, value := range injected {
		size += len(name) + len(value)
		if !isPrintable(name) || !isPrintable(value) {
			t.warn("Config.Telemetry.Inject returned what is not printable ASCII: objects do not carry it", "name", name)
			kept := maps.Clone(injected)
			maps.DeleteFunc(kept, func(name, value string) bool { return !isPrintable(name) || !isPrintable(value) })
			injected = kept
		}
	}
	if size > maxCarriedSpan {
		t.warn("Config.Telemetry.Inject returned too much: objects do not carry it", "bytes", size, "most", maxCarriedSpan)
		return nil
	}
	return injected
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

// readCarriers decodes what the resources of a call carry.
func readCarriers(encoded [][]byte) ([]carrier, error) {
	all := make([]carrier, len(encoded))
	for i, one := range encoded {
		switch {
		case len(one) == 0:
		case i > 0 && bytes.Equal(one, encoded[i-1]):
			all[i] = all[i-1] // informed together
		default:
			if err := json.Unmarshal(one, &all[i]); err != nil {
				return nil, fmt.Errorf("the row's carrier: %w", err)
			}
		}
	}
	return all, nil
}

// extract is the context with what the propagators find in the headers of the resources, if they all have the same.
func (c *Client) extract(ctx context.Context, carriers []carrier) (context.Context, error) {
	if len(c.config.ContextPropagators) == 0 || len(carriers) == 0 || len(carriers[0].Headers) == 0 {
		return ctx, nil
	}
	headers := headerReader{}
	for _, other := range carriers[1:] {
		if !maps.EqualFunc(carriers[0].Headers, other.Headers, bytes.Equal) {
			return ctx, nil
		}
	}
	for name, encoded := range carriers[0].Headers {
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
