package delta_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
	"github.com/chariot-giving/delta/workflows"
)

// payment is of no use before its parents exist: accounts, or other payments.
type payment[M batchSized] struct {
	Name   string
	Plan   string
	Of     []delta.Ref
	Tenant string
}

func (o payment[M]) ID() string           { return o.Name }
func (o payment[M]) Kind() string         { return "payment" }
func (o payment[M]) Parents() []delta.Ref { return o.Of }
func (o payment[M]) InformOpts() delta.InformOpts {
	return delta.InformOpts{Namespace: o.Tenant}
}

func (o payment[M]) Settings() delta.ObjectSettings {
	var m M
	return delta.ObjectSettings{Parallelism: 8, InformInterval: -1, BatchSize: m.batchSize()}
}

func accountRef(name string) delta.Ref { return delta.Ref{Kind: "account", ObjectID: name} }
func paymentRef(name string) delta.Ref { return delta.Ref{Kind: "payment", ObjectID: name} }

// family has payments and accounts that a client works. A call of Work for a payment with a parent that was never synced fails the test.
type family[M batchSized] struct {
	*harness
	c *delta.Client
	// removed has parents whose rows the test has removed.
	removed sync.Map

	mu    sync.Mutex
	calls map[string]int
	// refuse has the errors that Work of accounts returns, by name.
	refuse map[string]error
	// held are accounts whose Work blocks.
	held map[string]chan struct{}
}

func newFamily[M batchSized](t *testing.T) *family[M] {
	t.Helper()
	return &family[M]{harness: newHarness(t), calls: map[string]int{}, refuse: map[string]error{}, held: map[string]chan struct{}{}}
}

func (f *family[M]) payments() func(*delta.Controllers) {
	return with(&controller[payment[M]]{work: f.workPayment})
}

func (f *family[M]) accounts() func(*delta.Controllers) {
	return with(&controller[account]{work: f.workAccount})
}

func (f *family[M]) startFamily() *family[M] {
	f.c = f.start(f.config(f.payments(), f.accounts()))
	return f
}

func (f *family[M]) workPayment(ctx context.Context, r *delta.Resource[payment[M]]) error {
	f.mu.Lock()
	f.calls[r.ObjectID]++
	f.mu.Unlock()
	for _, parent := range r.Object.Of {
		if _, removed := f.removed.Load(parent); removed {
			continue
		}
		var synced bool
		err := f.Pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM delta_resource WHERE kind = $1 AND object_id = $2 AND sync_count > 0)`, parent.Kind, parent.ObjectID).Scan(&synced)
		if err != nil {
			return err
		}
		if !synced {
			f.t.Errorf("%s was worked before %s", r.ObjectID, parent)
		}
	}
	return nil
}

func (f *family[M]) workAccount(ctx context.Context, r *delta.Resource[account]) error {
	f.mu.Lock()
	held, err := f.held[r.ObjectID], f.refuse[r.ObjectID]
	f.mu.Unlock()
	if held != nil {
		select {
		case <-held:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return err
}

func (f *family[M]) callsOf(name string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[name]
}

func (f *family[M]) inform(objects ...delta.Object) {
	f.t.Helper()
	_, err := f.c.InformMany(f.t.Context(), objects, nil)
	require.NoError(f.t, err)
}

// awaitWaiting waits until a payment waits for a parent, and checks that it is in no dispatcher's index.
func (f *family[M]) awaitWaiting(name string, parent delta.Ref) {
	f.t.Helper()
	row := f.eventually("payment", name, func(r *deltatype.ResourceRow) bool {
		return r.DispatchAt == nil && len(r.AwaitedParents) > 0 && r.AwaitedParents[0] == parent
	})
	require.Equal(f.t, deltatype.ResourceStateScheduled, row.State)
}

func (f *family[M]) awaitSynced(kind, name string, generation int64) {
	f.t.Helper()
	f.eventually(kind, name, synced(generation))
}

// inFamilies runs a test in both modes.
func inFamilies(t *testing.T, ofSingles, ofBatches func(*testing.T)) {
	t.Helper()
	t.Parallel()
	for name, test := range map[string]func(*testing.T){"single": ofSingles, "batches": ofBatches} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t)
		})
	}
}

func TestAChildWaitsUntilItsParentsWereSynced(t *testing.T) {
	soak.Long(t)
	inFamilies(t, childWaits[single], childWaits[batches])
}

func childWaits[M batchSized](t *testing.T) {
	f := newFamily[M](t).startFamily()
	f.inform(payment[M]{Name: "p", Tenant: "other", Of: []delta.Ref{accountRef("ann"), accountRef("bob"), accountRef("ann")}})
	f.awaitWaiting("p", accountRef("ann"))
	row := f.row("payment", "p")
	require.Equal(t, []delta.Ref{accountRef("ann"), accountRef("bob")}, row.Parents, "each once")
	require.Zero(t, row.Attempt)
	kinds, err := f.c.Kinds(t.Context())
	require.NoError(t, err)
	for _, k := range kinds {
		if k.Kind == "payment" {
			require.EqualValues(t, 1, k.Awaiting)
			require.EqualValues(t, 1, k.AwaitedParents)
			require.Zero(t, k.Late)
		}
	}
	// A workflow that reads its row finds nothing to do.
	_, err = f.Temporal.SignalWithStartWorkflow(t.Context(), f.Prefix+"/payment/p", workflows.WakeSignal, nil,
		client.StartWorkflowOptions{ID: f.Prefix + "/payment/p", TaskQueue: f.Prefix + "/payment"}, workflows.ResourceName, map[string]any{"kind": "payment", "object_id": "p"})
	require.NoError(t, err)
	patient, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, f.Temporal.GetWorkflow(patient, f.Prefix+"/payment/p", "").Get(patient, nil), "the workflow ends, and a dispatcher starts another one")
	f.awaitWaiting("p", accountRef("ann"))
	require.Zero(t, f.callsOf("p"))

	f.inform(account{Name: "ann"})
	f.awaitWaiting("p", accountRef("bob"))
	require.Zero(t, f.callsOf("p"))
	f.inform(account{Name: "bob"})
	f.awaitSynced("payment", "p", 1)
	require.Nil(t, f.row("payment", "p").AwaitedParents)

	// From then on the parents count as synced, whatever happens to them.
	for _, name := range []string{"ann", "bob"} {
		f.removed.Store(accountRef(name), true)
	}
	f.exec(`DELETE FROM delta_resource WHERE kind = 'account'`)
	f.inform(payment[M]{Name: "p", Plan: "gold", Tenant: "other", Of: []delta.Ref{accountRef("bob"), accountRef("ann")}})
	f.awaitSynced("payment", "p", 2)
	// For another child they do not.
	f.inform(payment[M]{Name: "q", Of: []delta.Ref{accountRef("ann")}})
	f.awaitWaiting("q", accountRef("ann"))
	f.inform(account{Name: "ann"})
	f.awaitSynced("payment", "q", 1)
}

func TestAChildWaitsForParentsThatAreNewToIt(t *testing.T) {
	inFamilies(t, childGetsOtherParents[single], childGetsOtherParents[batches])
}

func childGetsOtherParents[M batchSized](t *testing.T) {
	f := newFamily[M](t).startFamily()
	f.inform(account{Name: "ann"}, payment[M]{Name: "p", Of: []delta.Ref{accountRef("ann")}})
	f.awaitSynced("payment", "p", 1)
	f.inform(payment[M]{Name: "p", Of: []delta.Ref{accountRef("ann"), accountRef("bob")}})
	f.awaitWaiting("p", accountRef("bob"))
	require.Equal(t, 1, f.callsOf("p"))
	// Other parents again, while it waits.
	f.inform(payment[M]{Name: "p", Of: []delta.Ref{accountRef("cid")}})
	f.awaitWaiting("p", accountRef("cid"))
	f.inform(account{Name: "bob"}, account{Name: "cid"})
	f.awaitSynced("payment", "p", 3)
	// No parents any more.
	f.inform(payment[M]{Name: "p", Of: []delta.Ref{accountRef("dan")}})
	f.awaitWaiting("p", accountRef("dan"))
	f.inform(payment[M]{Name: "p"})
	f.awaitSynced("payment", "p", 5)
	require.Nil(t, f.row("payment", "p").Parents)
}

// A child waits for a parent that is degraded, paused or deleted before its first sync. Commands on the child do not change that.
func TestAChildWaitsForAParentThatIsNotSynced(t *testing.T) {
	inFamilies(t, parentIsNotSynced[single], parentIsNotSynced[batches])
}

func parentIsNotSynced[M batchSized](t *testing.T) {
	f := newFamily[M](t)
	f.refuse["bad"] = delta.ResourceDegrade(errors.New("hopeless"))
	f.startFamily()
	f.inform(account{Name: "bad"}, payment[M]{Name: "p", Of: []delta.Ref{accountRef("bad")}})
	f.awaitWaiting("p", accountRef("bad"))
	row, err := f.c.Sync(t.Context(), payment[M]{Name: "p", Of: []delta.Ref{accountRef("bad")}}, nil)
	require.ErrorIs(t, err, delta.ErrNotSynced)
	require.ErrorContains(t, err, "it waits for its parent account/bad, which is degraded and was never synced")
	require.Equal(t, deltatype.ResourceStateScheduled, row.State)
	_, err = f.c.Touch(t.Context(), "payment", "p")
	require.NoError(t, err)
	f.awaitWaiting("p", accountRef("bad"))
	_, err = f.c.Delete(t.Context(), "account", "bad")
	require.NoError(t, err)
	_, err = f.c.Sync(t.Context(), payment[M]{Name: "p", Plan: "gold", Of: []delta.Ref{accountRef("bad")}}, nil)
	require.ErrorContains(t, err, "which is deleted and was never synced")

	// A child that is deleted and revived still waits.
	_, err = f.c.Delete(t.Context(), "payment", "p")
	require.NoError(t, err)
	_, err = f.c.Revive(t.Context(), "payment", "p")
	require.NoError(t, err)
	f.awaitWaiting("p", accountRef("bad"))
	// So does one that is paused and resumed.
	_, err = f.c.Pause(t.Context(), "payment", "p")
	require.NoError(t, err)
	_, err = f.c.Resume(t.Context(), "payment", "p")
	require.NoError(t, err)
	f.awaitWaiting("p", accountRef("bad"))
	require.Zero(t, f.callsOf("p"))
	f.mu.Lock()
	delete(f.refuse, "bad")
	f.mu.Unlock()
	f.inform(account{Name: "bad", Plan: "better"})
	f.eventually("payment", "p", inState(deltatype.ResourceStateSynced))
}

func TestSyncWaitsForAParentThatIsOnItsWay(t *testing.T) {
	soak.Long(t)
	inFamilies(t, syncWaits[single], syncWaits[batches])
}

func syncWaits[M batchSized](t *testing.T) {
	f := newFamily[M](t)
	f.held["slow"] = make(chan struct{})
	f.startFamily()
	f.inform(account{Name: "slow"})
	f.eventually("account", "slow", inState(deltatype.ResourceStatePending))
	child := payment[M]{Name: "p", Of: []delta.Ref{accountRef("slow")}}
	f.inform(child)
	f.awaitWaiting("p", accountRef("slow"))
	until(t, func() bool { // a busy machine may not read the row before ctx ends
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := f.c.Sync(ctx, child, nil)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		return strings.Contains(err.Error(), "it waits for its parent account/slow, which is pending and was never synced")
	})
	close(f.held["slow"])
	row, err := f.c.Sync(t.Context(), child, nil)
	require.NoError(t, err)
	require.EqualValues(t, 1, row.SyncCount)
}

// A set is leased to batches when it is informed, with children and their parents in the same batch.
func TestParentsAndChildrenOfOneSet(t *testing.T) {
	soak.Long(t)
	inFamilies(t, familyOfOneSet[single], familyOfOneSet[batches])
}

func familyOfOneSet[M batchSized](t *testing.T) {
	f := newFamily[M](t).startFamily()
	const members = 120
	objects := []delta.Object{}
	for n := members; n > 0; n-- { // children first
		o := payment[M]{Name: fmt.Sprintf("p%03d", n)}
		if n > 1 {
			o.Of = append(o.Of, paymentRef(fmt.Sprintf("p%03d", n/2)))
		}
		if n%10 == 0 {
			o.Of = append(o.Of, accountRef("ann"))
		}
		objects = append(objects, o)
	}
	tx, err := f.Pool.Begin(t.Context())
	require.NoError(t, err)
	defer tx.Rollback(context.Background()) //nolint:errcheck // it was committed
	_, err = f.c.InformManyTx(t.Context(), tx, objects[:members/2], nil)
	require.NoError(t, err)
	require.NoError(t, tx.Commit(t.Context()))
	f.inform(append(objects[members/2:], account{Name: "ann"})...)
	for n := 1; n <= members; n++ {
		f.awaitSynced("payment", fmt.Sprintf("p%03d", n), 1)
	}
}

// The client that syncs the parent does not work the children, so another client wakes them, even if the first process dies right after the outcome.
func TestChildrenAreWokenByTheirOwnClients(t *testing.T) {
	soak.Long(t)
	inFamilies(t, wokenElsewhere[single], wokenElsewhere[batches])
}

func wokenElsewhere[M batchSized](t *testing.T) {
	f := newFamily[M](t)
	f.c = f.start(f.config(f.payments()))
	other := f.start(f.config(f.accounts()))
	f.inform(payment[M]{Name: "p", Of: []delta.Ref{accountRef("ann")}}, payment[M]{Name: "q", Of: []delta.Ref{accountRef("bob")}})
	f.awaitWaiting("p", accountRef("ann"))
	f.awaitWaiting("q", accountRef("bob"))
	_, err := other.Sync(t.Context(), account{Name: "ann"}, nil)
	require.NoError(t, err)
	f.awaitSynced("payment", "p", 1)
	f.exec(`INSERT INTO delta_resource (kind, object_id, namespace, max_attempts, hash, object, state, synced_generation, sync_count)
		VALUES ('account', 'bob', 'default', 1, '', '{}', 'synced', 1, 1)`)
	f.awaitSynced("payment", "q", 1)
}

// More children than one statement wakes.
func TestManyChildrenOfOneParent(t *testing.T) {
	soak.Long(t)
	inFamilies(t, manyChildren[single], manyChildren[batches])
}

func manyChildren[M batchSized](t *testing.T) {
	f := newFamily[M](t).startFamily()
	children := 150
	if _, isSingle := any(f).(*family[single]); !isSingle {
		children = 2300
	}
	var objects []delta.Object
	for n := range children {
		objects = append(objects, payment[M]{Name: fmt.Sprintf("p%04d", n), Of: []delta.Ref{accountRef("ann")}})
	}
	f.inform(objects...)
	waiting := `SELECT count(*) FROM delta_resource WHERE awaited_parents IS NOT NULL AND dispatch_at IS NULL`
	until(t, func() bool { return f.countRows(waiting) == children }, "they wait")
	f.inform(account{Name: "ann"})
	until(t, func() bool {
		return f.countRows(`SELECT count(*) FROM delta_resource WHERE state = 'synced'`) == children+1
	}, "all are synced")
	require.Zero(t, f.countRows(waiting))
}

// The program's parents of an object change, while the object stays the same.
func TestOtherParentsOfTheSameObject(t *testing.T) {
	t.Parallel()
	f := newFamily[single](t).startFamily()
	f.inform(payment[single]{Name: "p", Of: []delta.Ref{accountRef("ann")}})
	f.awaitWaiting("p", accountRef("ann"))
	// The parents of an earlier version of the program.
	f.exec(`UPDATE delta_resource SET parents = '{account/old}', awaited_parents = '{account/old}'`)
	f.inform(payment[single]{Name: "p", Of: []delta.Ref{accountRef("ann")}})
	f.awaitWaiting("p", accountRef("ann"))
	require.EqualValues(t, 1, f.row("payment", "p").Generation)
	f.inform(account{Name: "ann"})
	f.awaitSynced("payment", "p", 1)
}
