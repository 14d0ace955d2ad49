package delta_test

import (
	"context"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	sdkworker "go.temporal.io/sdk/worker"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// explained is an object that is worked in a mode, and whose name says what its Work does.
type explained[M batchSized] struct{ Name, Key, Namespace, Parent string }

func (o explained[M]) ID() string       { return o.Name }
func (o explained[M]) Kind() string     { return "explained" }
func (o explained[M]) LimitKey() string { return o.Key }
func (o explained[M]) Parents() []delta.Ref {
	if o.Parent == "" {
		return nil
	}
	return []delta.Ref{{Kind: o.Kind(), ID: o.Parent}}
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

// explaining is a harness with a client whose resources are explained.
type explaining[M batchSized] struct {
	*harness
	c *delta.Client
	// let has what is held go on.
	let  func()
	seen *reasonsSeen
}

// reasonsSeen are the reasons that some scenario came to.
type reasonsSeen struct {
	mu  sync.Mutex
	all map[delta.ReasonCode]bool
}

func (s *reasonsSeen) add(code delta.ReasonCode) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all[code] = true
}

// explaining makes a client that is not started, of settings.
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

// inform informs objects by their names, each by itself.
func (x *explaining[M]) inform(names ...string) {
	x.t.Helper()
	for _, name := range names {
		_, err := x.c.Inform(x.t.Context(), explained[M]{Name: name}, nil)
		require.NoError(x.t, err)
	}
}

// awaitClaim waits until a client has claimed what is held.
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
		require.False(x.t, reason.Until != nil && reason.Until.Before(e.At), "%s: what has passed keeps nothing", reason.Code)
	}
	return e
}

// awaitDeciding waits until a reason is the one that decides for a resource.
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

// awaitDecidingText waits until a reason is the one that decides for a resource, with a text that comes from Temporal: a busy one may not be asked in time.
func (x *explaining[M]) awaitDecidingText(id string, code delta.ReasonCode, text string) (reason delta.Reason) {
	x.t.Helper()
	until(x.t, func() bool {
		reason = x.awaitDeciding(id, code)
		return strings.Contains(reason.Text, text)
	}, "it is %s", shown[delta.Reason]{&reason})
	return reason
}

// awaitReason waits until a reason is one of several for a resource.
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

// A reason without a scenario in which it comes up has a text that nobody has read.
func TestEachReasonOfAnExplanationHasAScenario(t *testing.T) {
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
		require.True(t, seen.all[code], "no scenario comes to %q", code)
	}
}

// reasonCodes are the values of all constants of the type, as the source has them.
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

// workerIdentity is what the SDK calls a worker of this process.
func workerIdentity() string { return fmt.Sprintf("client %d@", os.Getpid()) }

func explainRunning[M batchSized](t *testing.T, seen *reasonsSeen) {
	x := newExplaining[M](t, seen, nil).startClient()
	x.inform("ok", "fails", "hopeless", "gone", "held", "snoozes")
	_, err := x.c.Inform(t.Context(), explained[M]{Name: "fails at last"}, &delta.InformOpts{MaxAttempts: 1})
	require.NoError(t, err)

	synced := x.awaitDeciding("ok", delta.ReasonSynced)
	require.True(t, x.explain("explained", "ok").IsSynced())
	row := x.row("explained", "ok")
	require.Equal(t, row.SyncedAt, synced.Since)
	require.Equal(t, row.DueAt, synced.Until)

	backoff := x.awaitDeciding("fails", delta.ReasonBackoff)
	row = x.row("explained", "fails")
	require.Equal(t, row.DueAt, backoff.Until)
	require.Contains(t, backoff.Text, "attempt 1 of 10")
	require.Equal(t, "nothing; to try it now: delta resources retry explained fails", backoff.Remedy)
	e := x.explain("explained", "fails")
	require.False(t, e.IsSynced())
	require.Equal(t, errBoom.Error(), e.LastErrors[0].Error)

	require.Contains(t, x.awaitDeciding("fails at last", delta.ReasonExhausted).Remedy, "delta resources retry explained 'fails at last'")
	require.NotNil(t, x.awaitDeciding("hopeless", delta.ReasonHopeless).Until)
	require.Contains(t, x.awaitDeciding("gone", delta.ReasonDeleted).Text, "its Work has said that it is gone")
	snoozed := x.awaitDeciding("snoozes", delta.ReasonSnoozed) // before its row is read
	require.Equal(t, x.row("explained", "snoozes").DueAt, snoozed.Until)

	held := x.awaitDeciding("held", delta.ReasonInWork)
	require.Equal(t, x.row("explained", "held").AttemptedAt, held.Since)
	require.NotNil(t, held.Until)
	x.awaitDecidingText("held", delta.ReasonInWork, workerIdentity())
	_, err = x.c.Inform(t.Context(), explained[M]{Name: "held", Key: "changed"}, nil)
	require.NoError(t, err)
	x.awaitDecidingText("held", delta.ReasonEarlierCall, workerIdentity())
	x.let()
	x.awaitDeciding("held", delta.ReasonSynced)
}

func explainPauses[M batchSized](t *testing.T, seen *reasonsSeen) {
	x := newExplaining[M](t, seen, nil).startClient()
	x.inform("fails", "ok")
	x.awaitDeciding("fails", delta.ReasonBackoff)
	_, err := x.c.Pause(t.Context(), "explained", "fails")
	require.NoError(t, err)
	require.Equal(t, "when it is time: delta resume resource explained fails", x.awaitDeciding("fails", delta.ReasonPaused).Remedy)
	x.awaitReason("explained", "fails", delta.ReasonBackoff)
	require.NoError(t, x.c.PauseKind(t.Context(), "explained"))
	x.awaitDeciding("fails", delta.ReasonPaused)
	_, err = x.c.Resume(t.Context(), "explained", "fails")
	require.NoError(t, err)
	require.Equal(t, "when it is time: delta resume kind explained", x.awaitDeciding("fails", delta.ReasonKindPaused).Remedy)
	x.inform("new")
	x.awaitDeciding("new", delta.ReasonKindPaused)
	x.awaitDeciding("ok", delta.ReasonSynced)
	x.awaitReason("explained", "ok", delta.ReasonKindPaused)
}

func explainSnoozes[M batchSized](t *testing.T, seen *reasonsSeen) {
	x := newExplaining[M](t, seen, nil).startClient()
	_, err := x.c.Inform(t.Context(), explained[M]{Name: "snoozes the namespace", Namespace: "acme"}, nil)
	require.NoError(t, err)
	x.awaitReason("explained", "snoozes the namespace", delta.ReasonSnoozed)
	_, err = x.c.Inform(t.Context(), explained[M]{Name: "later", Namespace: "acme"}, nil)
	require.NoError(t, err)
	reason := x.awaitDeciding("later", delta.ReasonNamespaceSnoozed)
	require.NotNil(t, reason.Until)
	require.Equal(t, "nothing; to end it now: delta resume namespace acme", reason.Remedy)

	x.inform("snoozes the kind")
	x.awaitReason("explained", "snoozes the kind", delta.ReasonSnoozed)
	x.inform("new")
	require.NotNil(t, x.awaitDeciding("new", delta.ReasonKindSnoozed).Until)
	var reasons []delta.Reason
	until(t, func() bool { // it lasts longer
		reasons = x.explain("explained", "later").Reasons
		return len(reasons) > 1 && reasons[0].Code == delta.ReasonKindSnoozed && reasons[1].Code == delta.ReasonNamespaceSnoozed
	}, "%s", shown[[]delta.Reason]{&reasons})
	require.True(t, reasons[0].Until.After(*reasons[1].Until))
}

// A claim that lasts is renewed beside the row.
func explainRenewedClaim[M batchSized](t *testing.T, seen *reasonsSeen) {
	x := newExplaining[M](t, seen, nil).startClient()
	x.inform("held")
	x.awaitClaim("held")
	until(t, func() bool {
		return x.countRows(`SELECT count(*) FROM delta_resource r JOIN delta_claim c ON c.id = r.claim WHERE c.claimed_until > r.claimed_until`) > 0
	})
	x.exec(`update delta_resource set claimed_until = now() - interval '1 second'`)
	require.NotNil(t, x.awaitDeciding("held", delta.ReasonInWork).Until)
}

func explainLimitKey[M batchSized](t *testing.T, seen *reasonsSeen) {
	x := newExplaining[M](t, seen, kindSettings(delta.ObjectSettings{KeyConcurrency: 1})).startClient()
	_, err := x.c.Inform(t.Context(), explained[M]{Name: "held", Key: "acme"}, nil)
	require.NoError(t, err)
	x.awaitClaim("held")
	_, err = x.c.Inform(t.Context(), explained[M]{Name: "next", Key: "acme"}, nil)
	require.NoError(t, err)
	reason := x.awaitDeciding("next", delta.ReasonLimitKey)
	require.Contains(t, reason.Text, `"acme": 1 in work of 1, 1 waiting`)
	require.NotNil(t, reason.Since)
}

func explainRates[M batchSized](t *testing.T, seen *reasonsSeen) {
	x := newExplaining[M](t, seen, kindSettings(delta.ObjectSettings{RateLimit: 0.01})).startClient()
	x.inform("first")
	x.awaitDeciding("first", delta.ReasonSynced)
	x.inform("second")
	require.NotNil(t, x.awaitDeciding("second", delta.ReasonKindRate).Until)

	y := newExplaining[M](t, seen, func(c *delta.Config) {
		c.Namespaces = map[string]delta.NamespaceConfig{"default": {RateLimit: 0.01}}
	}).startClient()
	y.inform("first")
	y.awaitDeciding("first", delta.ReasonSynced)
	y.inform("second")
	require.NotNil(t, y.awaitDeciding("second", delta.ReasonNamespaceRate).Until)
}

// Members of a batch are claimed when they wait for the rate.
func explainRatesOfBatches(t *testing.T, seen *reasonsSeen) {
	x := newExplaining[batches](t, seen, kindSettings(delta.ObjectSettings{RateLimit: 0.01})).startClient()
	x.inform("first")
	x.awaitDeciding("first", delta.ReasonSynced)
	x.inform("second")
	x.awaitDecidingText("second", delta.ReasonInWork, "waits for a slot")
	require.NotNil(t, x.awaitReason("explained", "second", delta.ReasonKindRate).Until)
}

func explainSlots(t *testing.T, seen *reasonsSeen) {
	x := newExplaining[single](t, seen, kindSettings(delta.ObjectSettings{Parallelism: 1})).startClient()
	x.inform("held")
	x.awaitClaim("held")
	x.inform("next")
	reason := x.awaitDecidingText("next", delta.ReasonWorkerSlots, workerIdentity())
	require.Contains(t, reason.Text, "1 of its kind are in work")

	require.NoError(t, x.Temporal.TerminateWorkflow(t.Context(), x.Prefix+"/explained/next", "", "by the test"))
	gone := x.awaitDeciding("next", delta.ReasonWorkflowGone)
	require.Contains(t, gone.Text, x.Prefix+"/explained/next was terminated")
	require.NotNil(t, gone.Since)
	require.NoError(t, x.Temporal.TerminateWorkflow(t.Context(), x.Prefix+"/explained/held", "", "by the test"))
	until(t, func() bool {
		e := x.explain("explained", "held")
		return e.Reasons[0].Code == delta.ReasonInWork && strings.Contains(e.Reasons[0].Text, "Its workflow was terminated meanwhile")
	})
}

func explainNamespaceSlots(t *testing.T, seen *reasonsSeen) {
	x := newExplaining[single](t, seen, func(c *delta.Config) {
		c.Namespaces = map[string]delta.NamespaceConfig{"default": {MaxWorkers: 1}}
	}).startClient()
	x.inform("held")
	x.awaitClaim("held")
	x.inform("next")
	reason := x.awaitDeciding("next", delta.ReasonNamespaceSlots)
	require.Contains(t, reason.Text, `1 of its namespace "default" are in work, and each client works 1 of it at once`)

	// Another client does not know what this one is configured to, but what the database says.
	other := &explaining[single]{harness: x.harness, c: x.client(x.config()), seen: seen}
	other.awaitDeciding("next", delta.ReasonWorkerSlots)
	require.NoError(t, x.c.SetNamespace(t.Context(), "default", delta.NamespaceConfig{MaxWorkers: 1}))
	other.awaitDeciding("next", delta.ReasonNamespaceSlots)
}

// A batch claims 500 of its members at once, and the others when these have been handed to Work.
func explainInBatch(t *testing.T, seen *reasonsSeen) {
	x := newExplaining[batches](t, seen, kindSettings(delta.ObjectSettings{Parallelism: 1, BatchSize: 600})).startClient()
	var objects []delta.Object
	for n := range 501 {
		objects = append(objects, explained[batches]{Name: fmt.Sprintf("held %03d", n)})
	}
	_, err := x.c.InformMany(t.Context(), objects, nil)
	require.NoError(t, err)
	x.awaitClaim("held 000")
	require.Contains(t, x.awaitDeciding("held 500", delta.ReasonInBatch).Text, x.row("explained", "held 500").WorkflowID)
	x.awaitDecidingText("held 499", delta.ReasonInWork, "with others of its batch")
}

func explainNoClient[M batchSized](t *testing.T, seen *reasonsSeen) {
	x := newExplaining[M](t, seen, nil)
	x.inform("new")
	require.Contains(t, x.awaitDeciding("new", delta.ReasonKindUnknown).Text, `"explained"`)
	x.exec(`insert into delta_controller (name, inform_interval) values ('explained', '-1 second')`)
	require.Contains(t, x.awaitDeciding("new", delta.ReasonNoWorker).Text, x.Prefix+"/explained")
	x.exec(`update delta_controller set task_queue = 'mine'`)
	require.Contains(t, x.awaitDeciding("new", delta.ReasonNoWorker).Text, "queue mine")
}

func explainUnknownState(t *testing.T, seen *reasonsSeen) {
	x := newExplaining[single](t, seen, nil)
	x.inform("new")
	x.exec(`update delta_resource set state = 'unknown', due_at = null, dispatch_at = null`)
	require.Contains(t, x.awaitDeciding("new", delta.ReasonUnknownState).Remedy, "delta resources touch explained new")
}

func explainUndecodable[M batchSized](t *testing.T, seen *reasonsSeen) {
	x := newExplaining[M](t, seen, nil)
	x.inform("new")
	x.exec(`update delta_resource set object = '"nonsense"'`)
	x.startClient()
	reason := x.awaitDeciding("new", delta.ReasonUndecodable)
	require.Contains(t, reason.Text, "does not decode into delta_test.explained")
	require.NotNil(t, reason.Since)
}

func explainLostWorker[M batchSized](t *testing.T, seen *reasonsSeen) {
	x := newExplaining[M](t, seen, nil)
	x.inform("lost")
	// What a process leaves that is killed in the middle of its first attempt.
	x.exec(`update delta_resource set state = 'pending', attempt = 1, attempted_at = now() - interval '1 minute', due_at = null, claim = gen_random_uuid(),
		claimed_until = now() - interval '30 seconds', dispatch_at = now() + interval '1 hour'`)
	x.startClient()
	reason := x.awaitDeciding("lost", delta.ReasonWorkerLost)
	require.Contains(t, reason.Text, "attempt 1")
	require.NotNil(t, reason.Until)
}

func explainNoFinalizer[M batchSized](t *testing.T, seen *reasonsSeen) {
	x := newExplaining[M](t, seen, nil).startClient()
	x.exec(`update delta_controller set finalizes = true`)
	x.inform("old")
	x.awaitDeciding("old", delta.ReasonSynced)
	_, err := x.c.Delete(t.Context(), "explained", "old")
	require.NoError(t, err)
	require.Contains(t, x.awaitDeciding("old", delta.ReasonFinalizing).Text, "a command has said so, and Finalize has not succeeded yet")
	x.exec(`update delta_resource set due_at = now() - interval '2 minutes', dispatch_at = now() - interval '2 minutes'`)
	require.Contains(t, x.awaitReason("explained", "old", delta.ReasonNoFinalizer).Remedy, "whose controller has the Finalizer")
	x.exec(`update delta_resource set finalized = null, due_at = now() + interval '1 hour'`)
	require.Contains(t, x.awaitDeciding("old", delta.ReasonDeleted).Text, "a command has said so")
}

// What was worked once, and is due again, does not wait for the workflow that it had.
func explainNextGeneration[M batchSized](t *testing.T, seen *reasonsSeen) {
	x := newExplaining[M](t, seen, nil).startClient()
	x.inform("ok")
	x.awaitDeciding("ok", delta.ReasonSynced)
	before := x.row("explained", "ok").WorkflowID
	require.NotEmpty(t, before)
	require.NoError(t, x.c.Stop(t.Context()))
	require.NoError(t, x.Temporal.TerminateWorkflow(t.Context(), before, "", "by the test"))
	require.True(t, x.explain("explained", "ok").IsSynced(), "a client that was stopped explains what needs no Temporal")
	x.c = x.client(x.config())
	w := sdkworker.New(x.Temporal, x.Prefix+"/explained", ownWorker()) // somebody polls, and nobody dispatches
	require.NoError(t, w.Start())
	t.Cleanup(w.Stop)
	_, err := x.c.Inform(t.Context(), explained[M]{Name: "ok", Key: "changed"}, nil)
	require.NoError(t, err)
	x.exec(`update delta_resource set workflow_id = $1`, before)
	require.Contains(t, x.awaitDeciding("ok", delta.ReasonDue).Text, "a dispatcher takes it within seconds")
	require.Len(t, x.explain("explained", "ok").Reasons, 1)
	// Leased to it, it does.
	x.exec(`update delta_resource set dispatch_at = now() + interval '1 minute'`)
	require.Contains(t, x.awaitDeciding("ok", delta.ReasonWorkflowGone).Text, before+" was terminated")
}

func explainHashed(t *testing.T, seen *reasonsSeen) {
	x := newExplaining[single](t, seen, func(c *delta.Config) {
		c.HashObjectIDs, c.Kinds = true, map[string]delta.ObjectSettings{"explained": {Parallelism: 1}}
	}).startClient()
	x.inform("held")
	x.awaitClaim("held")
	x.inform("secret")
	x.awaitDeciding("secret", delta.ReasonWorkerSlots)
	hashed := x.row("explained", "secret").HashedID
	require.NoError(t, x.Temporal.TerminateWorkflow(t.Context(), x.Prefix+"/explained/"+hashed, "", "by the test"))
	gone := x.awaitDeciding("secret", delta.ReasonWorkflowGone)
	require.Contains(t, gone.Text, hashed)
	require.NotContains(t, gone.Text, "secret")
}

func explainParents[M batchSized](t *testing.T, seen *reasonsSeen) {
	x := newExplaining[M](t, seen, nil).startClient()
	inform := func(name, parent string) {
		t.Helper()
		_, err := x.c.Inform(t.Context(), explained[M]{Name: name, Parent: parent}, nil)
		require.NoError(t, err)
	}
	inform("child", "mother")
	reason := x.awaitDeciding("child", delta.ReasonParent)
	require.Equal(t, "it waits for its parent explained/mother, which is not there: it was not informed yet, or its row was removed", reason.Text)
	require.Contains(t, reason.Remedy, "inform explained/mother")
	require.Equal(t, x.row("explained", "child").DueAt, reason.Since)
	inform("grandchild", "child")
	reason = x.awaitDeciding("grandchild", delta.ReasonParent)
	require.Contains(t, reason.Text, "its parent explained/child, which waits for explained/mother, which is not there")
	inform("hopeless", "")
	x.awaitDeciding("hopeless", delta.ReasonHopeless)
	inform("of the hopeless", "hopeless")
	reason = x.awaitDeciding("of the hopeless", delta.ReasonParent)
	require.Contains(t, reason.Text, "which is degraded and was never synced")
	require.Equal(t, "see what that waits for: delta resources explain explained hopeless", reason.Remedy)
	inform("mother", "")
	x.awaitDeciding("grandchild", delta.ReasonSynced)

	// Two transactions that do not see each other.
	var open []pgx.Tx
	for _, o := range []explained[M]{{Name: "left", Parent: "right"}, {Name: "right", Parent: "left"}} {
		tx, err := x.Pool.Begin(t.Context())
		require.NoError(t, err)
		defer tx.Rollback(context.Background()) //nolint:errcheck // it was committed
		_, err = x.c.InformTx(t.Context(), tx, o, nil)
		require.NoError(t, err)
		open = append(open, tx)
	}
	for _, tx := range open {
		require.NoError(t, tx.Commit(t.Context()))
	}
	inform("below", "left")
	reason = x.awaitDeciding("left", delta.ReasonParentCycle)
	require.Contains(t, reason.Text, "it waits for its parent explained/right, which waits for explained/left: a cycle")
	x.awaitDeciding("below", delta.ReasonParentCycle)
	_, err := x.c.Sync(t.Context(), explained[M]{Name: "left", Parent: "right", Key: "changed"}, nil)
	require.ErrorAs(t, err, new(*delta.ParentCycleError), "it makes the cycle again")
	_, err = x.c.Sync(t.Context(), explained[M]{Name: "below", Parent: "left", Key: "changed"}, nil)
	require.ErrorIs(t, err, delta.ErrNotSynced)
	require.ErrorContains(t, err, "a cycle")
	inform("left", "")
	x.awaitDeciding("below", delta.ReasonSynced)
	x.awaitDeciding("right", delta.ReasonSynced)
}
