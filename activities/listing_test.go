package activities_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

type listing func(ctx context.Context, options deltatype.InformOptions) <-chan activities.Listed

// lists returns a listing of some items.
func lists(items ...activities.Listed) listing {
	return func(ctx context.Context, _ deltatype.InformOptions) <-chan activities.Listed {
		out := make(chan activities.Listed)
		go func() {
			defer close(out)
			for _, item := range items {
				select {
				case out <- item:
				case <-ctx.Done():
					return
				}
			}
		}()
		return out
	}
}

func item(o deltatype.ObjectInformParams) activities.Listed { return activities.Listed{Params: o} }

func createdAt(o deltatype.ObjectInformParams, at time.Time) activities.Listed {
	o.CreatedAt = &at
	return item(o)
}

// newInformer is a harness whose kind has a cursor, as a client that starts gives it.
func newInformer(t *testing.T, inform listing) *harness {
	t.Helper()
	h := newHarness(t, nil)
	h.handler.inform = inform
	_, err := db.New().UpsertController(t.Context(), h.Pool, db.UpsertControllerParams{Name: kind, InformInterval: hour})
	require.NoError(t, err)
	return h
}

// pass runs a pass, with changes to its input, and returns its progress.
func (h *harness) pass(change ...func(*activities.InformInput)) (activities.InformProgress, error) {
	progress, err := h.reportedPass(change...)
	progress.Pass = nil
	return progress, err
}

// reportedPass is pass with the report.
func (h *harness) reportedPass(change ...func(*activities.InformInput)) (activities.InformProgress, error) {
	in := activities.InformInput{Installation: h.Installation, Kind: kind}
	for _, c := range change {
		c(&in)
	}
	return h.InformPass(context.Background(), in)
}

func (h *harness) cursor() time.Time {
	h.t.Helper()
	s, err := db.New().GetShard(context.Background(), h.Pool, db.GetShardParams{Kind: kind})
	if errors.Is(err, pgx.ErrNoRows) {
		return time.Unix(0, 0).UTC()
	}
	require.NoError(h.t, err)
	return s.LastInformTime.UTC()
}

func (h *harness) ref(id string) activities.Ref {
	return activities.Ref{Installation: h.Installation, Kind: kind, ObjectID: id}
}
