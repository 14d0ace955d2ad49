package delta_test

import (
	"context"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// explained is an object of a kind in one of the modes. Its name decides the result of its Work.
type explained[M batchSized] struct{ Name, Key, Namespace, Parent string }

func (o explained[M]) ID() string       { return o.Name }
func (o explained[M]) Kind() string     { return "explained" }
func (o explained[M]) LimitKey() string { return o.Key }
func (o explained[M]) Parents() []delta.Ref {
	if o.Parent == "" {
		return nil
	}
	return []delta.Ref{{Kind: o.Kind(), ObjectID: o.Parent}}
}

func (o explained[M]) InformOpts() delta.InformOpts {
	return delta.InformOpts{Namespace: o.Namespace}
}

func (o explained[M]) Settings() delta.ObjectSettings {
	var m M
	return delta.ObjectSettings{
		Parallelism: 8, InformInterval: -1, BatchSize: m.batchSize(), RetryPolicy: delta.RetryPolicy{InitialInterval: time.Hour, MaximumInterval: time.Hour},
	}
}

// explaining is a harness with a client for the kind explained.
type explaining[M batchSized] struct {
	*harness
	c *delta.Client
	// let releases calls of Work that are held.
	let  func()
	seen *reasonsSeen
}

// reasonsSeen collects the reasons that the scenarios have shown.
type reasonsSeen struct {
	mu  sync.Mutex
	all map[delta.ReasonCode]bool
}

func (s *reasonsSeen) add(code delta.ReasonCode) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all[code] = true
}

// newExplaining returns a harness with a client that is not started.
func newExplaining[M batchSized](t *testing.T, seen *reasonsSeen, change func(*delta.Config)) *explaining[M] {
	t.Helper()
	x := &explaining[M]{harness: newHarness(t), seen: seen}
	held := make(chan struct{})
	x.let = sync.OnceFunc(func() { close(held) })
	config := x.config(with(&controller[explained[M]]{work: func(ctx context.Context, r *delta.Resource[explained[M]]) error {
		switch name := r.Object.Name; {
		case strings.HasPrefix(name, "held"):
			select {
			case <-held:
			case <-ctx.Done():
				return ctx.Err()
			}
		case strings.HasPrefix(name, "fails"):
			return errBoom
		case strings.HasPrefix(name, "hopeless"):
			return delta.ResourceDegrade(errBoom)
		case strings.HasPrefix(name, "gone"):
			return delta.ResourceDelete(errBoom)
		case strings.HasPrefix(name, "snoozes the kind"):
			return delta.SnoozeKind(2 * time.Hour)
		case strings.HasPrefix(name, "snoozes the namespace"):
			return delta.SnoozeNamespace(time.Hour)
		case strings.HasPrefix(name, "snoozes"):
			return delta.ResourceSnooze(time.Hour)
		}
		return nil
	}}))
	if change != nil {
		change(config)
	}
	x.c = x.client(config)
	return x
}

// startClient starts the client.
func (x *explaining[M]) startClient() *explaining[M] {
	x.t.Helper()
	require.NoError(x.t, x.c.Start(context.Background()))
	x.t.Cleanup(func() {
		x.let()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = x.c.Stop(ctx)
	})
	return x
}

func kindSettings(s delta.ObjectSettings) func(*delta.Config) {
	return func(c *delta.Config) { c.Kinds = map[string]delta.ObjectSettings{"explained": s} }
}

// inform informs objects by their names, one call each.
func (x *explaining[M]) inform(names ...string) {
	x.t.Helper()
	for _, name := range names {
		_, err := x.c.Inform(x.t.Context(), explained[M]{Name: name}, nil)
		require.NoError(x.t, err)
	}
}

// awaitClaim waits until a client has claimed a resource whose Work is held.
func (x *explaining[M]) awaitClaim(id string) {
	x.t.Helper()
	x.eventually("explained", id, func(r *deltatype.ResourceRow) bool {
		return r.ClaimedUntil != nil && r.State == deltatype.ResourceStatePending
	})
}

func (x *explaining[M]) explain(kind, id string) *delta.Explanation {
	x.t.Helper()
	e, err := x.c.Explain(x.t.Context(), kind, id)
	require.NoError(x.t, err)
	require.NotEmpty(x.t, e.Reasons)
	for _, reason := range e.Reasons {
		require.NotEmpty(x.t, reason.Text, reason.Code)
		require.False(x.t, reason.Until != nil && reason.Until.Before(e.At), "%s: a time in the past delays nothing", reason.Code)
	}
	return e
}

// awaitDeciding waits until a reason is the first one of a resource's explanation.
func (x *explaining[M]) awaitDeciding(id string, code delta.ReasonCode) delta.Reason {
	x.t.Helper()
	return x.decidesOf("explained", id, code)
}

func (x *explaining[M]) decidesOf(kind, id string, code delta.ReasonCode) delta.Reason {
	x.t.Helper()
	var e *delta.Explanation
	until(x.t, func() bool {
		e = x.explain(kind, id)
		return e.Reasons[0].Code == code
	}, "%s is not %s, but %s", id, code, shown[*delta.Explanation]{&e})
	x.seen.add(code)
	return e.Reasons[0]
}

// awaitDecidingText waits until a reason is the first one, with a text that comes from Temporal: a busy Temporal may not answer in time.
func (x *explaining[M]) awaitDecidingText(id string, code delta.ReasonCode, text string) (reason delta.Reason) {
	x.t.Helper()
	until(x.t, func() bool {
		reason = x.awaitDeciding(id, code)
		return strings.Contains(reason.Text, text)
	}, "it is %s", shown[delta.Reason]{&reason})
	return reason
}

// awaitReason waits until a resource's explanation has a reason.
func (x *explaining[M]) awaitReason(kind, id string, code delta.ReasonCode) (found delta.Reason) {
	x.t.Helper()
	var e *delta.Explanation
	until(x.t, func() bool {
		e = x.explain(kind, id)
		for _, reason := range e.Reasons {
			if reason.Code == code {
				found = reason
				return true
			}
		}
		return false
	}, "%s is not %s, but %s", id, code, shown[*delta.Explanation]{&e})
	x.seen.add(code)
	return found
}

// A reason without a scenario has a text that nobody has read.
func TestEachReasonOfAnExplanationHasAScenario(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	seen := &reasonsSeen{all: map[delta.ReasonCode]bool{}}
	t.Run("scenarios", func(t *testing.T) {
		for name, scenario := range map[string][2]func(*testing.T, *reasonsSeen){
			"it runs":         {explainRunning[single], explainRunning[batches]},
			"pauses":          {explainPauses[single], explainPauses[batches]},
			"snoozes":         {explainSnoozes[single], explainSnoozes[batches]},
			"renewed":         {explainRenewedClaim[single], explainRenewedClaim[batches]},
			"limit key":       {explainLimitKey[single], explainLimitKey[batches]},
			"rates":           {explainRates[single], explainRatesOfBatches},
			"slots":           {explainSlots, nil},
			"namespace":       {explainNamespaceSlots, nil},
			"batch":           {nil, explainInBatch},
			"no client":       {explainNoClient[single], nil},
			"no Temporal":     {explainNoTemporal, nil},
			"undecodable":     {explainUndecodable[single], explainUndecodable[batches]},
			"not started":     {explainNotStarted[single], explainNotStarted[batches]},
			"failing":         {explainFailingWorkflow, nil},
			"lost":            {explainLostWorker[single], explainLostWorker[batches]},
			"due":             {explainDue, nil},
			"finalizer":       {explainNoFinalizer[single], explainNoFinalizer[batches]},
			"listings":        {explainListings, nil},
			"shards":          {explainShards, nil},
			"hashed":          {explainHashed, nil},
			"next generation": {explainNextGeneration[single], explainNextGeneration[batches]},
			"unknown to Work": {explainUnknownState, nil},
			"parents":         {explainParents[single], explainParents[batches]},
		} {
			for i, mode := range []string{"single", "batches"} {
				if scenario[i] == nil {
					continue
				}
				t.Run(name+"/"+mode, func(t *testing.T) {
					if i == 1 && scenario[0] != nil {
						soak.Rare(t)
					}
					t.Parallel()
					scenario[i](t, seen)
				})
			}
		}
	})
	if t.Failed() || strings.Contains(flag.Lookup("test.run").Value.String(), "/") {
		return // some scenarios were left out
	}
	for _, code := range reasonCodes(t) {
		require.True(t, seen.all[code], "no scenario has the reason %q", code)
	}
}

// reasonCodes returns the values of all constants of the type, by parsing the source.
func reasonCodes(t *testing.T) (all []delta.ReasonCode) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "explanation.go", nil, 0)
	require.NoError(t, err)
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		require.Equal(t, "ReasonCode", spec.Type.(*ast.Ident).Name)
		code, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		require.NoError(t, err)
		all = append(all, delta.ReasonCode(code))
		return true
	})
	require.NotEmpty(t, all)
	return all
}

func TestTheDocumentationHasEachReason(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/command.md")
	require.NoError(t, err)
	for _, code := range reasonCodes(t) {
		require.Contains(t, string(text), "`"+string(code)+"`")
	}
}

func TestExplainNeedsAResource(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.client(h.config())
	_, err := c.Explain(t.Context(), "explained", "nobody")
	require.ErrorIs(t, err, delta.ErrNotFound)
	require.ErrorContains(t, err, "delta: explain explained/nobody")
	var input *delta.InputError
	_, err = c.Explain(t.Context(), "explained", "a\xff")
	require.ErrorAs(t, err, &input)
	h.exec("ALTER TABLE delta_resource RENAME TO other")
	_, err = c.Explain(t.Context(), "explained", "x")
	require.ErrorIs(t, err, delta.ErrNoSchema)
}
