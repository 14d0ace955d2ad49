package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/chariot-giving/delta/delta"
)

const (
	// defaultMetricsListen has the port of OpenTelemetry's exporter for Prometheus.
	defaultMetricsListen = "127.0.0.1:9464"
	// metricsShutdownTimeout is how long requests in flight may take when the server stops.
	metricsShutdownTimeout = 5 * time.Second
)

// metricsFlags has the flags of delta metrics.
type metricsFlags struct {
	listen string
	once   bool
}

func metricsCommand(c *cli) *cobra.Command {
	f := &metricsFlags{}
	cmd := &cobra.Command{
		Use:   "metrics",
		Short: "Serve the installation's metrics for Prometheus",
		Long: "Serve the metrics of all clients at /metrics, read from Postgres, until interrupted. One process is enough for an installation. It\n" +
			"writes nothing and needs no client beside it. /healthz answers 200 as long as the database answers.\n" +
			"docs/metrics.md lists the metrics. To mount them in your own program, use delta.Metrics.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.serveOrPrintMetrics(cmd, f) },
	}
	flags := cmd.Flags()
	c.addDatabaseURLFlag(cmd)
	flags.StringVar(&f.listen, "listen", defaultMetricsListen, "`host:port` to listen on")
	flags.BoolVar(&f.once, "once", false, "print the metrics and exit")
	flags.DurationVar(&c.countEvery, "count-every", 5*time.Minute, "how `often` to count resources, which reads the whole table: at least 15s, or -1s for never")
	cmd.MarkFlagsMutuallyExclusive("listen", "once")
	return cmd
}

func (c *cli) serveOrPrintMetrics(cmd *cobra.Command, f *metricsFlags) error {
	if _, _, err := net.SplitHostPort(f.listen); err != nil {
		return fmt.Errorf("--listen %q: it must be a host and a port, such as %s", f.listen, defaultMetricsListen)
	}
	return c.withSession(cmd, func(ctx context.Context, s *session) error {
		if f.once {
			return s.WriteMetrics(ctx, c.out)
		}
		return c.serveMetrics(ctx, s, f.listen)
	})
}

// serveMetrics serves the metrics until a signal arrives.
func (c *cli) serveMetrics(ctx context.Context, s *session, address string) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintf(c.err, "delta metrics: http://%s/metrics\n", listener.Addr())
	return serveUntil(ctx, listener, &http.Server{Handler: newMetricsRoutes(s), ReadHeaderTimeout: metricsShutdownTimeout, WriteTimeout: time.Minute}, metricsShutdownTimeout)
}

func newMetricsRoutes(s *session) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", delta.Metrics(s.Client))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), connectTimeout)
		defer cancel()
		if err := s.pool.Ping(ctx); err != nil {
			http.Error(w, "the database does not answer", http.StatusServiceUnavailable)
			return
		}
		_, _ = fmt.Fprintln(w, "ok")
	})
	return mux
}
