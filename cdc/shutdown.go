package cdc

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/chariot-giving/delta/cdc/internal/settings"
)

// errShutdown is a server that shuts down while this process cannot read what it sends.
var errShutdown = errors.New("cdc: the server shuts down, or starts, and the stream's consumer is too slow to read what it still sends")

// longestShutdownLook is how long it may take until a shutdown is noticed. Those that stop a server, such as docker stop, often have a
// patience of ten seconds.
const maxProbeInterval = 5 * time.Second

// shutdownWatch notices that the server shuts down while nothing is read from it, and its messages cannot say so: then it
// refuses new connections. The zero value begins to watch.
type shutdownWatch struct {
	nextProbe time.Time  // when to look
	probe     chan error // of the look that is under way
}

// checkShutdown begins a look now and then, and returns errShutdown once one has seen that the server shuts down. It does not wait.
func (w *shutdownWatch) checkShutdown(s *Stream) error {
	every := min(s.config.StatusInterval, maxProbeInterval)
	if w.nextProbe.IsZero() {
		w.nextProbe = time.Now().Add(every)
	}
	select {
	case err := <-w.probe:
		w.probe, w.nextProbe = nil, time.Now().Add(every)
		if refusesConnections(err) {
			return errShutdown
		}
	default:
	}
	if w.probe == nil && !time.Now().Before(w.nextProbe) {
		found := make(chan error, 1)
		w.probe = found
		s.goroutines.Go(func() { found <- s.probeConnection() })
	}
	return nil
}

// probeConnection makes a connection of which nothing is asked.
func (s *Stream) probeConnection() error {
	ctx, cancel := context.WithTimeout(s.ctx, s.config.Timeout)
	defer cancel()
	config, err := settings.PrepareConfig(ctx, s.config.Conn, s.config.BeforeConnect) // which may decide which server that is
	if err != nil {
		return err
	}
	conn, err := pgconn.ConnectConfig(ctx, &config.Config)
	if err == nil {
		err = conn.Close(ctx)
		<-conn.CleanupDone()
	}
	return err
}

// refusesConnections reports whether a connection failed because the server takes none: cannot_connect_now. Where there are several
// servers, none of the others was one to connect to.
func refusesConnections(err error) bool {
	var server *pgconn.PgError
	return errors.As(err, &server) && server.Code == "57P03"
}
