package delta_test

import (
	"context"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// A codec is introduced for a table with objects that are stored as they are, and its key is replaced.
func TestACodecIsIntroducedAndItsKeyIsReplaced(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	before := h.client(&delta.Config{})
	objects := []delta.Object{account{Name: "a", Plan: planted}, account{Name: "b", Plan: planted}, mirror{Name: "m", Version: 1, Note: planted}}
	_, err := before.InformMany(t.Context(), objects, nil)
	require.NoError(t, err)
	read := func(c *delta.Client) {
		t.Helper()
		for _, ref := range []delta.Ref{{Kind: "account", ObjectID: "a"}, {Kind: "account", ObjectID: "b"}, {Kind: "mirror", ObjectID: "m"}} {
			row, err := c.Get(t.Context(), ref.Kind, ref.ObjectID)
			require.NoError(t, err)
			require.Contains(t, string(row.EncodedObject), planted)
			require.EqualValues(t, 1, row.Generation)
		}
	}

	old := h.client(encoding(t, &delta.Config{}, "old"))
	read(old)
	_, err = before.ReencodeObjects(t.Context(), "")
	require.ErrorContains(t, err, `Config.ObjectCodec "nil": must be set`)
	rewritten, err := old.ReencodeObjects(t.Context(), "account")
	require.NoError(t, err)
	require.Equal(t, 2, rewritten)
	read(old) // mixed
	_, err = old.ReencodeObjects(t.Context(), "")
	require.NoError(t, err)
	require.NotContains(t, h.dumpTables()["delta_resource"], planted)
	read(old)
	results, err := old.InformMany(t.Context(), objects, nil)
	require.NoError(t, err)
	for _, result := range results {
		require.False(t, result.Scheduled, "the objects have the hashes that they had before they were encoded")
	}

	both := h.client(encoding(t, &delta.Config{}, "new", "old"))
	read(both)
	onlyNew := h.client(encoding(t, &delta.Config{}, "new"))
	// A locked row is waited for.
	tx, err := h.Pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "SELECT FROM delta_resource WHERE object_id = 'a' FOR UPDATE")
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() {
		_, err := both.ReencodeObjects(context.Background(), "")
		done <- err
	}()
	until(t, func() bool {
		row, err := onlyNew.Get(t.Context(), "account", "b")
		return err == nil && !deltatype.IsEncoded(row.EncodedObject)
	}, "the others are rewritten")
	require.NoError(t, tx.Rollback(t.Context()))
	require.NoError(t, <-done)
	read(onlyNew)
	results, err = onlyNew.InformMany(t.Context(), objects, nil)
	require.NoError(t, err)
	require.False(t, slices.ContainsFunc(results, func(r *deltatype.ObjectInformResult) bool { return r.Scheduled }))

	// What does not decode is left as it is, and named.
	stored, _ := h.storedObject("account", "a")
	_, err = old.ReencodeObjects(t.Context(), "account")
	require.ErrorContains(t, err, `account/a is left as it is: Config.ObjectCodec does not decode the stored object: there is no key "new"`)
	again, _ := h.storedObject("account", "a")
	require.Equal(t, stored, again)
}

// A client with the wrong key changes nothing: the row says so, and waits for one with the right key.
func TestAnObjectOfAnotherKeyWaits(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	right := h.client(encoding(t, &delta.Config{}, "old"))
	_, err := right.InformMany(t.Context(), []delta.Object{account{Name: "a", Plan: planted}, mirror{Name: "m", Version: 2}}, nil)
	require.NoError(t, err)
	stored, hash := h.storedObject("account", "a")

	called := make(chan string, 10)
	work := with(&controller[account]{work: func(_ context.Context, r *delta.Resource[account]) error {
		called <- r.Object.Plan
		return nil
	}})
	ctx, stop := context.WithCancel(context.Background())
	wrong := h.client(encoding(t, h.config(work, with(&controller[mirror]{})), "new"))
	require.NoError(t, wrong.Start(ctx))
	row := h.eventually("account", "a", func(r *deltatype.ResourceRow) bool { return len(r.Errors) > 0 })
	require.Equal(t, `Config.ObjectCodec does not decode the stored object: there is no key "old"`, row.Errors[0].Error)
	require.Zero(t, row.Attempt, "it does not count")
	require.Equal(t, deltatype.ResourceStateScheduled, row.State)
	_, err = wrong.Inform(t.Context(), mirror{Name: "m", Version: 1}, nil)
	require.ErrorContains(t, err, `comparing with the resource mirror/m, which an inform with Force replaces: Config.ObjectCodec does not decode the stored object: there is no key "old"`)
	_, err = wrong.InformMany(t.Context(), []delta.Object{mirror{Name: "m", Version: 3}, mirror{Name: "n"}}, nil)
	require.ErrorContains(t, err, "mirror/m")
	require.Nil(t, h.row("mirror", "n"))
	stop()
	require.NoError(t, wrong.Stop(t.Context()))
	now, nowHash := h.storedObject("account", "a")
	require.Equal(t, stored, now)
	require.Equal(t, hash, nowHash)

	c := h.start(encoding(t, h.config(work), "old"))
	h.eventually("account", "a", synced(1))
	require.Equal(t, planted, got(t, called))
	forced, err := c.Inform(t.Context(), account{Name: "a", Plan: "z"}, &delta.InformOpts{Force: true})
	require.NoError(t, err)
	require.True(t, forced.Scheduled)
}
