package delta_test

import (
	"context"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

func readRow(t *testing.T, pool *pgxpool.Pool, kind, id string) *deltatype.ResourceRow {
	t.Helper()
	got, err := db.New().GetResource(context.Background(), pool, db.GetResourceParams{Kind: kind, ObjectID: id})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	require.NoError(t, err)
	row, err := got.Resource.Row()
	require.NoError(t, err)
	return row
}
