package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/internal/cdctest"
)

func TestStreamSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	d := cdctest.New(t)
	c := d.Config()
	url := "postgres://" + c.User + ":" + c.Password + "@" + net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port))) + "/" + d.Name
	d.Exec(`create role ` + d.Name + ` login password 'x'`)
	t.Cleanup(func() { cdctest.Administer(t, `drop role `+d.Name) })
	empty := filepath.Join(t.TempDir(), "empty")
	require.NoError(t, os.WriteFile(empty, nil, 0o600))
	for _, one := range []struct {
		code int
		says string
		args []string
	}{
		{exitUsage, "no database", nil},
		{exitUsage, "database-url", []string{"--database-url", url, "--db", "x"}},
		{exitUsage, `--token "of 5 characters": it must be 16 characters or more`, []string{"--database-url", url, "--token", "short"}},
		{exitUsage, "it has no token", []string{"--database-url", url, "--token-file", empty}},
		{exitUsage, "tls-key", []string{"--database-url", url, "--tls-cert", empty}},
		{exitUsage, "--tls-cert", []string{"--database-url", url, "--tls-cert", empty, "--tls-key", empty}},
		{exitUsage, "--listen", []string{"--database-url", url, "--listen", "8080"}},
		{exitUsage, "is not a port", []string{"--database-url", url, "--serverPort", "70000"}},
		{exitUsage, `--heartbeat "-1s": it must be more than zero`, []string{"--database-url", url, "--heartbeat", "-1s"}},
		{exitUsage, `--slot-heartbeat "1ms": it must be 0, for none, or at least 100 milliseconds`, []string{"--database-url", url, "--slot-heartbeat", "1ms"}},
		{exitUsage, `--log-format "xml": it must be text or json`, []string{"--database-url", url, "--log-format", "xml"}},
		{exitUnreachable, `"level":"ERROR","msg":"ended","error":"Postgres at 127.0.0.1:1 cannot be reached`, []string{"--database-url", "postgres://127.0.0.1:1/x", "--log-format", "json"}},
		{exitUsage, `--table "[a": it must be a pattern`, []string{"--database-url", url, "--table", "[a"}},
		{exitUsage, `--publication "xxx`, []string{"--database-url", url, "--publication", strings.Repeat("x", 64)}},
		{exitUsage, `--origin "example.com": it must be a scheme and a host`, []string{"--database-url", url, "--origin", "example.com"}},
		{exitUsage, "--insecure", []string{"--database-url", url, "--listen", "0.0.0.0:0"}},
		{exitUsage, "ALTER ROLE", []string{"--database-url", strings.Replace(url, c.User+":"+c.Password, d.Name+":x", 1)}},
		{exitUnreachable, "cannot be reached", []string{"--database-url", "postgres://127.0.0.1:1/x"}},
		{exitUnreachable, "does not exist", []string{"--database-url", url + "_not"}},
		{exitUsage, "pool_max_conns", []string{"--database-url", url + "?pool_max_conns=many"}},
		{exitUsage, "--insecure", []string{"--database-url", url + "?pool_max_conns=3", "--listen", "0.0.0.0:0"}}, // the pool's parameter was accepted
	} {
		r := runBinary(t, []string{"DATABASE_URL=", "DELTA_DATABASE_URL=", "DBNAME=", "PGDATABASE=", "DELTA_STREAM_TOKEN="}, append([]string{"stream"}, one.args...)...)
		require.Equal(t, one.code, r.code, "%v: %s", one.args, r.stderr)
		require.Contains(t, r.stderr, one.says)
		if c.Password != "" {
			require.NotContains(t, r.stderr, c.Password)
		}
	}
}

// Uses the environment of PGDeltaStream, a token file and TLS.
func TestStreamServesUntilItIsTerminated(t *testing.T) {
	t.Parallel()
	d := cdctest.New(t)
	dir := t.TempDir()
	cert, key, pool := writeCertificate(t, dir)
	tokens := filepath.Join(dir, "tokens")
	require.NoError(t, os.WriteFile(tokens, []byte("first-token-of-the-file\nsecond-token-of-the-file\n"), 0o600))
	c := d.Config()
	cmd := exec.Command(binary, "stream", "--token-file", tokens, "--tls-cert", cert, "--tls-key", key, "--serverPort", "0")
	cmd.Env = append(os.Environ(), patientConnect, "DATABASE_URL=", "DELTA_DATABASE_URL=", "DBNAME="+d.Name, "PGUSER="+c.User, "PGPASS="+c.Password, "PGHOST="+c.Host,
		"PGPORT="+strconv.Itoa(int(c.Port)), "SERVERHOST=127.0.0.1", "PGSSLMODE=disable")
	stderr, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	defer func() { _ = cmd.Process.Kill() }()
	lines := bufio.NewScanner(stderr)
	require.True(t, lines.Scan())
	found := regexp.MustCompile(`https://(127\.0\.0\.1:\d+)`).FindStringSubmatch(lines.Text())
	require.NotNil(t, found, lines.Text())
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+found[1]+"/v1/init", nil)
	require.NoError(t, err)
	request.Header.Set("Authorization", "Bearer second-token-of-the-file")
	response, err := (&http.Client{Transport: transport}).Do(request)
	require.NoError(t, err)
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, http.StatusOK, response.StatusCode, "%s", body)
	require.Regexp(t, `^{"slotName":"delta_\w+"}`, string(body))
	transport.CloseIdleConnections()
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	for lines.Scan() {
		require.NotContains(t, lines.Text(), "token-of-the-file")
	}
	require.NoError(t, cmd.Wait(), "it ends well")
}

// The log is JSON from the first line to the last, and the endpoints of Prometheus and Kubernetes answer.
func TestStreamLogsInJSONAndServesItsProbes(t *testing.T) {
	t.Parallel()
	d := cdctest.New(t)
	c := d.Config()
	url := "postgres://" + c.User + ":" + c.Password + "@" + net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port))) + "/" + d.Name
	cmd := exec.Command(binary, "stream", "--database-url", url, "--listen", "127.0.0.1:0", "--log-format", "json", "-v")
	cmd.Env = append(os.Environ(), patientConnect)
	stderr, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	defer func() { _ = cmd.Process.Kill() }()
	lines := bufio.NewScanner(stderr)
	read := func() (line struct{ Time, Level, Msg, URL string }) {
		require.NoError(t, json.Unmarshal(lines.Bytes(), &line), lines.Text())
		require.NotEmpty(t, line.Time)
		require.NotEmpty(t, line.Level)
		return line
	}
	require.True(t, lines.Scan())
	served := read()
	require.Equal(t, "serving", served.Msg)
	transport := &http.Transport{}
	get := func(path string) string {
		request, err := http.NewRequestWithContext(t.Context(), "GET", served.URL+path, nil)
		require.NoError(t, err)
		response, err := (&http.Client{Transport: transport}).Do(request)
		require.NoError(t, err)
		body, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		require.Equal(t, http.StatusOK, response.StatusCode, "%s: %s", path, body)
		return string(body)
	}
	for _, path := range []string{"/livez", "/readyz", "/healthz"} {
		require.JSONEq(t, `{"status":"ok"}`, get(path))
	}
	require.Contains(t, get("/metrics"), "# TYPE delta_stream_build_info gauge\n")
	transport.CloseIdleConnections()
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	last := served
	for lines.Scan() {
		last = read()
	}
	require.Equal(t, "stopped", last.Msg)
	require.NoError(t, cmd.Wait())
}

// writeCertificate writes a certificate for this machine.
func writeCertificate(t *testing.T, dir string) (cert, key string, pool *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true,
	}
	made, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	require.NoError(t, err)
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	require.NoError(t, os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: made}), 0o600))
	require.NoError(t, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded}), 0o600))
	pool = x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: made})))
	return cert, key, pool
}
