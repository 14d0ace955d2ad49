package delta_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// batchSized is the mode of a kind: singles or batches.
type batchSized interface{ batchSize() int }

type single struct{}

func (single) batchSize() int { return 1 }

type batches struct{}

func (batches) batchSize() int { return 500 }

// inBothModes runs a test for kinds with singles and with batches.
func inBothModes(t *testing.T, one, many func(t *testing.T)) {
	t.Helper()
	t.Run("single", func(t *testing.T) {
		t.Parallel()
		one(t)
	})
	t.Run("batches", func(t *testing.T) {
		t.Parallel()
		many(t)
	})
}

// doc compares itself by its version, and has complete listings.
type doc[M batchSized] struct {
	Key     string
	Version int
	Noise   int
}

// compares has a function for each doc, which its Compare calls.
var compares sync.Map

func (d doc[M]) ID() string   { return d.Key }
func (d doc[M]) Kind() string { return "doc" }
func (d doc[M]) Settings() delta.ObjectSettings {
	var m M
	return delta.ObjectSettings{InformInterval: -1, CompleteListing: true, BatchSize: m.batchSize()}
}

func (d doc[M]) Compare(other delta.Object) (int, bool) {
	if do, ok := compares.Load(d.Key); ok {
		do.(func())()
	}
	o, ok := other.(doc[M])
	return d.Version - o.Version, ok
}

// revision is a doc with a Revision instead of Compare.
type revision[M batchSized] struct {
	Key     string
	Version int
}

func (r revision[M]) ID() string      { return r.Key }
func (r revision[M]) Kind() string    { return "revision" }
func (r revision[M]) Revision() int64 { return int64(r.Version) }
func (r revision[M]) Settings() delta.ObjectSettings {
	var m M
	return delta.ObjectSettings{InformInterval: -1, CompleteListing: true, BatchSize: m.batchSize()}
}

// A webhook brings version 2; a listing from before brings version 1.
func TestAnOlderObjectNeverOverwritesANewerOne(t *testing.T) {
	t.Parallel()
	t.Run("Compare", func(t *testing.T) {
		t.Parallel()
		inBothModes(t,
			func(t *testing.T) { testStale(t, func(v int) doc[single] { return doc[single]{"stale", v, 0} }) },
			func(t *testing.T) { testStale(t, func(v int) doc[batches] { return doc[batches]{"stale", v, 0} }) })
	})
	t.Run("Revision", func(t *testing.T) {
		t.Parallel()
		inBothModes(t,
			func(t *testing.T) { testStale(t, func(v int) revision[single] { return revision[single]{"stale", v} }) },
			func(t *testing.T) {
				testStale(t, func(v int) revision[batches] { return revision[batches]{"stale", v} })
			})
	})
}

func testStale[T interface {
	comparable
	delta.Object
}](t *testing.T, version func(int) T) {
	h := newHarness(t)
	outside := &upstream[T]{all: []T{version(1)}}
	var worked sync.Map
	c := h.start(h.config(with(&controller[T]{inform: outside.inform, work: func(_ context.Context, r *delta.Resource[T]) error {
		worked.Store(r.Object, true)
		return nil
	}})))
	events, cancel := c.Subscribe(delta.EventCategoryObjectStale)
	defer cancel()
	kind := version(0).Kind()
	row, err := c.Sync(t.Context(), version(2), nil)
	require.NoError(t, err)

	// By a listing, alone, in a set, in a transaction.
	run, err := c.RunInform(t.Context(), delta.ScheduleInformParams{ResourceKind: kind, RunForeground: true}, nil)
	require.NoError(t, err)
	require.Equal(t, 1, run.Stale)
	require.Zero(t, run.Scheduled)
	require.Zero(t, run.Deleted)
	require.Empty(t, events, "a pass counts its own")
	result, err := c.Inform(t.Context(), version(1), nil)
	require.NoError(t, err)
	require.True(t, result.Stale)
	require.Equal(t, row.Hash, (<-events).Resource.Hash)
	results, err := c.InformMany(t.Context(), []delta.Object{version(1), version(0)}, nil)
	require.NoError(t, err)
	require.True(t, results[0].Stale)
	require.True(t, results[1].Stale)
	require.NoError(t, pgx.BeginFunc(t.Context(), h.Pool, func(tx pgx.Tx) error {
		result, err := c.InformTx(t.Context(), tx, version(1), nil)
		require.True(t, result.Stale)
		return err
	}))
	// A client without the controller compares too.
	result, err = h.client(&delta.Config{}).Inform(t.Context(), version(1), nil)
	require.NoError(t, err)
	require.True(t, result.Stale)
	row, err = c.Sync(t.Context(), version(1), nil)
	require.NoError(t, err)
	require.EqualValues(t, 1, row.Generation)
	require.EqualValues(t, 1, row.SyncCount)
	_, older := worked.Load(version(1))
	require.False(t, older)

	// A forced inform writes it, also in a run.
	_, err = c.Sync(t.Context(), version(1), &delta.InformOpts{Force: true})
	require.NoError(t, err)
	_, older = worked.Load(version(1))
	require.True(t, older)
	_, err = c.Sync(t.Context(), version(3), nil)
	require.NoError(t, err)
	run, err = c.RunInform(t.Context(), delta.ScheduleInformParams{ResourceKind: kind, RunForeground: true, Force: true}, nil)
	require.NoError(t, err)
	require.Equal(t, 1, run.Scheduled)
	require.Zero(t, run.Stale)
}

// A listed object that Compare finds unchanged does not overwrite an inform between the read of the row and the write.
func TestAListingDoesNotUndoAnInformDuringItsComparison(t *testing.T) {
	t.Parallel()
	inBothModes(t, testCompareRace[single], testCompareRace[batches])
}

func testCompareRace[M batchSized](t *testing.T) {
	h := newHarness(t)
	var m M
	key := "race" + string(rune('a'+m.batchSize()%26))
	outside := &upstream[doc[M]]{all: []doc[M]{{key, 1, 7}}}
	c := h.start(h.config(with(&controller[doc[M]]{inform: outside.inform})))
	_, err := c.Sync(t.Context(), doc[M]{key, 1, 0}, nil)
	require.NoError(t, err)
	var looked atomic.Bool
	compares.Store(key, func() {
		if !looked.Swap(true) { // the inform compares too
			_, err := c.Sync(context.Background(), doc[M]{key, 2, 0}, nil)
			assert.NoError(t, err)
		}
	})
	run, err := c.RunInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "doc", RunForeground: true}, nil)
	require.NoError(t, err)
	require.Equal(t, 1, run.Stale)
	row := h.row("doc", key)
	require.JSONEq(t, `{"Key": "`+key+`", "Version": 2, "Noise": 0}`, string(row.EncodedObject))
	require.EqualValues(t, 2, row.Generation)
}

// Work creates its object outside after the listing, in a transaction that began before: synced_at is from before the listing.
func TestACompleteListingDoesNotDeleteANewCompleteTx(t *testing.T) {
	t.Parallel()
	inBothModes(t, testCompleteTxDuringAListing[single], testCompleteTxDuringAListing[batches])
}

func testCompleteTxDuringAListing[M batchSized](t *testing.T) {
	h := newHarness(t)
	began, listing, end := make(chan struct{}), make(chan struct{}), make(chan struct{})
	c := h.start(h.config(with(&controller[revision[M]]{
		work: func(ctx context.Context, r *delta.Resource[revision[M]]) error {
			return pgx.BeginFunc(ctx, h.Pool, func(tx pgx.Tx) error {
				if _, err := tx.Exec(ctx, "SELECT 1"); err != nil {
					return err
				}
				close(began)
				<-listing // the object is created outside only after the listing
				return r.CompleteTx(ctx, tx)
			})
		},
		inform: func(ctx context.Context, _ *delta.InformOptions) (<-chan revision[M], error) {
			close(listing)
			<-end
			return sendAll[revision[M]](ctx), nil
		},
	})))
	_, err := c.Inform(t.Context(), revision[M]{"a", 1}, nil)
	require.NoError(t, err)
	<-began
	go func() {
		defer close(end)
		<-listing
		h.eventually("revision", "a", inState(deltatype.ResourceStateSynced))
	}()
	run, err := c.RunInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "revision"}, nil)
	require.NoError(t, err)
	require.Zero(t, run.Deleted)
	require.Equal(t, deltatype.ResourceStateSynced, h.row("revision", "a").State)
}

// oldStyle has the Compare signature of all releases of the original.
type oldStyle struct{ account }

func (oldStyle) Compare(delta.Object) int { return 0 }

// byPointer has a Compare with a pointer receiver.
type byPointer struct{ account }

func (*byPointer) Compare(delta.Object) (int, bool) { return 0, true }

// oldByPointer has the original's Compare with a pointer receiver.
type oldByPointer struct{ account }

func (*oldByPointer) Compare(delta.Object) int { return 0 }

// These have other optional methods with pointer receivers.
type (
	revisedByPointer  struct{ account }
	createdByPointer  struct{ account }
	limitedByPointer  struct{ account }
	versionedByPoint  struct{ account }
	informedByPointer struct{ account }
	settingsOf        struct{ name string }
	settledByPointer  struct{ settingsOf }
)

func (*revisedByPointer) Revision() int64                { return 0 }
func (*createdByPointer) CreatedAt() time.Time           { return time.Time{} }
func (*limitedByPointer) LimitKey() string               { return "" }
func (*versionedByPoint) Version() int                   { return 0 }
func (*informedByPointer) InformOpts() delta.InformOpts  { return delta.InformOpts{} }
func (s settingsOf) ID() string                          { return s.name }
func (settingsOf) Kind() string                          { return "account" }
func (*settledByPointer) Settings() delta.ObjectSettings { return delta.ObjectSettings{} }

func TestAnOptionalMethodThatWouldBeIgnoredIsRefused(t *testing.T) {
	t.Parallel()
	for method, err := range map[string]error{
		"Revision delta_test.revisedByPointer":    delta.AddControllerSafely(delta.NewControllers(), &controller[revisedByPointer]{}),
		"CreatedAt delta_test.createdByPointer":   delta.AddControllerSafely(delta.NewControllers(), &controller[createdByPointer]{}),
		"LimitKey delta_test.limitedByPointer":    delta.AddControllerSafely(delta.NewControllers(), &controller[limitedByPointer]{}),
		"Version delta_test.versionedByPoint":     delta.AddControllerSafely(delta.NewControllers(), &controller[versionedByPoint]{}),
		"InformOpts delta_test.informedByPointer": delta.AddControllerSafely(delta.NewControllers(), &controller[informedByPointer]{}),
		"Settings delta_test.settledByPointer":    delta.AddControllerSafely(delta.NewControllers(), &controller[settledByPointer]{}),
	} {
		require.ErrorContains(t, err, method+": has a pointer receiver, but the controller's objects are values: give it a value receiver")
	}
	require.NoError(t, delta.AddControllerSafely(delta.NewControllers(), &controller[*revisedByPointer]{}))
}

func TestACompareThatWouldBeIgnoredIsRefused(t *testing.T) {
	t.Parallel()
	err := delta.AddControllerSafely(delta.NewControllers(), &controller[oldByPointer]{})
	require.ErrorContains(t, err, "Compare delta_test.oldByPointer: returns int alone, as in the original")
	err = delta.AddControllerSafely(delta.NewControllers(), &controller[oldStyle]{})
	require.ErrorContains(t, err, "Compare delta_test.oldStyle: returns int alone, as in the original: make it Compare(other delta.Object) (int, bool)")
	err = delta.AddControllerSafely(delta.NewControllers(), &controller[*oldStyle]{})
	require.ErrorContains(t, err, "returns int alone")
	err = delta.AddControllerSafely(delta.NewControllers(), &controller[byPointer]{})
	require.ErrorContains(t, err, "Compare delta_test.byPointer: has a pointer receiver")
	require.NoError(t, delta.AddControllerSafely(delta.NewControllers(), &controller[*byPointer]{}))
	require.NoError(t, delta.AddControllerSafely(delta.NewControllers(), &controller[doc[single]]{}))
}

func TestAChangeOfMetadataOrTagsAloneDoesNotCallWorkUnlessAsked(t *testing.T) {
	t.Parallel()
	inBothModes(t, testMetadata[single], testMetadata[batches])
}

func testMetadata[M batchSized](t *testing.T) {
	h := newHarness(t)
	var calls atomic.Int64
	c := h.start(h.config(with(&controller[doc[M]]{work: func(context.Context, *delta.Resource[doc[M]]) error {
		calls.Add(1)
		return nil
	}})))
	for i, opts := range []*delta.InformOpts{
		{Metadata: []byte(`{"traceparent": "00-1"}`)},
		{Metadata: []byte(`{"traceparent": "00-2"}`)},
		{Tags: []string{"new"}},
		{Metadata: []byte(`{"traceparent": "00-3"}`), Tags: []string{}},
	} {
		row, err := c.Sync(t.Context(), doc[M]{"metadata", 1, 0}, opts)
		require.NoError(t, err)
		require.EqualValues(t, 1, row.Generation, i)
	}
	require.EqualValues(t, 1, calls.Load())
	row := h.row("doc", "metadata")
	require.JSONEq(t, `{"traceparent": "00-3"}`, string(row.Metadata))
	require.Empty(t, row.Tags)

	row, err := c.Sync(t.Context(), doc[M]{"metadata", 1, 0}, &delta.InformOpts{Tags: []string{"asked"}, SyncMetadata: true})
	require.NoError(t, err)
	require.EqualValues(t, 2, row.Generation)
	require.EqualValues(t, 2, calls.Load())
}
