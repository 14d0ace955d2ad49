package delta_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// touchedConfig touches payments when their parents change.
func (f *family[M]) touchedConfig(add ...func(*delta.Controllers)) *delta.Config {
	config := f.config(add...)
	config.Kinds = map[string]delta.ObjectSettings{"payment": {TouchedBy: []string{"account", "payment"}}}
	return config
}

// awaitCalm waits until no touches are pending, and all resources are synced. Then nothing changes any more.
func (f *family[M]) awaitCalm() {
	f.t.Helper()
	until(f.t, func() bool {
		return f.countRows(`SELECT (SELECT count(*) FROM delta_touch) + (SELECT count(*) FROM delta_resource WHERE state <> 'synced')`) == 0
	}, "all are touched, and synced")
}

// generation returns the generation of a payment, which rises with each touch.
func (f *family[M]) generation(name string) int64 {
	f.t.Helper()
	return f.row("payment", name).Generation
}

func TestChildrenAreTouchedWhenTheirParentHasChanged(t *testing.T) {
	soak.Long(t)
	inFamilies(t, childrenAreTouched[single], childrenAreTouched[batches])
}

func childrenAreTouched[M batchSized](t *testing.T) {
	f := newFamily[M](t)
	f.c = f.start(f.touchedConfig(f.payments(), f.accounts()))
	f.inform(account{Name: "ann"}, account{Name: "bob"}, payment[M]{Name: "p", Tenant: "other", Of: []delta.Ref{accountRef("bob"), accountRef("ann")}},
		payment[M]{Name: "q", Of: []delta.Ref{accountRef("bob")}}, payment[M]{Name: "of p", Of: []delta.Ref{paymentRef("p")}})
	f.awaitCalm()
	p, q, ofP := f.generation("p"), f.generation("q"), f.generation("of p")
	f.inform(account{Name: "ann", Plan: "gold"})
	f.awaitSynced("payment", "p", p+1)
	f.awaitCalm()
	require.Equal(t, p+1, f.generation("p"), "once")
	require.Equal(t, q, f.generation("q"), "it is another's")
	require.Equal(t, ofP, f.generation("of p"), "p is unchanged: it was only worked again")
	row := f.row("payment", "p")
	require.Equal(t, delta.PriorityBackfill, row.Priority, "touched children come after informed ones")

	// Two parents at once, and a child that changes itself.
	f.inform(account{Name: "ann", Plan: "lead"}, account{Name: "bob", Plan: "lead"})
	f.awaitSynced("payment", "q", q+1)
	f.inform(payment[M]{Name: "p", Plan: "mine", Tenant: "other", Of: []delta.Ref{accountRef("bob"), accountRef("ann")}})
	f.awaitCalm()
	f.eventually("payment", "of p", func(r *deltatype.ResourceRow) bool { return r.Generation > ofP }) // p has changed
	f.awaitCalm()
	require.Equal(t, q+1, f.generation("q"))
}

// A parent changes while no client can touch its children, as when the process dies after its outcome. Later each child is touched once, however
// often the parent changed.
func TestChildrenAreTouchedOnceWhenTheirClientIsBack(t *testing.T) {
	soak.Long(t)
	inFamilies(t, childrenAreTouchedLater[single], childrenAreTouchedLater[batches])
}

func childrenAreTouchedLater[M batchSized](t *testing.T) {
	f := newFamily[M](t)
	f.c = f.start(f.touchedConfig(f.payments()))
	other := f.start(f.config(f.accounts()))
	sync := func(name, plan string) {
		t.Helper()
		_, err := other.Sync(t.Context(), account{Name: name, Plan: plan}, nil)
		require.NoError(t, err)
	}
	sync("ann", "")
	sync("bob", "")
	var children []delta.Object
	for n := range 30 {
		children = append(children, payment[M]{Name: fmt.Sprintf("p%02d", n), Of: []delta.Ref{accountRef("ann")}})
	}
	f.inform(append(children, payment[M]{Name: "q", Of: []delta.Ref{accountRef("bob")}})...)
	f.awaitCalm()
	f.exec(`UPDATE delta_resource SET generation = 5, synced_generation = 5 WHERE kind = 'payment'`)
	stopped, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, f.c.Stop(stopped))

	for n := range 3 {
		sync("ann", fmt.Sprint(n))
	}
	_, err := other.Touch(t.Context(), "account", "bob")
	require.NoError(t, err)
	f.eventually("account", "bob", func(r *deltatype.ResourceRow) bool {
		return r.SyncCount == 2 && r.State == deltatype.ResourceStateSynced
	})
	require.Equal(t, 1, f.countRows(`SELECT count(*) FROM delta_touch`), "once for ann: bob was only worked again")
	kinds, err := other.Kinds(t.Context())
	require.NoError(t, err)
	for _, k := range kinds {
		if k.Kind == "payment" {
			require.EqualValues(t, 1, k.Touches)
			require.False(t, k.OldestTouch.Before(*f.row("account", "ann").SyncedAt))
		}
	}

	// One child is locked for a while, and delays no other.
	tx, err := f.Pool.Begin(t.Context())
	require.NoError(t, err)
	defer tx.Rollback(context.Background()) //nolint:errcheck // it only holds locks
	_, err = tx.Exec(t.Context(), `SELECT FROM delta_resource WHERE object_id = 'p07' FOR UPDATE`)
	require.NoError(t, err)
	f.start(f.touchedConfig(f.payments()))
	f.start(f.touchedConfig(f.payments())) // both clients touch children
	until(t, func() bool {
		return f.countRows(`SELECT count(*) FROM delta_resource WHERE kind = 'payment' AND generation = 6 AND state = 'synced'`) == 29
	}, "the others")
	require.Equal(t, 1, f.countRows(`SELECT count(*) FROM delta_touch`), "the pending touch is kept")
	require.NoError(t, tx.Rollback(t.Context()))
	f.awaitSynced("payment", "p07", 6)
	f.awaitCalm()
	require.Equal(t, 30, f.countRows(`SELECT count(*) FROM delta_resource WHERE kind = 'payment' AND generation = 6`), "each once")
	require.EqualValues(t, 5, f.generation("q"))
}

// A parent that comes back unchanged was gone meanwhile, and its children may have seen that.
func TestChildrenAreTouchedWhenTheirParentIsBack(t *testing.T) {
	soak.Long(t)
	inFamilies(t, childrenOfOneThatIsBack[single], childrenOfOneThatIsBack[batches])
}

func childrenOfOneThatIsBack[M batchSized](t *testing.T) {
	f := newFamily[M](t)
	parent := unguarded{newMirrors(1)[0]}
	outside := &upstream[unguarded]{}
	outside.set(parent)
	config := f.config(f.payments(), with(&controller[unguarded]{inform: outside.inform}))
	config.Kinds = map[string]delta.ObjectSettings{"payment": {TouchedBy: []string{parent.Kind()}}}
	f.c = f.start(config)
	list := func() {
		t.Helper()
		_, err := f.c.RunInform(t.Context(), delta.ScheduleInformParams{ResourceKind: parent.Kind(), RunForeground: true}, nil)
		require.NoError(t, err)
	}
	list()
	f.inform(payment[M]{Name: "p", Of: []delta.Ref{{Kind: parent.Kind(), ObjectID: parent.ID()}}})
	f.awaitCalm()
	p := f.generation("p")
	for i, way := range []struct {
		name       string
		goes, back func()
	}{
		{"a listing", func() { outside.set(); list() }, func() { outside.set(parent); list() }},
		{"a command", func() { _, err := f.c.Delete(t.Context(), parent.Kind(), parent.ID()); require.NoError(t, err) }, func() { f.inform(parent) }},
	} {
		way.goes()
		f.eventually(parent.Kind(), parent.ID(), func(r *deltatype.ResourceRow) bool { return r.State == deltatype.ResourceStateDeleted })
		way.back()
		f.awaitSynced("payment", "p", p+int64(i)+1)
		f.awaitCalm()
		require.Equal(t, p+int64(i)+1, f.generation("p"), "%s: once", way.name)
	}
}

// Work may have read the parent before the change.
func TestAChildThatIsWorkedWhileItsParentChangesIsWorkedAgain(t *testing.T) {
	soak.Long(t)
	inFamilies(t, touchedWhileWorked[single], touchedWhileWorked[batches])
}

func touchedWhileWorked[M batchSized](t *testing.T) {
	f := newFamily[M](t)
	begun, goOn := make(chan struct{}, 10), make(chan struct{})
	f.c = f.start(f.touchedConfig(f.accounts(), with(&controller[payment[M]]{work: func(ctx context.Context, r *delta.Resource[payment[M]]) error {
		if r.ObjectID == "hopeless" && r.SyncCount == 0 {
			return delta.ResourceDegrade(errors.New("its account is closed"))
		}
		if r.ObjectID == "slow" && r.Generation == 1 {
			begun <- struct{}{}
			select {
			case <-goOn:
			case <-ctx.Done():
			}
		}
		return f.workPayment(ctx, r)
	}})))
	f.inform(account{Name: "ann"})
	f.awaitSynced("account", "ann", 1)
	f.inform(payment[M]{Name: "slow", Of: []delta.Ref{accountRef("ann")}})
	<-begun
	f.inform(account{Name: "ann", Plan: "gold"})
	f.eventually("payment", "slow", func(r *deltatype.ResourceRow) bool { return r.Generation == 2 })
	close(goOn)
	f.awaitSynced("payment", "slow", 2)
	require.Equal(t, 2, f.callsOf("slow"))
	f.awaitCalm()

	// A degraded child is retried.
	f.inform(payment[M]{Name: "hopeless", Of: []delta.Ref{accountRef("ann")}})
	f.eventually("payment", "hopeless", inState(deltatype.ResourceStateDegraded))
	f.inform(account{Name: "ann", Plan: "lead"})
	f.eventually("payment", "hopeless", func(r *deltatype.ResourceRow) bool {
		return r.Generation == 2 && r.State == deltatype.ResourceStateDegraded
	})
}

// Two concurrent informs can make a cycle of synced resources. Touches must not circulate for ever.
func TestACycleOfParentsIsTouchedOnce(t *testing.T) {
	soak.Long(t)
	inFamilies(t, cycleIsTouched[single], cycleIsTouched[batches])
}

func cycleIsTouched[M batchSized](t *testing.T) {
	f := newFamily[M](t)
	f.c = f.start(f.touchedConfig(f.payments()))
	f.inform(payment[M]{Name: "a"}, payment[M]{Name: "b"})
	f.awaitCalm()
	f.exec(`UPDATE delta_resource SET parents = CASE object_id WHEN 'a' THEN '{payment/b}' ELSE '{payment/a}' END::text[]`)
	f.exec(`UPDATE delta_resource SET hash = '\x00' WHERE object_id = 'b'`) // b has changed
	_, err := f.c.Touch(t.Context(), "payment", "b")
	require.NoError(t, err)
	f.awaitSynced("payment", "b", 2)
	f.awaitSynced("payment", "a", 2)
	f.awaitCalm()
	require.EqualValues(t, 2, f.generation("a"))
	require.EqualValues(t, 2, f.generation("b"), "a is unchanged")
}

func TestTouchedByIsChecked(t *testing.T) {
	t.Parallel()
	f := newFamily[single](t)
	for name, s := range map[string]map[string]delta.ObjectSettings{
		"no parents":  {"account": {TouchedBy: []string{"account"}}},
		"no name":     {"payment": {TouchedBy: []string{"pay/ment"}}},
		"named twice": {"payment": {TouchedBy: []string{"account", "account"}}},
	} {
		config := f.config(f.payments(), f.accounts())
		config.Kinds = s
		_, err := delta.NewClient(f.Pool, config)
		input := new(delta.InputError)
		require.ErrorAs(t, err, &input, name)
		require.Contains(t, input.Field, "TouchedBy", name)
	}
	// A client without TouchedBy clears the setting for all clients, and drops pending touches that nobody would execute.
	f.exec(`INSERT INTO delta_touch (kind, parent, changed_at) VALUES ('payment', 'account/ann', now()), ('other', 'account/ann', now())`)
	f.start(f.config(f.payments()))
	require.Equal(t, 1, f.countRows(`SELECT count(*) FROM delta_touch`))
}
