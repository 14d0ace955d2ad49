package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/coder/websocket"

	"github.com/chariot-giving/delta/cdc/server"
)

const streamSlot = "bench_stream"

// measureWebsocket reads the same content as measureThroughput, through a server of `delta stream` and a websocket.
func (c *cdcBench) measureWebsocket(ctx context.Context) (_ []figure, err error) {
	program, err := clientProgram("pg_recvlogical")
	if err != nil {
		fmt.Fprintln(os.Stderr, "  cdc: the websocket is not measured:", err)
		return nil, nil
	}
	s, err := server.New(ctx, server.Config{Conn: c.config, Logger: c.logger})
	if err != nil {
		return nil, err
	}
	defer s.Close()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	serveCtx, stop := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- s.Serve(serveCtx, listener) }()
	defer func() {
		stop()
		err = errors.Join(err, <-served)
	}()
	address := listener.Addr().String()

	f := figure{
		Name: "delta stream, changes through a websocket", Unit: "/s", AtLeast: 0.5,
		What: "one client of /v2, which acknowledges every hundredth transaction, against pg_recvlogical that writes the same content to /dev/null",
	}
	half := c.scaleCount(50_000)
	slots := "http://" + address + "/v2/slots"
	makeSlot := func() error {
		return callServer(ctx, http.MethodPost, slots, fmt.Sprintf(`{"name":%q,"tables":["public.t"],"snapshot":false}`, streamSlot))
	}
	f, err = c.compareWithReceiver(ctx, program, f, half, makeSlot, func() (rate float64, err error) {
		if rate, err = drainChanges(ctx, address, 2*half); err != nil {
			return 0, err
		}
		// The client's session ends a moment after its connection, so deleting the slot may have to be repeated.
		for range 100 {
			if err = callServer(ctx, http.MethodDelete, slots+"/"+streamSlot, ""); err == nil {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		return rate, err
	})
	return []figure{f}, err
}

// callServer sends a request, and returns an error unless it succeeds.
func callServer(ctx context.Context, method, url, body string) error {
	request, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close() //nolint:errcheck // the body is read by then
	if response.StatusCode >= http.StatusBadRequest {
		text, _ := io.ReadAll(response.Body)
		return fmt.Errorf("%s %s: %s: %s", method, url, response.Status, text)
	}
	return nil
}

// drainChanges reads a number of changes, and decodes only the fields that an acknowledgement needs.
func drainChanges(ctx context.Context, address string, changes int) (rate float64, err error) {
	began := time.Now()
	conn, _, err := websocket.Dial(ctx, "ws://"+address+"/v2/slots/"+streamSlot+"/stream", nil) //nolint:bodyclose // the library's own
	if err != nil {
		return 0, err
	}
	defer conn.CloseNow() //nolint:errcheck // everything is read by then
	conn.SetReadLimit(64 << 20)
	n, transactions := 0, 0
	for n < changes {
		_, data, err := conn.Read(ctx)
		if err != nil {
			return 0, err
		}
		if !bytes.HasPrefix(data, []byte(`{"type":"transaction"`)) {
			continue
		}
		n += bytes.Count(data, []byte(`{"kind":"`))
		if !bytes.Contains(data, []byte(`"final":true`)) {
			continue
		}
		if transactions++; transactions%100 != 0 && n < changes {
			continue
		}
		_, rest, _ := bytes.Cut(data, []byte(`"lsn":"`))
		lsn, _, _ := bytes.Cut(rest, []byte(`"`))
		if err := conn.Write(ctx, websocket.MessageText, []byte(`{"lsn":"`+string(lsn)+`"}`)); err != nil {
			return 0, err
		}
	}
	rate = float64(n) / time.Since(began).Seconds()
	return rate, conn.Close(websocket.StatusNormalClosure, "all was read")
}
