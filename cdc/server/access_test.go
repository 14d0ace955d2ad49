package server_test

import (
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/cdc/server"
	"github.com/chariot-giving/delta/internal/cdctest"
)

const secret = "a-token-of-twenty-six-chars"

func TestRequestsNeedATokenAndAKnownOrigin(t *testing.T) {
	t.Parallel()
	h := newHarness(t, func(c *server.Config) {
		c.Tokens = []string{"another-token-that-is-long", secret}
		c.Origins = []string{"https://*.example.com"}
	})
	h.Exec(accounts)
	right := []string{"Authorization", "Bearer " + secret}
	for _, path := range []string{"/v2/slots", "/v2/slots/x", "/v2/slots/x/stream", "/v2/tail", "/metrics", "/v1/init", "/v1/lr/stream", "/nowhere"} {
		for _, wrong := range [][]string{nil, {"Authorization", "Bearer "}, {"Authorization", "Bearer " + secret + "x"}, {"Authorization", "Basic " + secret}, {"Authorization", secret}} {
			a := h.request("GET", path, "", wrong...)
			require.Equal(t, http.StatusUnauthorized, a.status, path)
			require.Equal(t, "unauthorized", a.code())
			require.NotEmpty(t, a.header.Get("WWW-Authenticate"))
		}
	}
	require.Equal(t, http.StatusOK, h.request("GET", "/v2/slots", "", right...).status)
	require.Equal(t, http.StatusOK, h.request("GET", "/v2/slots", "", "Authorization", "bearer another-token-that-is-long").status)
	for _, path := range []string{"/", "/page.css", "/page.js", "/healthz", "/livez", "/readyz"} {
		a := h.request("GET", path, "")
		require.Equal(t, http.StatusOK, a.status, path)
		require.Contains(t, a.header.Get("Content-Security-Policy"), "default-src 'none'")
	}
	require.Contains(t, h.request("GET", "/healthz", "").body, `"ok"`)

	// Pages of other origins.
	for origin, status := range map[string]int{
		"https://app.example.com": http.StatusOK, h.url: http.StatusOK, "https://evil.com": http.StatusForbidden,
		"https://app.example.com.evil.com": http.StatusForbidden, "null": http.StatusForbidden, "http://app.example.com": http.StatusForbidden,
	} {
		a := h.request("GET", "/v2/slots", "", append(right, "Origin", origin)...)
		require.Equal(t, status, a.status, origin)
	}
	a := h.request("OPTIONS", "/v2/slots", "", "Origin", "https://app.example.com", "Access-Control-Request-Method", "POST")
	require.Equal(t, http.StatusNoContent, a.status)
	require.Equal(t, "https://app.example.com", a.header.Get("Access-Control-Allow-Origin"))
	_, response, err := websocket.Dial(t.Context(), "ws"+strings.TrimPrefix(h.url, "http")+"/v2/tail", &websocket.DialOptions{
		HTTPClient: h.http, HTTPHeader: http.Header{"Origin": {"https://evil.com"}, "Authorization": {"Bearer " + secret}},
	})
	require.Error(t, err)
	require.Equal(t, http.StatusForbidden, response.StatusCode)
}

// A page may resolve its own name to the address of this machine, or make the browser send a request.
func TestPagesCannotReachAServerWithoutTokens(t *testing.T) {
	t.Parallel()
	h := newHarness(t, func(c *server.Config) { c.Hosts = []string{"stream.internal"} })
	require.Equal(t, "host", h.request("GET", "/v2/slots", "", "Host", "evil.com").code())
	require.Equal(t, "host", h.request("GET", "/v1/init", "", "Host", "evil.com:8080").code())
	require.Equal(t, http.StatusOK, h.request("GET", "/v2/slots", "", "Host", "localhost:8080").status)
	require.Equal(t, http.StatusOK, h.request("GET", "/v2/slots", "", "Host", "[::1]:8080").status)
	require.Equal(t, http.StatusOK, h.request("GET", "/v2/slots", "", "Host", "stream.internal").status)
	require.Equal(t, "origin", h.request("GET", "/v1/init", "", "Sec-Fetch-Site", "cross-site").code())
	require.Equal(t, "origin", h.request("POST", "/v2/slots", "{}", "Origin", "https://evil.com").code())
	require.Equal(t, http.StatusOK, h.request("GET", "/", "", "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate").status)
}

func TestAServerWithoutTokensListensOnThisMachineOnly(t *testing.T) {
	t.Parallel()
	d := cdctest.New(t)
	s, err := server.New(t.Context(), server.Config{Conn: d.Config()})
	require.NoError(t, err)
	defer s.Close()
	listener, err := net.Listen("tcp", "0.0.0.0:0")
	require.NoError(t, err)
	err = s.Serve(t.Context(), listener)
	require.ErrorContains(t, err, "--insecure")
	var invalid *cdc.InvalidError
	require.ErrorAs(t, err, &invalid)
	_, err = listener.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
}

func TestV1IsOffWhereStrangersCanCall(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	require.Equal(t, http.StatusServiceUnavailable, h.request("POST", "/v1/snapshot/data", `{"table":"t"}`).status, "it is on")
	h.stop()
	h.listen = "0.0.0.0:0"
	h.startServer(func(c *server.Config) { c.Insecure = true })
	require.Equal(t, "v1_off", h.request("GET", "/v1/init", "").code())
	h.stop()
	h.startServer(func(c *server.Config) { c.Tokens = []string{secret} })
	require.Equal(t, http.StatusServiceUnavailable, h.request("POST", "/v1/snapshot/data", `{"table":"t"}`, "Authorization", "Bearer "+secret).status)
}

func TestInvalidConfigsAreRefused(t *testing.T) {
	t.Parallel()
	conn := cdctest.New(t).Config()
	for field, config := range map[string]server.Config{
		"Conn": {}, "Tokens": {Conn: conn, Tokens: []string{"short"}}, "Tables": {Conn: conn, Tables: []string{"[a"}},
		"Origins": {Conn: conn, Origins: []string{"example.com"}}, "ClientMemory": {Conn: conn, ClientMemory: 1},
		"MaxRows": {Conn: conn, MaxRows: -1}, "WriteTimeout": {Conn: conn, WriteTimeout: -1}, "Hosts": {Conn: conn, Hosts: []string{""}},
	} {
		_, err := server.New(t.Context(), config)
		var invalid *cdc.InvalidError
		require.ErrorAs(t, err, &invalid, field)
		require.Equal(t, field, string(invalid.Field))
		require.NotContains(t, err.Error(), "short")
	}
	for range 20 { // of several faults the same one is named each time
		_, err := server.New(t.Context(), server.Config{Conn: conn, Tables: []string{""}, Origins: []string{""}, Hosts: []string{""}})
		require.ErrorContains(t, err, "Tables ")
	}
}

func TestARoleWithoutReplicationIsRefused(t *testing.T) {
	t.Parallel()
	d := cdctest.New(t)
	d.Exec(`create role ` + d.Name + ` login password 'x'`)
	t.Cleanup(func() { cdctest.Administer(t, `drop role `+d.Name) })
	config := d.Config()
	config.User, config.Password = d.Name, "x"
	_, err := server.New(t.Context(), server.Config{Conn: config})
	require.ErrorContains(t, err, "ALTER ROLE")
}
