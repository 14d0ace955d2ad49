package activities_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// readRefused reads the refused objects: the rule of each id.
func (h *harness) readRefused() map[string]string {
	h.t.Helper()
	rows, err := db.New().ListRefused(context.Background(), h.Pool, db.ListRefusedParams{Kind: kind, Most: 5000})
	require.NoError(h.t, err)
	all := map[string]string{}
	for _, r := range rows {
		all[r.ObjectID] = r.Rule
	}
	return all
}

// badItem is an object that cannot be taken, as the adapter hands it on.
func badItem(id string) activities.Listed {
	o := object(id, "1")
	return activities.Listed{Params: deltatype.ObjectInformParams{ResourceID: id, EncodedObject: o.EncodedObject}, Err: errors.New("bad " + id)}
}

func TestAPassTakesWhatIsNotRefused(t *testing.T) {
	t.Parallel()
	items := []activities.Listed{item(object("good", "1"))}
	for i := range 8 {
		items = append(items, badItem(fmt.Sprint(i)))
	}
	items = append(items, badItem(""), badItem("\xff\x00"), badItem(strings.Repeat("x", 600)), item(object("also good", "1")))
	h := newInformer(t, lists(items...))
	progress, err := h.pass()
	require.NoError(t, err)
	require.Equal(t, activities.InformProgress{Listed: 13, Scheduled: 2, Refused: 11}, progress)
	require.NotNil(t, h.row(h.ref("good")))
	require.NotNil(t, h.row(h.ref("also good")))
	require.Positive(t, h.cursor().Unix(), "the cursor moves")
	refused := h.readRefused()
	require.Len(t, refused, 11)
	require.Equal(t, "bad 3", refused["3"])
	require.Contains(t, refused, "")
	require.Contains(t, refused, "\uFFFD\uFFFD")
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
	for range 2 { // the second pass does not try them by itself
		progress, err := h.pass()
		require.NoError(t, err)
		require.Equal(t, 100, progress.Listed)
		require.Equal(t, 2, progress.Refused)
		require.Equal(t, 2, progress.Unkept, "no version of the controller could store them")
	}
	require.Contains(t, h.readRefused()["30"], "thing/30: ERROR: value overflows numeric format")
	require.Contains(t, h.readRefused(), "99")
	require.NotNil(t, h.row(h.ref("29")))
	require.Nil(t, h.row(h.ref("30")))
}

func TestARefusedObjectStopsNoDeletionOfOthers(t *testing.T) {
	t.Parallel()
	h := newInformer(t, lists(item(object("a", "1")), item(object("b", "1")), item(object("c", "1"))))
	h.handler.work = does(synced)
	h.Listing = activities.Listing{Complete: true, MostDeleted: 10}
	pass := func(items ...activities.Listed) activities.InformProgress {
		h.handler.inform = lists(items...)
		progress, err := h.pass(func(in *activities.InformInput) { in.Pass = uuid.NewString() })
		require.NoError(t, err)
		return progress
	}
	pass(item(object("a", "1")), item(object("b", "1")), item(object("c", "1")))
	for _, id := range []string{"a", "b", "c"} {
		h.attempt(h.ref(id))
	}
	require.Equal(t, 1, pass(item(object("a", "1")), badItem("b"), badItem("new"), badItem("")).Deleted, "c is gone")
	require.Equal(t, deltatype.ResourceStateSynced, h.row(h.ref("b")).State, "what is refused is listed")
	require.Equal(t, deltatype.ResourceStateDeleted, h.row(h.ref("c")).State)
	require.Len(t, h.readRefused(), 3)

	// One becomes valid, one is gone.
	require.Zero(t, pass(item(object("a", "1")), item(object("b", "1")), badItem("new")).Deleted)
	require.Equal(t, map[string]string{"new": "bad new"}, h.readRefused())
	require.Equal(t, 1, pass(item(object("a", "1")), badItem("b")).Refused)
	require.Equal(t, map[string]string{"b": "bad b"}, h.readRefused())
	pass(item(object("a", "1")), item(object("b", "2")))
	require.Empty(t, h.readRefused())
	require.Equal(t, deltatype.ResourceStateScheduled, h.row(h.ref("b")).State)
}

// An incremental listing does not name an object again that the controller refused by mistake.
func TestARefusedObjectIsTakenWhenItBecomesValid(t *testing.T) {
	t.Parallel()
	h := newInformer(t, lists(badItem("a"), badItem("b"), badItem("c")))
	h.inform(object("b", "older"))
	_, err := h.pass()
	require.NoError(t, err)
	require.Nil(t, h.row(h.ref("a")))
	h.handler.encode = func([]byte) error { return errors.New("still refused") }
	h.handler.inform = lists()
	_, err = h.pass()
	require.NoError(t, err)
	require.Len(t, h.readRefused(), 3)

	// A new version of the controller takes them all. Meanwhile something newer was informed of one.
	h.inform(object("c", "newer"))
	require.NotContains(t, h.readRefused(), "c", "it was taken")
	h.handler.encode = nil
	progress, err := h.pass()
	require.NoError(t, err)
	require.Equal(t, activities.InformProgress{Scheduled: 2}, progress)
	require.JSONEq(t, `{"id": "a", "content": "1"}`, string(h.row(h.ref("a")).EncodedObject))
	require.JSONEq(t, `{"id": "b", "content": "1"}`, string(h.row(h.ref("b")).EncodedObject))
	require.JSONEq(t, `{"id": "c", "content": "newer"}`, string(h.row(h.ref("c")).EncodedObject))
	require.Empty(t, h.readRefused())
}

// What is not kept is listed again: the cursor stays.
func TestRefusedObjectsAreBounded(t *testing.T) {
	t.Parallel()
	const all = 3000
	var refused, taken []activities.Listed
	for i := range all {
		refused, taken = append(refused, badItem(fmt.Sprint(i))), append(taken, item(object(fmt.Sprint(i), "1")))
	}
	// As a provider that names what has changed since.
	var since []*time.Time
	named := refused
	h := newInformer(t, func(ctx context.Context, o deltatype.InformOptions) <-chan activities.Listed {
		since = append(since, o.After)
		if o.After.Unix() > 0 {
			return lists()(ctx, o)
		}
		return lists(named...)(ctx, o)
	})
	progress, err := h.pass()
	require.NoError(t, err)
	require.Equal(t, all, progress.Refused)
	require.LessOrEqual(t, len(h.readRefused()), 1100)
	require.Equal(t, all-len(h.readRefused()), progress.Unkept)
	require.Contains(t, h.readRefused(), "0")

	named = taken
	progress, err = h.pass()
	require.NoError(t, err)
	require.Equal(t, all, progress.Scheduled)
	require.Empty(t, h.readRefused())
	_, err = h.pass()
	require.NoError(t, err)
	require.Zero(t, since[1].Unix())
	require.Positive(t, since[2].Unix(), "all were taken: the cursor moves")
}

// One that is too large is noted without its object, and the pass says so: an incremental listing would not name it again.
func TestARefusedObjectThatIsTooLargeIsCounted(t *testing.T) {
	t.Parallel()
	large, fits := badItem("large"), badItem("fits")
	large.Params.EncodedObject = fmt.Appendf(nil, `{"id": "large", "content": %q}`, strings.Repeat("x", 64<<10))
	const empty = `{"id": "fits", "content": ""}`
	fits.Params.EncodedObject = fmt.Appendf(nil, `{"id": "fits", "content": %q}`, strings.Repeat("x", 64<<10-len(empty)))
	h := newInformer(t, lists(large, fits, badItem("small")))
	log := h.logTo()
	progress, err := h.pass()
	require.NoError(t, err)
	require.Equal(t, activities.InformProgress{Listed: 3, Refused: 3, Unkept: 1}, progress)
	require.EqualValues(t, 1, h.listPasses()[0].Unkept)
	require.True(t, hasLine(log, "level=WARN", "too large to be kept", "too_large=1", "limit=65536", "large (655"), "%s", log)
	require.True(t, hasLine(log, "a pass of the informer has ended", "refused=3 unkept=1"))
	rows, err := db.New().ListRefused(t.Context(), h.Pool, db.ListRefusedParams{Kind: kind, Most: 10})
	require.NoError(t, err)
	kept := map[string]bool{}
	for _, r := range rows {
		kept[r.ObjectID] = r.Kept
	}
	require.Equal(t, map[string]bool{"large": false, "fits": true, "small": true}, kept)
	require.Positive(t, h.cursor().Unix(), "the cursor does not wait for it")

	h.handler.inform = lists()
	progress, err = h.pass()
	require.NoError(t, err)
	require.Equal(t, activities.InformProgress{Scheduled: 2}, progress, "what is kept is taken once it is valid")
	require.Equal(t, map[string]string{"large": "bad large"}, h.readRefused(), "it is shown until a listing names it again")

	// Listings that name everything each time need no such warning.
	h.Listing = activities.Listing{Complete: true}
	h.handler.inform = lists(large)
	log.Reset()
	progress, err = h.pass()
	require.NoError(t, err)
	require.Equal(t, 1, progress.Unkept)
	require.False(t, hasLine(log, "too large to be kept"))
	h.HashObjectIDs, h.Listing.Complete = true, false
	_, err = h.pass()
	require.NoError(t, err)
	require.True(t, hasLine(log, "too large to be kept"))
	require.False(t, hasLine(log, "too large to be kept", "large ("), "ids are kept from the log")
}

// Temporal bounds the size of an error, and a pass with an error that it rejects looks like a lost worker.
func TestTheErrorsOfAPassAreBounded(t *testing.T) {
	t.Parallel()
	long := errors.New(strings.Repeat("x", 5<<20))
	_, err := newInformer(t, lists(activities.Listed{Err: long, Fatal: true})).pass()
	require.Less(t, len(err.Error()), 10_000)
	h := newInformer(t, lists(activities.Listed{Err: long}))
	_, err = h.pass()
	require.NoError(t, err)
	require.Less(t, len(h.readRefused()[""]), 10_000)
}

func TestAPassRefusesWhatWouldMoveToAnotherNamespace(t *testing.T) {
	t.Parallel()
	mine, theirs := object("1001", "mine"), object("1001", "theirs")
	mine.Namespace, theirs.Namespace = "acme", "globex"
	h := newInformer(t, lists(item(theirs), item(object("1002", "new"))))
	h.inform(mine)
	before := h.row(h.ref("1001"))
	progress, err := h.pass()
	require.NoError(t, err)
	require.Equal(t, 1, progress.Refused)
	require.Contains(t, h.readRefused()["1001"], `the resource is in namespace "acme"`)
	require.Equal(t, before, h.row(h.ref("1001")))
	require.NotNil(t, h.row(h.ref("1002")))
}

// A deleted resource is listed also where its object is refused: it is kept as long.
func TestARefusedObjectIsNotedAsListed(t *testing.T) {
	t.Parallel()
	h := newInformer(t, lists(badItem("a")))
	h.inform(object("a", "1"))
	ref := h.ref("a")
	h.set(ref, "state = 'deleted', cause = 'command', synced_at = now() - interval '2 days', due_at = now()")
	_, err := h.pass()
	require.NoError(t, err)
	require.NotNil(t, h.row(ref).ListedAt)
}
