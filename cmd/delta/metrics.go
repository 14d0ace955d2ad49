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
	// metricsGrace is how long answers may take that are under way when the server is stopped.
	metricsGrace = 5 * time.Second
)

// metricsFlags are those of metrics.
type metricsFlags struct {
	listen string
	once   bool
}

func metricsCommand(c *cli) *cobra.Command {
	f := &metricsFlags{}
	cmd := &cobra.Command{
		Use:   "metrics",
		Short: "Serve the installation's figures for Prometheus",
		Long: "metrics serves the figures of all clients at /metrics, read from Postgres, until it is interrupted. It writes nothing, and\n" +
			"needs no client: one process is enough for an installation. /healthz answers 200 while the database does.\n" +
			"docs/metrics.md has a table of the figures. A program can mount them itself: delta.Metrics.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.serveOrPrint(cmd, f) },
	}
	flags := cmd.Flags()
	c.databaseFlag(cmd)
	flags.StringVar(&f.listen, "listen", defaultMetricsListen, "`host:port` to listen on")
	flags.BoolVar(&f.once, "once", false, "print the figures, and serve nothing")
	flags.DurationVar(&c.countEvery, "count-every", 5*time.Minute, "how often to count resources, which reads the whole table: 15s or more, or -1s for never")
	cmd.MarkFlagsMutuallyExclusive("listen", "once")
	return cmd
}

func (c *cli) serveOrPrint(cmd *cobra.Command, f *metricsFlags) error {
	if _, _, err := net.SplitHostPort(f.listen); err != nil {
		return fmt.Errorf("--listen %q: it must be a host and a port, such as %s", f.listen, defaultMetricsListen)
	}
	return c.with(cmd, func(ctx context.Context, s *session) error {
		if f.once {
			return s.WriteMetrics(ctx, c.out)
		}
		return c.serveMetrics(ctx, s, f.listen)
	})
}

// serveMetrics serves until a signal comes.
func (c *cli) serveMetrics(ctx context.Context, s *session, address string) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintf(c.err, "delta metrics: http://%s/metrics\n", listener.Addr())
	return serveUntil(ctx, listener, &http.Server{Handler: metricsRoutes(s), ReadHeaderTimeout: metricsGrace, WriteTimeout: time.Minute}, metricsGrace)
}

func metricsRoutes(s *session) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", delta.Metrics(s.Client))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), connectPatience)
		defer cancel()
		if err := s.pool.Ping(ctx); err != nil {
			http.Error(w, "the database does not answer", http.StatusServiceUnavailable)
			return
		}
		_, _ = fmt.Fprintln(w, "ok")
	})
	return mux
}
