package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/cdctest"
	"github.com/chariot-giving/delta/internal/hostile"
	"github.com/chariot-giving/delta/internal/soak"
)

// authority issues certificates.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t *testing.T, dir, name string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	}
	made, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	a := &authority{t: t, dir: dir, key: key, file: filepath.Join(dir, name+".pem")}
	a.cert, err = x509.ParseCertificate(made)
	require.NoError(t, err)
	a.write(name+".pem", "CERTIFICATE", made)
	return a
}

func (a *authority) write(name, kind string, bytes []byte) string {
	a.t.Helper()
	file := filepath.Join(a.dir, name)
	require.NoError(a.t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: bytes}), 0o600))
	return file
}

// issue makes a certificate for 127.0.0.1, or for a user, and returns its files.
func (a *authority) issue(name string, use x509.ExtKeyUsage) (cert, key string) {
	a.t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(a.t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{use},
	}
	made, err := x509.CreateCertificate(rand.Reader, template, a.cert, &private.PublicKey, a.key)
	require.NoError(a.t, err)
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(a.t, err)
	return a.write(name+"-cert.pem", "CERTIFICATE", made), a.write(name+"-key.pem", "PRIVATE KEY", encoded)
}

// serveTLS accepts TLS with certificates of the authority, and passes what is in it to a server.
func (a *authority) serveTLS(to string) (address string, accepted *atomic.Int64) {
	a.t.Helper()
	pair, err := tls.LoadX509KeyPair(a.issue("proxy", x509.ExtKeyUsageServerAuth))
	require.NoError(a.t, err)
	clients := x509.NewCertPool()
	clients.AddCert(a.cert)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{pair}, ClientCAs: clients, ClientAuth: tls.RequireAndVerifyClientCert, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12,
	})
	require.NoError(a.t, err)
	var links sync.WaitGroup
	accepted = new(atomic.Int64)
	ended, end := context.WithCancel(context.Background())
	links.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			links.Go(func() { passOn(ended, client.(*tls.Conn), to, accepted) })
		}
	})
	a.t.Cleanup(func() {
		end()
		_ = listener.Close()
		links.Wait()
	})
	return listener.Addr().String(), accepted
}

func passOn(ctx context.Context, client *tls.Conn, to string, accepted *atomic.Int64) {
	defer client.Close() //nolint:errcheck // the test is over, or the other side is
	if err := client.HandshakeContext(ctx); err != nil {
		return
	}
	accepted.Add(1)
	server, err := (&net.Dialer{}).DialContext(ctx, "tcp", to)
	if err != nil {
		return
	}
	stop := context.AfterFunc(ctx, func() { _, _ = client.Close(), server.Close() })
	defer stop()
	go func() {
		_, _ = io.Copy(server, client)
		_ = server.Close()
	}()
	_, _ = io.Copy(client, server)
}

// newTLSPostgres starts a server that lets only clients with a certificate of the authority in.
func newTLSPostgres(t *testing.T, a *authority) *cdctest.Private {
	t.Helper()
	server := cdctest.NewPrivate(t)
	cert, key := a.issue("server", x509.ExtKeyUsageServerAuth)
	if os.Getuid() == 0 {
		nobody, err := user.Lookup("nobody")
		require.NoError(t, err)
		uid, err := strconv.Atoi(nobody.Uid)
		require.NoError(t, err)
		for _, file := range []string{cert, key, a.file} {
			require.NoError(t, os.Chown(file, uid, -1))
		}
	}
	var hba string
	require.NoError(t, server.Pool.QueryRow(t.Context(), "SHOW hba_file").Scan(&hba))
	require.NoError(t, os.WriteFile(hba, []byte("hostssl all all 127.0.0.1/32 cert\n"), 0o600))
	for _, sql := range []string{
		fmt.Sprintf("ALTER SYSTEM SET ssl_cert_file = '%s'", cert), fmt.Sprintf("ALTER SYSTEM SET ssl_key_file = '%s'", key),
		fmt.Sprintf("ALTER SYSTEM SET ssl_ca_file = '%s'", a.file), "ALTER SYSTEM SET ssl = on",
	} {
		_, err := server.Pool.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	_, err := server.Pool.Exec(t.Context(), "SELECT pg_reload_conf()")
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		conn, err := pgx.ConnectConfig(t.Context(), server.Config())
		if err == nil {
			_ = conn.Close(t.Context())
		}
		return err != nil
	}, testTimeout, 20*time.Millisecond, "it no longer accepts connections without TLS")
	server.Pool.Reset() // of connections that were made before
	return server
}

// A client and the command work over TLS to Postgres and to Temporal, each verified on both sides, and over nothing less.
func TestEverythingWorksOverVerifiedTLS(t *testing.T) {
	soak.Long(t)
	hostile.NeedsDirect(t, "it has a Postgres of its own")
	i := newInstallation(t)
	dir, err := os.MkdirTemp("/tmp", "delta-tls-*") // which Postgres' user can enter
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o755))
	ca, other := newAuthority(t, dir, "ca"), newAuthority(t, dir, "other")
	server := newTLSPostgres(t, ca)
	cert, key := ca.issue("postgres", x509.ExtKeyUsageClientAuth) // the name of the role
	port := server.Pool.Config().ConnConfig.Port
	address := func(ca, mode string) string {
		return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?sslmode=%s&sslrootcert=%s&sslcert=%s&sslkey=%s", port, mode, ca, cert, key)
	}
	up := inProcess(t.Context(), streams{}, "migrate", "up", "--database-url", address(other.file, "verify-full"))
	require.Equal(t, exitUnreachable, up.code)
	require.Contains(t, up.stderr, "certificate signed by unknown authority")
	up = inProcess(t.Context(), streams{}, "migrate", "up", "--database-url", fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable", port))
	require.Equal(t, exitUnreachable, up.code)
	require.Contains(t, up.stderr, "no encryption")
	up = inProcess(t.Context(), streams{}, "migrate", "up", "--database-url", address(ca.file, "verify-full"))
	require.Zero(t, up.code, up.stderr)

	temporal, accepted := ca.serveTLS(i.TemporalAddress)
	t.Setenv("TEMPORAL_ADDRESS", temporal)
	t.Setenv("TEMPORAL_NAMESPACE", i.TemporalNamespace)
	t.Setenv("TEMPORAL_TLS", "true")
	t.Setenv("TEMPORAL_TLS_CLIENT_CERT_PATH", cert)
	t.Setenv("TEMPORAL_TLS_CLIENT_KEY_PATH", key)
	pool, err := pgxpool.New(t.Context(), address(ca.file, "verify-full"))
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	newClient := func() *delta.Client {
		controllers := delta.NewControllers()
		delta.AddController(controllers, &pages{list: []page{{Path: "a"}}})
		c, err := delta.NewClient(pool, &delta.Config{Controllers: controllers, WorkflowIDPrefix: i.Prefix, Logger: i.Logger})
		require.NoError(t, err)
		return c
	}
	t.Setenv("TEMPORAL_TLS_SERVER_CA_CERT_PATH", other.file)
	require.ErrorContains(t, newClient().Start(t.Context()), "certificate signed by unknown authority")
	require.Zero(t, accepted.Load())

	t.Setenv("TEMPORAL_TLS_SERVER_CA_CERT_PATH", ca.file)
	c := i.startClient(newClient())
	_, err = c.Sync(t.Context(), page{Path: "a"}, nil)
	require.NoError(t, err)
	require.Positive(t, accepted.Load())
	var plain int
	require.NoError(t, pool.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid)
		WHERE a.backend_type = 'client backend' AND NOT (s.ssl AND s.client_dn = '/CN=postgres')`).Scan(&plain))
	require.Zero(t, plain, "every connection has TLS, and a certificate of the client")
	doctor := inProcess(t.Context(), streams{}, "doctor", "--database-url", address(ca.file, "verify-full"))
	require.Zero(t, doctor.code, doctor.stdout+doctor.stderr)
}
