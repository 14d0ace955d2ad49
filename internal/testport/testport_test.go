package testport

import (
	"net"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAPortIsReservedOnce(t *testing.T) {
	var first int
	t.Run("while the test runs", func(t *testing.T) {
		first = Reserve(t)
		second := Reserve(t)
		require.NotEqual(t, first, second, "nobody listens yet, and it is taken all the same")
		listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(second)))
		require.NoError(t, err)
		defer func() { require.NoError(t, listener.Close()) }()
		require.NotEqual(t, second, Reserve(t))
	})
	require.Equal(t, first, Reserve(t), "it is free again")
}
