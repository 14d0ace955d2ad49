package main

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/backoff"
	"github.com/chariot-giving/delta/messagedb"
	"github.com/chariot-giving/delta/sinks"
)

// minPause and maxPause limit the delay before a source is opened again.
const (
	minPause = 500 * time.Millisecond
	maxPause = 30 * time.Second
)

// supervisor runs relays. A relay that fails does not delay the others.
type supervisor struct {
	relays []*relay
	logger *slog.Logger

	mu      sync.Mutex
	running map[string]*sinks.Relay // by name; nil while the source of a relay is not open
	ended   []string                // relays that ended and are not started again
}

func newSupervisor(relays []*relay, logger *slog.Logger) *supervisor {
	s := &supervisor{relays: relays, logger: logger, running: map[string]*sinks.Relay{}}
	for _, r := range relays {
		s.running[r.name] = nil
	}
	return s
}

// run runs all relays until the context ends or all have ended, and returns the names of those that ended before.
func (s *supervisor) run(ctx context.Context) (ended []string) {
	var all sync.WaitGroup
	for _, r := range s.relays {
		all.Go(func() {
			logger := s.logger.With("relay", r.name)
			if err := s.keepRunning(ctx, r, logger); err != nil {
				logger.Error("the relay has ended, and is not started again", "error", err)
				s.mu.Lock()
				defer s.mu.Unlock()
				s.ended = append(s.ended, r.name)
			}
		})
	}
	all.Wait()
	s.logger.Info("stopped")
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(slices.Values(s.ended))
}

// keepRunning runs a relay, and opens its source again after each error that can go away without a change of the file: a server that is
// away, a slot that another process still reads, or one that must be created again.
func (s *supervisor) keepRunning(ctx context.Context, r *relay, logger *slog.Logger) error {
	sink, release, err := r.connect(logger)
	if err != nil {
		return err
	}
	defer release()
	pause := backoff.New(minPause, maxPause)
	for {
		delivered, err := s.runOnce(ctx, r, sink, logger)
		switch {
		case ctx.Err() != nil:
			if err != nil && !errors.Is(err, context.Canceled) {
				logger.Warn("the relay has stopped; the last delivered messages come again", "error", err)
			}
			return nil
		case isFinal(err):
			return err
		}
		if delivered {
			pause.Reset()
		}
		logger.Error("the source of the relay has failed; it is opened again", "error", err)
		if backoff.Pause(ctx, pause.Delay()) != nil {
			return nil
		}
	}
}

// isFinal reports whether another attempt would fail in the same way: the policy is to stop, or the file is wrong in a way that only the
// system behind it could detect.
func isFinal(err error) bool {
	return errors.As(err, new(*sinks.DeliveryError)) || errors.As(err, new(*sinks.InvalidError)) || errors.As(err, new(*cdc.InvalidError)) ||
		errors.As(err, new(*delta.InputError)) || errors.As(err, new(*delta.ChangePositionError)) ||
		errors.As(err, new(*messagedb.RewoundError))
}

// runOnce runs a relay until its source fails. It reports whether a message was delivered.
func (s *supervisor) runOnce(ctx context.Context, r *relay, sink sinks.Sink, logger *slog.Logger) (delivered bool, err error) {
	source, release, err := r.open(ctx, logger)
	if err != nil {
		return false, err
	}
	defer release()
	config := r.config
	config.Source, config.Sink, config.Logger = source, sink, logger
	made, err := sinks.NewRelay(config)
	if err != nil {
		return false, err
	}
	s.setRunning(r.name, made)
	defer s.setRunning(r.name, nil)
	logger.Info("the relay runs", "source", r.sourceType, "sink", r.sinkType)
	err = made.Run(ctx)
	return made.Stats().Delivered > 0, err
}

func (s *supervisor) setRunning(name string, made *sinks.Relay) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running[name] = made
}
