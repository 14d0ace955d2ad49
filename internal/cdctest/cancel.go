package cdctest

import (
	"context"
	"encoding/binary"
	"net"

	"github.com/jackc/pgx/v5"
)

// LoseCancels returns a copy of a configuration whose connections lose requests to cancel, as networks do.
func LoseCancels(config *pgx.ConnConfig) *pgx.ConnConfig {
	config = config.Copy()
	dial := config.DialFunc
	config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		return cancelLoser{conn}, err
	}
	return config
}

type cancelLoser struct{ net.Conn }

func (c cancelLoser) Write(p []byte) (int, error) {
	const cancelRequest = 80877102 // the code of a CancelRequest, which has 16 bytes
	if len(p) >= 16 && binary.BigEndian.Uint32(p[4:]) == cancelRequest {
		return len(p), c.Close()
	}
	return c.Conn.Write(p)
}
