package stack

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
)

const (
	frontendService = "frontend"
	// instances is how many processes each service has.
	instances = 2
	// historyShards divide the workflows among the history processes. Production has hundreds; these are enough for some to move at each kill.
	historyShards = 8

	sqlPlugin          = "postgres12"
	stateDatabase      = "temporal"
	visibilityDatabase = "temporal_visibility"
)

// clusterServices are the services of a Temporal, in the order of their start.
var clusterServices = []string{frontendService, "history", "matching", "worker"}

// clusterSettings are the dynamic configuration that docs/operations.md asks for, and otherwise the server's defaults, such as four partitions of each
// task queue.
var clusterSettings = []string{
	"frontend.enableCancelWorkerPollsOnShutdown=true",
	// The column of a workflow id in SQL has this length. Without the setting, a longer id fails with an error of the database.
	"limit.maxIDLength=255",
}

// listenPorts are the ports of a process: one for gRPC, one for its membership of the cluster.
type listenPorts struct{ grpc, membership int }

func (l listenPorts) address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(l.grpc)) }

// clusterPorts finds ports below the ephemeral ones, which begin at 32768 on Linux, and above those of internal/testport: while a process is dead, the
// system must not give its port to another connection.
type clusterPorts struct{ next int }

const firstClusterPort, lastClusterPort = 30_000, 32_767

func newClusterPorts() *clusterPorts {
	return &clusterPorts{next: firstClusterPort + rand.IntN(lastClusterPort-firstClusterPort-100)} // two clusters should not meet
}

func (p *clusterPorts) choose() (listens listenPorts, err error) {
	for _, port := range []*int{&listens.grpc, &listens.membership} {
		for *port == 0 {
			if p.next > lastClusterPort {
				return listens, errors.New("no free port for a process of the cluster")
			}
			if isPortFree(p.next) {
				*port = p.next
			}
			p.next++
		}
	}
	return listens, nil
}

// writeSettings writes the dynamic configuration of all processes.
func (c *Cluster) writeSettings() (path string, err error) {
	type value struct {
		Value json.RawMessage `json:"value"`
	}
	settings := map[string][]value{}
	for _, setting := range slices.Concat(clusterSettings, c.opts.Settings) {
		key, text, found := strings.Cut(setting, "=")
		if !found || !json.Valid([]byte(text)) {
			return "", fmt.Errorf("setting %q is not a key and a JSON value", setting)
		}
		settings[key] = []value{{json.RawMessage(text)}}
	}
	return c.writeFile("dynamic.yaml", settings)
}

// writeConfig writes the configuration of one process of each service. JSON is YAML.
func (c *Cluster) writeConfig(instance int, listens map[string]listenPorts, settings string) (path string, err error) {
	type object = map[string]any
	database, err := pgx.ParseConfig(c.postgres.DatabaseURL)
	if err != nil {
		return "", err
	}
	store := func(name string, connections int) object {
		return object{"sql": object{
			"pluginName": sqlPlugin, "databaseName": name, "user": database.User, "password": database.Password,
			"connectAddr": net.JoinHostPort(database.Host, strconv.Itoa(int(database.Port))), "connectProtocol": "tcp",
			"maxConns": connections, "maxIdleConns": connections, "maxConnLifetime": "1h",
		}}
	}
	services := object{}
	for service, ports := range listens {
		services[service] = object{"rpc": object{"grpcPort": ports.grpc, "membershipPort": ports.membership, "bindOnLocalHost": true}}
	}
	return c.writeFile(fmt.Sprintf("config-%d.yaml", instance), object{
		"log": object{"stdout": true, "level": "warn"},
		"persistence": object{
			"defaultStore": "state", "visibilityStore": "visibility", "numHistoryShards": historyShards,
			"datastores": object{"state": store(stateDatabase, 20), "visibility": store(visibilityDatabase, 10)},
		},
		"global":   object{"membership": object{"maxJoinDuration": "30s", "broadcastAddress": "127.0.0.1"}},
		"services": services,
		"clusterMetadata": object{
			"enableGlobalNamespace": false, "failoverVersionIncrement": 10, "masterClusterName": "active", "currentClusterName": "active",
			"clusterInformation": object{"active": object{
				"enabled": true, "initialFailoverVersion": 1, "rpcName": frontendService, "rpcAddress": c.frontends[0], // processes that differ here would write it in turn
			}},
		},
		"dcRedirectionPolicy": object{"policy": "noop"},
		"dynamicConfigClient": object{"filepath": settings, "pollInterval": "60s"},
	})
}

func (c *Cluster) writeFile(name string, content any) (path string, err error) {
	b, err := json.MarshalIndent(content, "", "  ")
	if err != nil {
		return "", err
	}
	path = filepath.Join(c.Dir, name)
	return path, os.WriteFile(path, append(b, '\n'), 0o600)
}
