package deltatest_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/codectest"
)

// The checks have no codec: they compare everything of an encoded object but its content, and say so where the content is asked for.
func TestRequireInformedOfAnEncodedObject(t *testing.T) {
	t.Parallel()
	env := deltatest.New(t)
	client, err := delta.NewClient(env.Pool, &delta.Config{ObjectCodec: codectest.Flipped[delta.Ref]{}, ObjectHashKey: bytes.Repeat([]byte{1}, 32)})
	require.NoError(t, err)
	// The first client with a codec notes the key, but not in a transaction of the caller's.
	_, err = client.Inform(t.Context(), parcel{Number: "0"}, nil)
	require.NoError(t, err)
	ctx, object := t.Context(), parcel{Number: "1", Weight: 2}
	tx, err := env.Pool.Begin(ctx)
	require.NoError(t, err)
	defer func() { _ = tx.Rollback(ctx) }()
	_, err = client.InformTx(ctx, tx, object, &delta.InformOpts{Namespace: "eu"})
	require.NoError(t, err)
	again, err := client.InformTx(ctx, tx, object, &delta.InformOpts{Namespace: "eu"})
	require.NoError(t, err)
	require.False(t, again.Scheduled, "the keyed hash is compared in the transaction")
	changed, err := client.InformTx(ctx, tx, parcel{Number: "1", Weight: 3}, &delta.InformOpts{Namespace: "eu"})
	require.NoError(t, err)
	require.True(t, changed.Scheduled)
	require.JSONEq(t, `{"Number": "1", "Weight": 3}`, string(changed.Resource.EncodedObject), "the client decodes")

	row := deltatest.RequireInformed(ctx, t, tx, object, &deltatest.Informed{AnyContent: true, Namespace: "eu", State: deltatype.ResourceStateScheduled})
	require.True(t, deltatype.IsEncoded(row.EncodedObject))
	deltatest.RequireNotInformed(ctx, t, env.Pool, object) // not committed yet
	require.Equal(t, "deltatest: parcel/1 was informed, but not as expected:\n\t"+`the namespace is "eu", expected "us"`, failureOf(func(tb testing.TB) {
		deltatest.RequireInformed(ctx, tb, tx, object, &deltatest.Informed{AnyContent: true, Namespace: "us"})
	}))
	require.Equal(t, "deltatest: the object of parcel/1 is encoded (Config.ObjectCodec), so its content cannot be compared: set AnyContent, and compare what the client reads",
		failureOf(func(tb testing.TB) { deltatest.RequireInformed(ctx, tb, tx, object, nil) }))
	unexpected := failureOf(func(tb testing.TB) { deltatest.RequireNotInformed(ctx, tb, tx, object) })
	require.Contains(t, unexpected, "deltatest: parcel/1 was informed unexpectedly")
	require.Contains(t, unexpected, ": its object is encoded (Config.ObjectCodec)")
	require.NotContains(t, unexpected, "delta.encoded")
}
