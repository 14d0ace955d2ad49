package main

import (
	"context"
	"errors"
	"fmt"
)

// telemetryFigures compares the same work with and without telemetry, in two processes of one program.
func telemetryFigures(ctx context.Context, b *bench) ([]figure, error) {
	informs, err := b.telemetryFigure(ctx, "inform", 12, b.scaleCount(2_000), figure{
		Name: telemetryInformName, AtLeast: 0.98, What: fmt.Sprintf("Client.Inform of new objects from %d goroutines", informers),
	})
	if err != nil {
		return nil, err
	}
	count := b.scaleCount(50_000)
	batches, err := b.telemetryFigure(ctx, "batches", 4, count, figure{
		Name: telemetryBatchesName, AtLeast: 0.97,
		What: fmt.Sprintf("Client.InformMany of %d objects in pages, batches of %d, until the last row is synced (Work does nothing)", count, batchSize),
	})
	return []figure{informs, batches}, err
}

func (b *bench) telemetryFigure(ctx context.Context, measured string, turns, count int, f figure) (_ figure, err error) {
	options, err := b.stack.ClientOptions()
	if err != nil {
		return f, err
	}
	start := func(name, with string) (*peer, error) {
		return b.startProgram(ctx, overheadFolder, name, "-case", measured, "-telemetry="+with, "-prefix", name,
			"-temporal-address", options.HostPort, "-temporal-namespace", options.Namespace)
	}
	with, err := start("bench_with_"+measured, "true")
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, with.stop()) }()
	without, err := start("bench_without_"+measured, "false")
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, without.stop()) }()
	f.Unit = "/s"
	f.What += ", " + with.hello.Settings + ", against the same " + without.hello.Settings
	counted := countedBy(count)
	return compareRates(ctx, b.rounds, turns, f, with.newSide(counted), without.newSide(counted))
}
