package cdc

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/chariot-giving/delta/cdc/internal/settings"
)

// errShutdown reports that the server shuts down while this process cannot read what it sends.
var errShutdown = errors.New("cdc: the server shuts down, or starts, and the stream's consumer is too slow to read the rest of its messages")

// maxProbeInterval bounds how long a shutdown goes unnoticed. Programs that stop a server, such as docker stop, often
// wait only ten seconds.
const maxProbeInterval = 5 * time.Second

// shutdownWatch notices that the server shuts down while nothing is read from it, so that its messages cannot say so:
// the server then refuses new connections. The zero value is ready to use.
type shutdownWatch struct {
	nextProbe time.Time  // when the next probe starts
	probe     chan error // receives the result of the running probe
}

// checkShutdown starts a probe now and then, and returns errShutdown once one has found that the server shuts down. It
// does not block.
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

// probeConnection opens a connection and closes it.
func (s *Stream) probeConnection() error {
	ctx, cancel := context.WithTimeout(s.ctx, s.config.Timeout)
	defer cancel()
	config, err := settings.PrepareConfig(ctx, s.config.Conn, s.config.BeforeConnect) // BeforeConnect may choose the server
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

// refusesConnections reports whether a connection failed because the server accepts none: cannot_connect_now. With
// several servers, none of the others could be connected to.
func refusesConnections(err error) bool {
	var server *pgconn.PgError
	return errors.As(err, &server) && server.Code == "57P03"
}
