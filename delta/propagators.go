package delta

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"runtime/debug"

	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/envconfig"
	"go.temporal.io/sdk/workflow"
	"google.golang.org/protobuf/proto"
)

// propagators carry values from the context of an inform to Work.
type propagators struct {
	// field names the field of Config that has them.
	field string
	all   []workflow.ContextPropagator
}

// findPropagators returns those of Config.ContextPropagators or, if that is nil, those that Config.TemporalOptions sets,
// because a program that has set them there expects them to reach Work, as they reach its own activities.
func (c *Client) findPropagators() (propagators, error) {
	found := propagators{field: "Config.ContextPropagators", all: c.config.ContextPropagators}
	if found.all == nil && c.config.TemporalOptions != nil {
		options, err := envconfig.LoadDefaultClientOptions()
		if err != nil {
			options = client.Options{} // a program that only informs needs no Temporal; calls that connect return the error
		}
		if options, err = c.completeOptions(options); err != nil {
			return found, err
		}
		found = propagators{field: "Config.TemporalOptions: ContextPropagators", all: options.ContextPropagators}
	}
	for i, propagator := range found.all {
		if propagator == nil {
			return found, inputError(found.fieldOf(i), nil, "must not be nil")
		}
	}
	return found, nil
}

// fieldOf names one of them.
func (p *propagators) fieldOf(i int) string { return fmt.Sprintf("%s[%d]", p.field, i) }

// injectHeaders returns the headers that the propagators set.
func (p *propagators) injectHeaders(ctx context.Context) (headers map[string][]byte, err error) {
	size := 0
	for i, propagator := range p.all {
		set := headerWriter{}
		if err := p.callPropagator("Inject", i, func() error { return propagator.Inject(ctx, set) }); err != nil {
			return nil, err
		}
		for name, payload := range set {
			encoded, err := proto.Marshal(payload)
			if err != nil {
				return nil, fmt.Errorf("%s: encoding header %q: %w", p.fieldOf(i), name, err)
			}
			if headers == nil {
				headers = map[string][]byte{}
			}
			headers[name] = encoded
			if size += len(name) + len(encoded); size > maxCarriedHeaders {
				return nil, inputError(p.fieldOf(i), fmt.Sprintf("header %q", name), "must set headers of %d bytes at most together", maxCarriedHeaders)
			}
		}
	}
	return headers, nil
}

// callPropagator calls a propagator. A panic is an error.
func (p *propagators) callPropagator(method string, i int, do func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("%s: %s panicked: %v\n%s", p.fieldOf(i), method, v, debug.Stack())
		}
	}()
	if err := do(); err != nil {
		return fmt.Errorf("%s: %s: %w", p.fieldOf(i), method, err)
	}
	return nil
}

// extractContext returns the context with the values that the propagators find in the headers of the resources, if all
// resources have the same headers.
func (p *propagators) extractContext(ctx context.Context, carriers []carrier) (context.Context, error) {
	if len(p.all) == 0 || len(carriers) == 0 || len(carriers[0].headers) == 0 {
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
	for i, propagator := range p.all {
		err := p.callPropagator("Extract", i, func() error {
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

// headerWriter implements workflow.HeaderWriter.
type headerWriter map[string]*commonpb.Payload

func (w headerWriter) Set(name string, payload *commonpb.Payload) { w[name] = payload }

// headerReader implements workflow.HeaderReader.
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
