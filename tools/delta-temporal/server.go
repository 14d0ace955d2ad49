package main

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/google/uuid"
	uiserver "github.com/temporalio/ui-server/v2/server"
	uiconfig "github.com/temporalio/ui-server/v2/server/config"
	uioptions "github.com/temporalio/ui-server/v2/server/server_options"
	"go.temporal.io/server/common/authorization"
	"go.temporal.io/server/common/cluster"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/dynamicconfig"
	"go.temporal.io/server/common/log"
	"go.temporal.io/server/common/membership/static"
	"go.temporal.io/server/common/persistence/sql/sqlplugin/sqlite"
	"go.temporal.io/server/common/primitives"
	schema "go.temporal.io/server/schema/sqlite"
	"go.temporal.io/server/temporal"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

const (
	namespace   = "default"
	clusterName = "active"
	storeName   = "sqlite"
	// stopPatience is how long an orderly stop may take. SQLite survives a kill, so waiting longer would gain nothing.
	stopPatience = 5 * time.Second
)

type server struct {
	temporal temporal.Server
	ui       *uiserver.Server
}

// startServer returns when all services of the server run. The UI starts in parallel.
func startServer(o options) (*server, error) {
	if !o.headless {
		// Check the UI's port first, because the UI fails only after the start.
		if err := portFree(o.ip, o.uiPort); err != nil {
			return nil, err
		}
	}
	store, err := openStore(o)
	if err != nil {
		return nil, err
	}
	ports, err := freePorts(o.ip, 4)
	if err != nil {
		return nil, err
	}
	conf := newConfiguration(o, store, ports)
	logger, err := newLogger(o.logLevel)
	if err != nil {
		return nil, err
	}
	claims, err := authorization.GetClaimMapperFromConfig(&conf.Global.Authorization, logger)
	if err != nil {
		return nil, err
	}
	hosts := map[primitives.ServiceName]static.Hosts{}
	for name, service := range conf.Services {
		hosts[primitives.ServiceName(name)] = static.SingleLocalHost(net.JoinHostPort(o.ip, strconv.Itoa(service.RPC.GRPCPort)))
	}
	dynamic := dynamicconfig.StaticClient{
		// The server has one namespace, so the limits that protect namespaces from each other are only in the way.
		dynamicconfig.FrontendMaxNamespaceVisibilityRPSPerInstance.Key(): 100,
		dynamicconfig.HistoryCacheHostLevelMaxSize.Key():                 8192,
	}
	for key, value := range o.dynamicConfig {
		dynamic[dynamicconfig.MakeKey(key)] = value
	}
	s := &server{}
	s.temporal, err = temporal.NewServer(
		temporal.WithConfig(conf),
		temporal.ForServices(temporal.DefaultServices),
		temporal.WithStaticHosts(hosts),
		temporal.WithLogger(logger),
		temporal.WithAuthorizer(authorization.NewNoopAuthorizer()),
		temporal.WithClaimMapper(func(*config.Config) authorization.ClaimMapper { return claims }),
		temporal.WithDynamicConfigClient(dynamic),
	)
	if err != nil {
		return nil, err
	}
	if err := s.temporal.Start(); err != nil {
		return nil, err
	}
	if !o.headless {
		s.ui = uiserver.NewServer(uioptions.WithConfigProvider(&uiconfig.Config{
			Host: o.ip, Port: o.uiPort, TemporalGRPCAddress: net.JoinHostPort(o.ip, strconv.Itoa(o.port)),
			EnableUI: true, HideLogs: true, DisableNewsFetch: true,
			CORS: uiconfig.CORS{CookieInsecure: true}, // the UI is served without TLS
		}))
		go func() {
			// Start returns only after a failure or a stop.
			if err := s.ui.Start(); err != nil {
				logger.Fatal(fmt.Sprintf("the UI cannot be served on port %d: %v", o.uiPort, err))
			}
		}()
	}
	return s, nil
}

func (s *server) stop() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if s.ui != nil {
			s.ui.Stop()
		}
		_ = s.temporal.Stop()
	}()
	select {
	case <-done:
	case <-time.After(stopPatience):
	}
}

// newLogger returns a logger that writes one line for each entry. The server's own logger adds stack traces to errors, which would hide the reason of a failed
// start.
func newLogger(level string) (log.Logger, error) {
	parsed, err := zap.ParseAtomicLevel(level)
	if err != nil {
		return nil, fmt.Errorf("--log-level: %w", err)
	}
	conf := zap.NewProductionConfig()
	conf.Level, conf.Encoding, conf.DisableStacktrace, conf.DisableCaller, conf.Sampling = parsed, "console", true, true, nil
	conf.EncoderConfig.EncodeTime = zapcore.ISO8601TimeEncoder
	built, err := conf.Build()
	if err != nil {
		return nil, err
	}
	return log.NewZapLogger(built), nil
}

// openStore prepares the database: its schema, and the namespace with its search attributes.
func openStore(o options) (*config.SQL, error) {
	store := &config.SQL{
		PluginName:        sqlite.PluginName,
		ConnectAttributes: map[string]string{"mode": "memory", "cache": "shared"},
		DatabaseName:      uuid.NewString(), // unique, otherwise two in-memory stores of one process would be the same store
	}
	if o.database != "" {
		store.ConnectAttributes = map[string]string{"mode": "rwc"}
		store.DatabaseName = o.database
		maps.Copy(store.ConnectAttributes, o.pragmas)
		if _, err := os.Stat(o.database); errors.Is(err, os.ErrNotExist) {
			if err := schema.SetupSchema(store); err != nil {
				return nil, fmt.Errorf("creating %s: %w", o.database, err)
			}
		} else if err != nil {
			return nil, err
		}
	}
	first, err := schema.NewNamespaceConfig(clusterName, namespace, false, o.searchAttributes)
	if err != nil {
		return nil, err
	}
	if err := schema.CreateNamespaces(store, first); err != nil {
		return nil, fmt.Errorf("creating the namespace: %w", err)
	}
	if o.database == "" {
		if err := dropIndexes(store); err != nil {
			return nil, fmt.Errorf("dropping indexes: %w", err)
		}
	}
	return store, nil
}

// newConfiguration returns the configuration of a server with one process and one shard. ports are for the HTTP API of the frontend and the internal services.
func newConfiguration(o options, store *config.SQL, ports []int) *config.Config {
	address := net.JoinHostPort(o.ip, strconv.Itoa(o.port))
	service := func(grpc, http int) config.Service {
		return config.Service{RPC: config.RPC{GRPCPort: grpc, HTTPPort: http, BindOnIP: o.ip}}
	}
	return &config.Config{
		Global: config.Global{Membership: config.Membership{MaxJoinDuration: 30 * time.Second, BroadcastAddress: o.ip}},
		Persistence: config.Persistence{
			DefaultStore: storeName, VisibilityStore: storeName, NumHistoryShards: 1,
			DataStores: map[string]config.DataStore{storeName: {SQL: store}},
		},
		ClusterMetadata: &cluster.Config{
			FailoverVersionIncrement: 10, MasterClusterName: clusterName, CurrentClusterName: clusterName,
			ClusterInformation: map[string]cluster.ClusterInformation{clusterName: {
				Enabled: true, InitialFailoverVersion: 1, RPCAddress: address,
				HTTPAddress: net.JoinHostPort(o.ip, strconv.Itoa(ports[0])),
			}},
		},
		DCRedirectionPolicy: config.DCRedirectionPolicy{Policy: "noop"},
		Services: map[string]config.Service{
			string(primitives.FrontendService): service(o.port, ports[0]),
			string(primitives.HistoryService):  service(ports[1], 0),
			string(primitives.MatchingService): service(ports[2], 0),
			string(primitives.WorkerService):   service(ports[3], 0),
		},
		Archival: config.Archival{
			History:    config.HistoryArchival{State: config.ArchivalDisabled},
			Visibility: config.VisibilityArchival{State: config.ArchivalDisabled},
		},
		NamespaceDefaults: config.NamespaceDefaults{Archival: config.ArchivalNamespaceDefaults{
			History:    config.HistoryArchivalNamespaceDefaults{State: config.ArchivalDisabled},
			Visibility: config.VisibilityArchivalNamespaceDefaults{State: config.ArchivalDisabled},
		}},
		PublicClient: config.PublicClient{HostPort: address},
	}
}

// freePorts finds free ports. It holds all of them until it has found the last, so that they differ.
func freePorts(ip string, n int) ([]int, error) {
	ports := make([]int, n)
	for i := range ports {
		listener, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
		if err != nil {
			return nil, err
		}
		defer func() { _ = listener.Close() }()
		ports[i] = listener.Addr().(*net.TCPAddr).Port
	}
	return ports, nil
}

func portFree(ip string, port int) error {
	listener, err := net.Listen("tcp", net.JoinHostPort(ip, strconv.Itoa(port)))
	if err != nil {
		return err
	}
	return listener.Close()
}
