package activities_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"github.com/chariot-giving/delta/activities"
)

// A listing that holds objects which cannot be taken is not better for being repeated at once.
func TestAPassWithRefusedObjectsWritesTheOthersNamesSomeAndIsNotRepeated(t *testing.T) {
	t.Parallel()
	items := []activities.Listed{item(object("good", "1"))}
	for i := range 8 {
		items = append(items, activities.Listed{Err: fmt.Errorf("bad %d", i)})
	}
	items = append(items, item(object("also good", "1")))
	h := newInformer(t, lists(items...))
	progress, err := h.pass()
	var final *temporal.ApplicationError
	require.ErrorAs(t, err, &final)
	require.Equal(t, activities.RefusedObjects, final.Type())
	require.True(t, final.NonRetryable())
	require.ErrorContains(t, err, "8 of 10")
	require.ErrorContains(t, err, "bad 0; bad 1; bad 2; bad 3; bad 4")
	require.NotContains(t, err.Error(), "bad 5")
	require.Equal(t, activities.InformProgress{Listed: 10, Scheduled: 2, Refused: 8}, progress)
	require.NotNil(t, h.row(h.ref("good")))
	require.NotNil(t, h.row(h.ref("also good")))
}

// What only Postgres can tell, such as a number beyond its range, is no worse for its page than what Delta refuses.
func TestAPassRefusesWhatPostgresDoesAndTakesTheOthers(t *testing.T) {
	t.Parallel()
	var items []activities.Listed
	for i := range 100 {
		o := object(fmt.Sprintf("%02d", i), "1")
		if i == 30 || i == 99 {
			o.EncodedObject = []byte("1e200000")
		}
		items = append(items, item(o))
	}
	h := newInformer(t, lists(items...))
	progress, err := h.pass()
	var final *temporal.ApplicationError
	require.ErrorAs(t, err, &final)
	require.Equal(t, activities.RefusedObjects, final.Type())
	require.ErrorContains(t, err, "2 of 100")
	require.ErrorContains(t, err, "thing/30: ERROR: value overflows numeric format")
	require.ErrorContains(t, err, "thing/99")
	require.Equal(t, activities.InformProgress{Listed: 100, Scheduled: 98, Refused: 2}, progress)
	require.NotNil(t, h.row(h.ref("29")))
	require.Nil(t, h.row(h.ref("30")))
}

// Temporal does not take an error of any size, and a pass whose error cannot be told looks like a worker that is gone.
func TestTheErrorsOfAPassAreBounded(t *testing.T) {
	t.Parallel()
	long := errors.New(strings.Repeat("x", 5<<20))
	_, err := newInformer(t, lists(activities.Listed{Err: long, Fatal: true})).pass()
	require.Less(t, len(err.Error()), 10_000)
	_, err = newInformer(t, lists(slices.Repeat([]activities.Listed{{Err: long}}, 5)...)).pass()
	require.Less(t, len(err.Error()), 10_000)
}

func TestAPassRefusesWhatWouldMoveToAnotherNamespace(t *testing.T) {
	t.Parallel()
	mine, theirs := object("1001", "mine"), object("1001", "theirs")
	mine.Namespace, theirs.Namespace = "acme", "globex"
	h := newInformer(t, lists(item(theirs), item(object("1002", "new"))))
	h.inform(mine)
	before := h.row(h.ref("1001"))
	progress, err := h.pass()
	require.ErrorContains(t, err, `the resource is in namespace "acme"`)
	require.Equal(t, 1, progress.Refused)
	require.Equal(t, before, h.row(h.ref("1001")))
	require.NotNil(t, h.row(h.ref("1002")))
}
