package deltatest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// crate is an object of a kind with batches.
type crate struct{ Number, Account string }

func (c crate) ID() string   { return c.Number }
func (c crate) Kind() string { return "crate" }

func (c crate) Settings() delta.ObjectSettings { return delta.ObjectSettings{BatchSize: 3} }
func (c crate) InformOpts() delta.InformOpts   { return delta.InformOpts{Namespace: c.Account} }

type crates struct {
	delta.WorkerDefaults[crate]
	delta.NoInformer[crate]
	batch func(all []*delta.Resource[crate]) []error
}

func (*crates) Work(context.Context, *delta.Resource[crate]) error {
	return errors.New("Work is called")
}

func (c *crates) WorkBatch(_ context.Context, all []*delta.Resource[crate]) []error {
	return c.batch(all)
}

type batchedParcels struct{ *parcels }

func (batchedParcels) WorkBatch(context.Context, []*delta.Resource[parcel]) []error { return nil }

func TestWorkBatchReturnsAnOutcomePerObject(t *testing.T) {
	t.Parallel()
	three := []crate{{Number: "1"}, {Number: "2"}, {Number: "3"}}
	controller := &crates{batch: func(all []*delta.Resource[crate]) []error {
		require.Len(t, all, 3)
		return []error{nil, errBoom, delta.ResourceSnooze(time.Minute)}
	}}
	all, err := deltatest.WorkBatch(t.Context(), controller, three, &deltatest.WorkOpts{Now: noon, Attempt: 10})
	require.NoError(t, err)
	var states []deltatype.ResourceState
	for i, o := range all {
		states = append(states, o.State)
		require.Equal(t, three[i], o.Object)
	}
	require.Equal(t, []deltatype.ResourceState{deltatype.ResourceStateSynced, deltatype.ResourceStateDegraded, deltatype.ResourceStateScheduled}, states)
	require.Equal(t, noon.Add(time.Minute), all[2].NextAttemptAt)

	for failure, batch := range map[string]func([]*delta.Resource[crate]) []error{
		"panic: ouch": func([]*delta.Resource[crate]) []error { panic("ouch") },
		"WorkBatch was given 1 resources and returned 0 results": func([]*delta.Resource[crate]) []error { return nil },
	} {
		all, err = deltatest.WorkBatch(t.Context(), &crates{batch: batch}, three[:1], nil)
		require.NoError(t, err)
		require.Equal(t, failure, all[0].Failure)
	}
	for says, objects := range map[string][]crate{
		`objects "0 objects": must be at least 1, and at most BatchSize, 3`:                               nil,
		`objects "4 objects": must be at least 1, and at most BatchSize, 3`:                               append([]crate{{Number: "0"}}, three...),
		`objects[1] "1": must have an id of its own`:                                                      {{Number: "1"}, {Number: "1"}},
		`objects[1].Namespace "us": must be that of the others, "eu": WorkBatch is called for each names`: {{Number: "1", Account: "eu"}, {Number: "2", Account: "us"}},
	} {
		_, err = deltatest.WorkBatch(t.Context(), controller, objects, nil)
		require.ErrorContains(t, err, says)
	}
	_, err = deltatest.WorkBatch(t.Context(), controller, three, &deltatest.WorkOpts{Stored: &deltatest.Stored{}})
	require.ErrorContains(t, err, "Stored 0: must not be set for WorkBatch")
	_, err = deltatest.WorkBatch(t.Context(), newReturning(nil), []parcel{{Number: "1"}}, nil)
	require.ErrorContains(t, err, "*deltatest_test.parcels has no WorkBatch, so it is never called")
	_, err = deltatest.WorkBatch(t.Context(), batchedParcels{newReturning(nil)}, []parcel{{Number: "1"}}, nil)
	require.ErrorContains(t, err, "ObjectSettings.BatchSize 0: must be above 1")
}
