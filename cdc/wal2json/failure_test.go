package wal2json_test

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/cdc/wal2json"
	"github.com/chariot-giving/delta/internal/cdctest"
)

var errBroken = errors.New("broken")

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errBroken }

func TestEncodeReturnsErrors(t *testing.T) {
	t.Parallel()
	d := cdctest.New(t)
	d.Exec(`create table t (id int primary key)`, `create publication p for all tables`)
	_, err := cdc.CreateSlot(t.Context(), d.Pool, d.Name, cdc.SlotOptions{})
	require.NoError(t, err)
	stream, err := cdc.Open(t.Context(), cdc.Config{Conn: d.Config(), Slot: d.Name, Publications: []string{"p"}})
	require.NoError(t, err)
	defer stream.Close()
	d.Exec(`insert into t values (1)`, `insert into t values (2)`, `insert into t values (3)`, `insert into t values (4)`)
	ctx, cancel := context.WithTimeout(t.Context(), cdctest.Patience)
	defer cancel()
	next := func() *cdc.Transaction {
		transaction, err := stream.Next(ctx)
		require.NoError(t, err)
		return transaction
	}
	var out bytes.Buffer
	none := wal2json.NewEncoder(func(context.Context, []cdc.Column) ([]string, error) { return nil, errBroken })
	err = none.Encode(ctx, &out, next())
	require.ErrorIs(t, err, errBroken)
	require.ErrorContains(t, err, "public.t")
	few := wal2json.NewEncoder(func(context.Context, []cdc.Column) ([]string, error) { return nil, nil })
	require.ErrorContains(t, few.Encode(ctx, &out, next()), "0 names for 1 columns")
	encoder := wal2json.NewEncoder(wal2json.Catalog(d.Pool))
	require.ErrorIs(t, encoder.Encode(ctx, brokenWriter{}, next()), errBroken)
	// After a failure, an encoder works for the next transaction.
	out.Reset()
	require.NoError(t, encoder.Encode(ctx, &out, next()))
	require.Contains(t, out.String(), `"columnvalues":[4]`)
}
