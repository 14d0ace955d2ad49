package delta_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	sdkworker "go.temporal.io/sdk/worker"

	"github.com/chariot-giving/delta/delta"
)

// workerIdentity returns the beginning of the SDK's identity for workers of this process.
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

// A long claim is renewed in another table than the row.
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

// Members of a batch are claimed while they wait for the rate.
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

	// Another client does not know this one's configuration, only the database.
	other := &explaining[single]{harness: x.harness, c: x.client(x.config()), seen: seen}
	other.awaitDeciding("next", delta.ReasonWorkerSlots)
	require.NoError(t, x.c.SetNamespace(t.Context(), "default", delta.NamespaceConfig{MaxWorkers: 1}))
	other.awaitDeciding("next", delta.ReasonNamespaceSlots)
}

// A batch claims up to 500 members at once, and the others when these have been given to Work.
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
	// The state after a process was killed in its first attempt.
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

// A resource that is due again does not wait for its former workflow.
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
	w := sdkworker.New(x.Temporal, x.Prefix+"/explained", ownWorker()) // a worker polls, but no dispatcher runs
	require.NoError(t, w.Start())
	t.Cleanup(w.Stop)
	_, err := x.c.Inform(t.Context(), explained[M]{Name: "ok", Key: "changed"}, nil)
	require.NoError(t, err)
	x.exec(`update delta_resource set workflow_id = $1`, before)
	require.Contains(t, x.awaitDeciding("ok", delta.ReasonDue).Text, "a dispatcher takes it within seconds")
	require.Len(t, x.explain("explained", "ok").Reasons, 1)
	// Once leased to that workflow, it does.
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

	// Two concurrent transactions do not see each other.
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
