package server_test

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc/server"
	"github.com/chariot-giving/delta/internal/cdctest"
	"github.com/chariot-giving/delta/internal/soak"
	"github.com/chariot-giving/delta/internal/testport"
)

// nginxConfig is the configuration in docs/stream.md with buffering left on, so that X-Accel-Buffering has to switch it off: without that
// header, compression holds small events back. Its timeout is shorter than the 60 seconds there.
const nginxConfig = `
daemon off;
master_process off;
pid %[1]s/pid;
error_log %[1]s/error.log;
events { worker_connections 64; }
http {
    access_log off;
    gzip on;
    gzip_types text/event-stream;
    gzip_min_length 0;
    client_body_temp_path %[1]s/body;
    proxy_temp_path %[1]s/proxy;
    fastcgi_temp_path %[1]s/fastcgi;
    uwsgi_temp_path %[1]s/uwsgi;
    scgi_temp_path %[1]s/scgi;
    server {
        listen %[2]s;
        location / {
            proxy_pass %[3]s;
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $http_connection;
            proxy_set_header Host $host;
            proxy_read_timeout %[4]s;
        }
    }
}
`

// behindNginx puts a real nginx in front of the harness, which cuts connections that are silent for patience.
func behindNginx(t *testing.T, h *harness, patience string) {
	t.Helper()
	binary := os.Getenv("DELTA_NGINX")
	if binary == "" {
		found, err := exec.LookPath("nginx")
		if err != nil {
			t.Skip("there is no nginx on PATH: install Debian's package nginx, or name a binary in DELTA_NGINX")
		}
		binary = found
	}
	address := fmt.Sprint("127.0.0.1:", testport.Reserve(t))
	dir := t.TempDir()
	config := filepath.Join(dir, "nginx.conf")
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, nginxConfig, dir, address, h.url, patience), 0o600))
	var output bytes.Buffer
	nginx := exec.Command(binary, "-p", dir, "-c", config)
	nginx.Stdout, nginx.Stderr = &output, &output
	require.NoError(t, nginx.Start())
	t.Cleanup(func() {
		_ = nginx.Process.Kill()
		_ = nginx.Wait()
		if t.Failed() {
			t.Log(output.String())
		}
	})
	direct := h.url
	h.url = "http://" + address
	t.Cleanup(func() { h.url = direct })
	require.Eventually(t, func() bool {
		response, err := http.Get(h.url + "/livez")
		if err != nil {
			return false
		}
		_ = response.Body.Close()
		return response.StatusCode == http.StatusOK
	}, cdctest.Patience, 20*time.Millisecond)
}

func TestStreamsPassAProxyThatBuffersAndCuts(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t, nil) // a heartbeat every 200 milliseconds
	h.Exec(accounts)
	h.createSlot(h.s, `"tables":["public.account"],"snapshot":false`)
	behindNginx(t, h, "10s") // longer than a busy machine takes for a heartbeat
	events, _ := h.followEvents("/v2/tail")
	socket := h.dialStream("/v2/slots/" + h.s + "/stream")
	// Nothing happens for longer than the proxy waits, except that positions arrive one by one.
	for silent := time.Now().Add(13 * time.Second); time.Now().Before(silent); {
		require.Equal(t, "position", events().kind)
		m, err := socket.readAny()
		require.NoError(t, err)
		require.Equal(t, "position", m.Type)
	}
	h.Exec(`insert into account (id) values (1)`)
	require.Equal(t, "insert", onlyChanges(events)().Changes[0].Kind)
	require.Equal(t, "insert", socket.readMessage().Changes[0].Kind)
}

// Without heartbeats the proxy cuts the stream, which shows that the test before proves something.
func TestAProxyCutsAStreamWithoutHeartbeats(t *testing.T) {
	t.Parallel()
	h := newHarness(t, func(c *server.Config) { c.HeartbeatInterval = time.Hour })
	h.Exec(accounts)
	h.createSlot(h.s, `"tables":["public.account"],"snapshot":false`)
	behindNginx(t, h, "5s") // longer than a busy machine takes to start a stream
	socket := h.dialStream("/v2/slots/" + h.s + "/stream")
	m, err := socket.readAny()
	require.NoError(t, err)
	require.Equal(t, "position", m.Type)
	_, err = socket.readAny()
	require.Error(t, err)
	require.NotContains(t, err.Error(), "deadline", "it was cut, and did not only wait")
}

// Without heartbeats that would fill the proxy's buffers, a change arrives only if buffering is off.
func TestAProxyDoesNotBufferEvents(t *testing.T) {
	t.Parallel()
	h := newHarness(t, func(c *server.Config) { c.HeartbeatInterval = time.Hour })
	h.Exec(accounts)
	h.createSlot(h.s, `"tables":["public.account"],"snapshot":false`)
	behindNginx(t, h, "1h")
	events, _ := h.followEvents("/v2/slots/" + h.s + "/stream")
	require.Equal(t, "position", events().kind)
	h.Exec(`insert into account (id) values (1)`)
	require.Equal(t, "insert", onlyChanges(events)().Changes[0].Kind)
}
