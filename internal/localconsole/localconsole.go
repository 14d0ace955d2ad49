// Package localconsole serves a console for development on loopback, in which everybody may give commands. delta dev and the demos of the examples
// use it.
package localconsole

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/console"
)

const (
	// DefaultPort is the preferred port, next to that of Temporal's UI.
	DefaultPort = 8234
	// shutdownTimeout is how long requests in flight may take when the server stops.
	shutdownTimeout = 2 * time.Second
)

// Serve serves the console of a client, which need not be started, until stop is called. It listens on port, or on any free port if port is taken or 0.
// temporalUI is the address of Temporal's UI; empty if there is none.
func Serve(ctx context.Context, client *delta.Client, port int, temporalUI, temporalNamespace string) (address string, stop func(), err error) {
	config := console.Config{Authorize: func(*http.Request, console.Command) bool { return true }}
	if temporalUI != "" {
		config.TemporalUI = temporalUI + "/namespaces/" + temporalNamespace
	}
	handler, err := console.Handler(client, config)
	if err != nil {
		return "", nil, err
	}
	listener, err := listenNear(ctx, port)
	if err != nil {
		return "", nil, err
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(listener) // it returns when stop is called
	}()
	stop = func() {
		ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
		defer cancel()
		_ = server.Shutdown(ctx)
		_ = server.Close() // a page that shows a run would keep its connection open
		<-served
	}
	return "http://" + listener.Addr().String() + "/", stop, nil
}

func listenNear(ctx context.Context, port int) (net.Listener, error) {
	config := &net.ListenConfig{}
	listener, err := config.Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err == nil || port == 0 {
		return listener, err
	}
	listener, second := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if second != nil {
		return nil, errors.Join(err, second)
	}
	return listener, nil
}
