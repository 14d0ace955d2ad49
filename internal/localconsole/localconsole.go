// Package localconsole serves a console for development, to this machine only, in which everybody may give commands. delta dev and the demonstrations of
// the examples use it.
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
	// DefaultPort is the preferred port, beside that of Temporal's UI.
	DefaultPort = 8234
	// grace is how long answers may take that are under way when the server is stopped.
	grace = 2 * time.Second
)

// Serve serves the console of a client, which need not be started, until stop is called. It listens on the port, or on any where that is taken; 0 is for
// any. TemporalUI is the address of Temporal's UI; empty where it has none.
func Serve(ctx context.Context, client *delta.Client, port int, temporalUI, temporalNamespace string) (address string, stop func(), err error) {
	config := console.Config{Authorize: func(*http.Request, console.Command) bool { return true }}
	if temporalUI != "" {
		config.TemporalUI = temporalUI + "/namespaces/" + temporalNamespace
	}
	handler, err := console.Handler(client, config)
	if err != nil {
		return "", nil, err
	}
	listener, err := listen(ctx, port)
	if err != nil {
		return "", nil, err
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(listener) // until it is stopped
	}()
	stop = func() {
		ctx, cancel := context.WithTimeout(context.Background(), grace)
		defer cancel()
		_ = server.Shutdown(ctx)
		_ = server.Close() // a page that shows a run may go on for long
		<-served
	}
	return "http://" + listener.Addr().String() + "/", stop, nil
}

func listen(ctx context.Context, port int) (net.Listener, error) {
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
