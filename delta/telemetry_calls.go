package delta

import (
	"context"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// telemetry calls a Telemetry so that its panics harm nothing. It is nil if there is none.
type telemetry struct {
	to  Telemetry
	log *slog.Logger

	mu     sync.Mutex
	logged time.Time
}

// logTelemetryEvery is how often problems of a Telemetry are logged, so that they do not flood the log.
const logTelemetryEvery = time.Minute

func newTelemetry(to Telemetry, log *slog.Logger) *telemetry {
	if to == nil {
		return nil
	}
	return &telemetry{to: to, log: log}
}

func (t *telemetry) record(ctx context.Context, m Measurement) {
	defer t.recoverPanic("Record")
	t.to.Record(ctx, m)
}

// startSpan returns the context of a span, and the started span.
func (t *telemetry) startSpan(ctx context.Context, span Span) (context.Context, startedSpan) {
	within, end := t.callStartSpan(ctx, span)
	if within == nil {
		within = ctx
	}
	return within, startedSpan{t, end}
}

func (t *telemetry) callStartSpan(ctx context.Context, span Span) (context.Context, func(SpanEnd)) {
	defer t.recoverPanic("StartSpan")
	return t.to.StartSpan(ctx, span)
}

// startedSpan is a span that has not ended.
type startedSpan struct {
	telemetry *telemetry
	// ended is the Telemetry's function; nil for none.
	ended func(SpanEnd)
}

func (s startedSpan) endSpan(e SpanEnd) {
	if s.ended == nil {
		return
	}
	defer s.telemetry.recoverPanic("the end of a span")
	s.ended(e)
}

// callInject reports whether Inject returned without a panic.
func (t *telemetry) callInject(ctx context.Context, set func(name, value string)) (returned bool) {
	defer t.recoverPanic("Inject")
	t.to.Inject(ctx, set)
	return true
}

// recoverPanic, deferred, logs a panic of the Telemetry.
func (t *telemetry) recoverPanic(method string) {
	if v := recover(); v != nil {
		t.warnRarely("Config.Telemetry panicked; it is left out", "method", method, "panic", v, "stack", string(debug.Stack()))
	}
}

// warnRarely logs at most once per logTelemetryEvery.
func (t *telemetry) warnRarely(text string, args ...any) {
	t.mu.Lock()
	due := t.logged.IsZero() || time.Since(t.logged) >= logTelemetryEvery
	if due {
		t.logged = time.Now()
	}
	t.mu.Unlock()
	if due {
		t.log.Error(text, args...)
	}
}

// informInSpan informs objects within a span, and attaches its carrier to them.
func (c *Client) informInSpan(
	ctx context.Context, operation Operation, params []deltatype.ObjectInformParams,
	do func(ctx context.Context) ([]*deltatype.ObjectInformResult, error),
) (results []*deltatype.ObjectInformResult, err error) {
	if c.telemetry == nil {
		if err := c.attachCarrier(ctx, params); err != nil {
			return nil, informError(params, err)
		}
		return do(ctx)
	}
	kind, namespace := commonLabels(params)
	within, span := c.telemetry.startSpan(ctx, Span{Operation: operation, Kind: kind, Namespace: namespace, Objects: len(params)})
	began := time.Now()
	defer func() {
		took := time.Since(began)
		c.recordInforms(within, operation, results)
		span.endSpan(SpanEnd{Err: err, Duration: took})
	}()
	if err := c.attachCarrier(within, params); err != nil {
		return nil, informError(params, err)
	}
	return do(within)
}

// commonLabels returns the kind and the namespace of all objects; empty if they differ.
func commonLabels(params []deltatype.ObjectInformParams) (kind, namespace string) {
	kind, namespace = params[0].Kind, params[0].Namespace
	for i := range params {
		if params[i].Kind != kind {
			kind = ""
		}
		if params[i].Namespace != namespace {
			namespace = ""
		}
	}
	return kind, namespace
}

// maxCompared is the number of counts with which an object is compared.
const maxCompared = 8

// recordInforms counts the results of informs, or of a page of a listing. Neighbours mostly have the same result, so an
// object is compared with the latest counts: looking it up in a map took longer than the rest of its measurement. A result
// that comes again later gets another count.
func (c *Client) recordInforms(ctx context.Context, operation Operation, results []*deltatype.ObjectInformResult) {
	if len(results) == 1 && results[0] != nil {
		m := informMeasurement(operation, results[0])
		m.Objects = 1
		c.telemetry.record(ctx, m)
		return
	}
	var buffer [maxCompared]InformMeasurement
	counts := buffer[:0]
	for _, r := range results {
		if r == nil {
			continue
		}
		m := informMeasurement(operation, r)
		at := len(counts) - 1
		for at >= 0 && at >= len(counts)-maxCompared && !counts[at].isOf(&m) {
			at--
		}
		if at < 0 || at < len(counts)-maxCompared {
			at, counts = len(counts), append(counts, m)
		}
		counts[at].Objects++
	}
	for i := range counts {
		c.telemetry.record(ctx, counts[i])
	}
}

// isOf reports whether two measurements count the same.
func (m *InformMeasurement) isOf(o *InformMeasurement) bool {
	return m.Result == o.Result && m.Kind == o.Kind && m.Namespace == o.Namespace && m.Operation == o.Operation
}

func informMeasurement(operation Operation, r *deltatype.ObjectInformResult) InformMeasurement {
	m := InformMeasurement{Kind: r.Resource.ObjectKind, Namespace: r.Resource.Namespace, Operation: operation, Result: InformUnchanged}
	switch {
	case r.Refused != nil:
		m.Result = InformRefused
	case r.Stale:
		m.Result = InformStale
	case r.Scheduled && r.AlreadyExists:
		m.Result = InformChanged
	case r.Scheduled:
		m.Result = InformNew
	}
	return m
}

// recordAttempt records an attempt whose outcome was written.
func (c *Client) recordAttempt(o *activities.Observation) {
	if c.telemetry == nil || o.Attempt == 0 {
		return // a listing deleted the resource
	}
	operation := OperationWork
	if o.IsFinalizing {
		operation = OperationFinalize
	}
	c.telemetry.record(context.Background(), AttemptMeasurement{
		Operation: operation, Kind: o.Kind, Namespace: o.Namespace, Outcome: outcomeName(o.Verdict, o.IsDegraded), Duration: o.Took, Wait: o.Waited, Lag: o.Lag,
	})
}

// outcomeName returns the Outcome of a verdict.
func outcomeName(verdict activities.Verdict, isDegraded bool) Outcome {
	switch verdict {
	case activities.VerdictSynced:
		return OutcomeSynced
	case activities.VerdictFinalized:
		return OutcomeFinalized
	case activities.VerdictDeleted:
		return OutcomeDeleted
	case activities.VerdictSnoozed:
		return OutcomeSnoozed
	case activities.VerdictUndecodable:
		return OutcomeUndecodable
	case activities.VerdictFailed, activities.VerdictDegraded, activities.VerdictReleased, activities.VerdictWithheld:
	}
	if isDegraded {
		return OutcomeDegraded
	}
	return OutcomeFailed
}

// observeListed records a written page of a listing.
func (c *Client) observeListed(results []*deltatype.ObjectInformResult) {
	if c.telemetry != nil {
		c.recordInforms(context.Background(), OperationList, results)
	}
}

// observeLost records calls that were ended because their claims were lost.
func (c *Client) observeLost(kind, namespace string, resources int) {
	if c.telemetry != nil {
		c.telemetry.record(context.Background(), ClaimsLostMeasurement{Kind: kind, Namespace: namespace, Resources: resources})
	}
}

// recordDropped records events or failures that a slow reader missed.
func (t *telemetry) recordDropped(what string, count int) {
	if t != nil {
		t.record(context.Background(), DroppedMeasurement{What: what, Count: count})
	}
}

// callInSpan calls a controller within a span, in the context that the informs of its resources carry.
func (c *Client) callInSpan(ctx context.Context, call *Call, do func(context.Context) error) (err error) {
	if c.telemetry == nil && len(c.propagators.all) == 0 {
		return do(ctx)
	}
	carriers, err := c.carriers.readAll(call.carriers)
	if err != nil {
		return err
	}
	if ctx, err = c.propagators.extractContext(ctx, carriers); err != nil {
		return err
	}
	if c.telemetry == nil {
		return do(ctx)
	}
	ctx, span := c.telemetry.startSpan(ctx, c.spanOf(call, carriers))
	began := time.Now()
	ended := SpanEnd{Outcome: OutcomeFailed, Failed: len(call.Resources), Err: errNextExited}
	defer func() {
		ended.Duration = time.Since(began)
		span.endSpan(ended)
	}()
	err = do(ctx)
	ended = call.spanEnd(err)
	return err
}

func (c *Client) spanOf(call *Call, carriers []carrier) Span {
	span := Span{Operation: call.Operation, Kind: call.Kind, Objects: len(call.Resources), Resources: make([]SpanResource, len(call.Resources))}
	if call.Pass != nil {
		span.Shard = call.Pass.Options.Shard
	}
	for i, row := range call.Resources {
		id := row.ObjectID
		if c.config.HashObjectIDs {
			id = row.HashedID
		}
		span.Namespace = row.Namespace // a call has resources of one namespace
		span.Resources[i] = SpanResource{ObjectID: id, Generation: row.Generation, Attempt: row.Attempt, IsFirst: row.Attempt <= 1 && row.Snoozes == 0}
		if i < len(carriers) {
			span.Resources[i].Carrier = carriers[i].span
		}
	}
	return span
}

// spanEnd returns the result of a call that returned err.
func (c *Call) spanEnd(err error) (end SpanEnd) {
	if len(c.Resources) == 0 { // a listing
		return SpanEnd{Err: err}
	}
	for i, row := range c.Resources {
		result := err
		if err == nil && c.Operation == OperationWorkBatch && i < len(c.Results) {
			result = c.Results[i]
		}
		outcome := c.outcomeOf(result, row)
		if outcome == OutcomeFailed || outcome == OutcomeDegraded {
			if end.Failed++; end.Err == nil {
				end.Err = result
			}
		}
		if i == 0 {
			end.Outcome = outcome
		} else if end.Outcome != outcome {
			end.Outcome = OutcomeMixed
		}
	}
	return end
}

func (c *Call) outcomeOf(err error, row *deltatype.ResourceRow) Outcome {
	verdict, isFinalize := outcomeOf(err).Verdict, c.Operation == OperationFinalize
	if isFinalize && (verdict == activities.VerdictSynced || verdict == activities.VerdictDeleted) {
		verdict = activities.VerdictFinalized
	}
	isLast := verdict == activities.VerdictDegraded || row.Attempt >= row.MaxAttempts
	return outcomeName(verdict, isLast && !isFinalize)
}
