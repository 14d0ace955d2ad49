package delta_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/interceptor"

	"github.com/chariot-giving/delta/delta"
)

// The examples of this file are compiled, but not run: they wait for a signal, or need what only a program has.
var (
	ctx    = context.Background()
	pool   *pgxpool.Pool
	config = &delta.Config{}

	metrics client.MetricsHandler
	tracing interceptor.ClientInterceptor
)

func ExampleClient_Stop() {
	deltaClient, err := delta.NewClient(pool, config)
	if err != nil {
		panic(err)
	}
	// Not the context of the signal: when that of Start ends, Work is cut off.
	if err := deltaClient.Start(context.Background()); err != nil {
		panic(err)
	}

	told, done := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer done()
	<-told.Done()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := deltaClient.Stop(ctx); err != nil {
		slog.Warn("Work was cut off, and is tried again by others", "error", err)
	}
}

func ExampleConfig_temporalOptions() {
	config := &delta.Config{
		Controllers: delta.NewControllers(),
		TemporalOptions: func(o *client.Options) {
			o.MetricsHandler = metrics
			o.Interceptors = append(o.Interceptors, tracing)
		},
	}
	_ = config
}

func ExampleConfig_workerVersion() {
	config := &delta.Config{
		Controllers: delta.NewControllers(),
		// Both are empty where the environment sets neither: then any worker gets tasks.
		WorkerVersion: delta.WorkerVersion{
			Deployment: os.Getenv("TEMPORAL_DEPLOYMENT_NAME"),
			BuildID:    os.Getenv("TEMPORAL_WORKER_BUILD_ID"),
		},
	}
	_ = config
}

func ExampleTemporalLogger() {
	temporal, err := client.Dial(client.Options{Logger: delta.TemporalLogger(slog.Default())})
	if err != nil {
		panic(err)
	}
	defer temporal.Close()
	config := &delta.Config{Temporal: temporal}
	_ = config
}

func ExampleProbes() {
	deltaClient, err := delta.NewClient(pool, config)
	if err != nil {
		panic(err)
	}
	probes := &http.Server{Addr: ":8081", Handler: delta.Probes(deltaClient), ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = probes.ListenAndServe() }() // before Start: a program that waits for Temporal is alive
	defer probes.Close()
	if err := deltaClient.Start(context.Background()); err != nil {
		panic(err)
	}
	<-deltaClient.Done()
	slog.Info("Delta has stopped", "error", deltaClient.Err())
}

func ExampleMetrics() {
	deltaClient, err := delta.NewClient(pool, config) // it need not be started
	if err != nil {
		panic(err)
	}
	http.Handle("GET /metrics", delta.Metrics(deltaClient))
}

func ExampleClient_Figures() {
	deltaClient, _ := delta.NewClient(pool, config)
	figures, err := deltaClient.Figures(ctx, "user", time.Now().Add(-3*time.Hour))
	if err != nil {
		panic(err)
	}
	for _, f := range figures { // a minute each; those without attempts are left out
		fmt.Println(f.Minute, f.Attempts[delta.OutcomeSynced], f.Attempts[delta.OutcomeFailed], f.P50, f.P95)
	}
}
