package hostile

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
)

// Pooler runs a proxy that looks like a pooler in transaction mode to a connection that listens: LISTEN succeeds, no notification arrives, and the
// process id is invented. It returns the configuration to connect through it.
func Pooler(tb testing.TB, config *pgx.ConnConfig) *pgx.ConnConfig {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(tb, err)
	var open sync.WaitGroup
	open.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			open.Go(func() { serveClient(client, config) })
		}
	})
	tb.Cleanup(func() {
		_ = listener.Close()
		open.Wait() // clients close their connections
	})
	through := config.Copy()
	address := listener.Addr().(*net.TCPAddr)
	through.Host, through.Port, through.Fallbacks = "127.0.0.1", uint16(address.Port), nil
	return through
}

// serveClient connects one client to the server.
func serveClient(client net.Conn, config *pgx.ConnConfig) {
	defer func() { _ = client.Close() }()
	network, address := pgconn.NetworkAddress(config.Host, config.Port)
	server, err := net.Dial(network, address)
	if err != nil {
		return
	}
	var sending sync.WaitGroup
	sending.Go(func() {
		_, _ = io.Copy(server, client)
		_ = server.Close()
	})
	relayAnswers(client, server)
	_ = client.Close()
	_ = server.Close()
	sending.Wait()
}

// relayAnswers forwards the server's messages except notifications, and replaces the process id.
func relayAnswers(client io.Writer, server io.Reader) {
	const backendKeyData, notification = 'K', 'A'
	for {
		message := make([]byte, 5)
		if _, err := io.ReadFull(server, message); err != nil {
			return
		}
		length := int(binary.BigEndian.Uint32(message[1:]))
		message = append(message, make([]byte, length-4)...)
		if _, err := io.ReadFull(server, message[5:]); err != nil {
			return
		}
		switch message[0] {
		case notification:
			continue
		case backendKeyData:
			binary.BigEndian.PutUint32(message[5:], 0x7fabcdef)
		}
		if _, err := client.Write(message); err != nil {
			return
		}
	}
}
