//go:build unix

package stack

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/internal/freeport"
	"github.com/chariot-giving/delta/internal/testport"
)

// The cluster itself is tested by `make test-temporal`, which runs the core's tests on it.

func TestTheBalancerTakesTurnsAndPassesOverServersThatDoNotListen(t *testing.T) {
	t.Parallel()
	serve := func(answer string) net.Listener {
		// No other process takes the port when the listener is closed.
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", testport.Reserve(t)))
		require.NoError(t, err)
		t.Cleanup(func() { _ = listener.Close() })
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				_, _ = io.WriteString(conn, answer)
				_ = conn.Close()
			}
		}()
		return listener
	}
	a, b := serve("a"), serve("b")
	balancer, err := startBalancer([]string{a.Addr().String(), b.Addr().String()})
	require.NoError(t, err)
	ask := func() string {
		conn, err := net.Dial("tcp", balancer.address)
		require.NoError(t, err)
		answer, err := io.ReadAll(conn)
		require.NoError(t, err)
		return string(answer)
	}
	require.ElementsMatch(t, []string{"a", "b"}, []string{ask(), ask()})
	require.NoError(t, freeport.Close(a))
	require.Equal(t, []string{"b", "b"}, []string{ask(), ask()})
	require.NoError(t, balancer.close())

	// A connection in use does not keep the balancer from closing.
	idle, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = idle.Close() })
	balancer, err = startBalancer([]string{idle.Addr().String()})
	require.NoError(t, err)
	conn, err := net.Dial("tcp", balancer.address)
	require.NoError(t, err)
	_, err = idle.Accept()
	require.NoError(t, err)
	require.NoError(t, balancer.close())
	_, err = conn.Read(make([]byte, 1))
	require.Error(t, err)
}

func TestAProcessOfAClusterThatEndsByItselfIsReportedAndStartedAgain(t *testing.T) {
	t.Parallel()
	reports := make(chan string, 100)
	c := &Cluster{Dir: t.TempDir(), opts: ClusterOptions{Progress: func(message string) { reports <- message }}}
	p := &clusterProcess{cluster: c, spec: spec{
		name: "history-1", path: "/bin/sh", args: []string{"-c", "echo no shards; exit 3"},
		dir: c.Dir, logPath: filepath.Join(c.Dir, "history-1.log"), ending: killOnly,
	}}
	c.processes = append(c.processes, p)
	require.NoError(t, p.start())
	for range 2 {
		report := <-reports
		require.Contains(t, report, "history-1 ended by itself (exit status 3) and is started again")
		require.Contains(t, report, "no shards")
	}
	require.NoError(t, c.Stop(context.Background()))
}

func TestTheConfigurationOfACluster(t *testing.T) {
	t.Parallel()
	c := &Cluster{Dir: t.TempDir(), postgres: &Stack{DatabaseURL: postgresURL(5431, postgresDatabase)}}
	c.opts.Settings = []string{"history.maximumSignalsPerExecution=10", "limit.maxIDLength=100"}
	path, err := c.writeSettings()
	require.NoError(t, err)
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.JSONEq(t, `{
		"frontend.enableCancelWorkerPollsOnShutdown": [{"value": true}],
		"history.maximumSignalsPerExecution": [{"value": 10}],
		"limit.maxIDLength": [{"value": 100}]
	}`, string(text))

	ports, used, listens := newClusterPorts(), map[int]bool{}, map[string]listenPorts{}
	for _, service := range clusterServices {
		if listens[service], err = ports.choose(); err != nil {
			t.Skip(err) // other clusters have them
		}
		used[listens[service].grpc], used[listens[service].membership] = true, true
	}
	require.Len(t, used, 2*len(clusterServices))
	c.frontends = []string{listens[frontendService].address()}
	path, err = c.writeConfig(1, listens, "settings")
	require.NoError(t, err)
	text, err = os.ReadFile(path)
	require.NoError(t, err)
	var config struct {
		Services map[string]struct {
			RPC struct{ GRPCPort, MembershipPort int }
		}
		Persistence struct {
			NumHistoryShards int
			Datastores       map[string]struct {
				SQL struct{ PluginName, ConnectAddr string }
			}
		}
	}
	require.NoError(t, json.Unmarshal(text, &config))
	require.Len(t, config.Services, len(clusterServices))
	require.Equal(t, listens["history"].grpc, config.Services["history"].RPC.GRPCPort)
	require.Equal(t, "127.0.0.1:5431", config.Persistence.Datastores["state"].SQL.ConnectAddr)

	for _, bad := range []string{"limit.maxIDLength", "limit.maxIDLength=many"} {
		c.opts.Settings = []string{bad}
		_, err := c.writeSettings()
		require.ErrorContains(t, err, bad)
	}
	_, err = StartCluster(t.Context(), ClusterOptions{Server: filepath.Join(c.Dir, "none")})
	require.ErrorContains(t, err, "make temporal-cluster")
}
