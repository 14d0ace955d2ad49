package delta_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
)

func TestACycleOfParentsIsRefused(t *testing.T) {
	t.Parallel()
	f := newFamily[batches](t)
	f.c = f.client(f.config()) // nothing is worked
	child := func(name string, parents ...string) payment[batches] {
		o := payment[batches]{Name: name}
		for _, parent := range parents {
			o.Of = append(o.Of, paymentRef(parent))
		}
		return o
	}
	refused := func(err error, path ...string) {
		t.Helper()
		cycle := new(delta.ParentCycleError)
		require.ErrorAs(t, err, &cycle)
		var names []string
		for _, ref := range cycle.Path {
			names = append(names, ref.ObjectID)
		}
		require.Equal(t, path, names)
		require.ErrorContains(t, err, "payment/"+strings.Join(path, " → payment/"))
	}
	_, err := f.c.Inform(t.Context(), child("a", "a"), nil)
	refused(err, "a", "a")
	_, err = f.c.InformMany(t.Context(), []delta.Object{account{Name: "ann"}, child("a", "b"), child("b", "c"), child("c", "a")}, nil)
	refused(err, "a", "b", "c", "a")
	require.Zero(t, f.countRows(`SELECT count(*) FROM delta_resource`), "nothing was written")

	f.inform(child("a", "x", "b"), child("b", "c"))
	_, err = f.c.Inform(t.Context(), child("c", "y", "a"), nil)
	refused(err, "c", "a", "b", "c")
	require.Nil(t, f.row("payment", "c"))
	// The informed parents replace the stored ones.
	f.inform(child("c", "a"), child("b"))
	_, err = f.c.Inform(t.Context(), child("b", "c"), nil)
	refused(err, "b", "c", "a", "b")

	// In a transaction, which stays usable.
	tx, err := f.Pool.Begin(t.Context())
	require.NoError(t, err)
	defer tx.Rollback(context.Background()) //nolint:errcheck // it was committed
	_, err = f.c.InformTx(t.Context(), tx, child("d", "e"), nil)
	require.NoError(t, err)
	_, err = f.c.InformTx(t.Context(), tx, child("e", "d"), nil)
	refused(err, "e", "d", "e")
	require.NoError(t, tx.Commit(t.Context()))
	require.NotNil(t, f.row("payment", "d"))
	require.Nil(t, f.row("payment", "e"))

	// In a set, the error names the right object.
	var calls sync.WaitGroup
	errs := make([]error, 20)
	for n := range errs {
		calls.Go(func() {
			o := child(fmt.Sprintf("f%02d", n))
			if n == 7 {
				o = child("f07", "f07x")
			}
			_, errs[n] = f.c.Inform(context.Background(), o, nil)
		})
	}
	calls.Wait()
	for _, err := range errs {
		require.NoError(t, err)
	}
	_, err = f.c.Inform(t.Context(), child("f07x", "f07"), nil)
	refused(err, "f07x", "f07", "f07x")

	for _, wrong := range []delta.Ref{{}, {Kind: "payment"}, {Kind: "pay/ment", ObjectID: "x"}, {Kind: "payment", ObjectID: "\n"}} {
		_, err = f.c.Inform(t.Context(), payment[batches]{Name: "p", Of: []delta.Ref{wrong}}, nil)
		require.ErrorAs(t, err, new(*delta.InputError), "%v", wrong)
	}
	many := child("p")
	for n := range 17 {
		many.Of = append(many.Of, paymentRef(fmt.Sprint(n)))
	}
	_, err = f.c.Inform(t.Context(), many, nil)
	require.ErrorContains(t, err, "16 at most")
}
