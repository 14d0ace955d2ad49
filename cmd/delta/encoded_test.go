package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/codectest"
)

// The command has no codec. In place of an encoded object it shows how to read it.
func TestAnEncodedObjectIsNotShownAsItIsStored(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	c, err := delta.NewClient(i.Pool, &delta.Config{ObjectCodec: codectest.Flipped[delta.Ref]{}, ObjectHashKey: bytes.Repeat([]byte{1}, 32)})
	require.NoError(t, err)
	_, err = c.Inform(t.Context(), page{Path: "a"}, nil)
	require.NoError(t, err)
	i.execSQL(`SELECT delta_append_change('updated', delta_order_xid(null), 1, 'page', 'a', 'default', 1, 1, object, object, null, null) FROM delta_resource`)

	r := i.runWith(streams{width: 80}, "resources", "get", "page", "a")
	require.Equal(t, exitOK, r.code, r.stderr)
	requireNarrow(t, r.stdout)
	require.Contains(t, r.stdout, "\nobject\n  It is encoded (")
	require.Contains(t, i.run("resources", "get", "page", "a").stdout, "or call Client.Get there. -o json prints the stored form.\n")
	require.NotContains(t, r.stdout, "delta.encoded")
	one := decode[resourceJSON](t, i.run("resources", "get", "page", "a", "-o", "json"))
	require.True(t, deltatype.IsEncoded(one.Object))

	r = i.runWith(streams{width: 80}, "resources", "history", "page", "a")
	require.Equal(t, exitOK, r.code, r.stderr)
	requireNarrow(t, r.stdout)
	require.Contains(t, r.stdout, "its object is encoded (Config.ObjectCodec)")
	require.NotContains(t, r.stdout, "delta.encoded")
}
