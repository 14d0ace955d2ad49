package sinks

import (
	"log/slog"
	"sync"
	"time"
)

// Stats are the counts of a Relay since it was created, and its current state.
type Stats struct {
	// Running reports whether [Relay.Run] runs.
	Running bool
	// Delivered, Filtered and SetAside count finished messages, by outcome.
	Delivered, Filtered, SetAside int64
	// Failed counts failed attempts to deliver a message.
	Failed int64
	// SourceErrors counts failed reads and confirmations of the source.
	SourceErrors int64
	// Unconfirmed is how many messages were read and are not finished, or wait for one before them.
	Unconfirmed int
	// Waiting is how many keys, or messages without a key, wait for their next attempt.
	Waiting int
	// Full reports whether [Config.Window] or [Config.WindowBytes] stops the relay from reading.
	Full bool
	// Oldest is the time of the oldest unfinished message, from which the lag can be computed. It is zero if there is none.
	Oldest time.Time
	// LastError is the last error of the sink or the source, nil if there was none.
	LastError error
}

// Stats returns the current stats. It may be called at any time.
func (r *Relay) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stats
}

func (r *Relay) addStats(add func(*Stats)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	add(&r.stats)
}

// publishStats copies the state of the queue into the stats.
func (l *loop) publishStats() {
	var oldest time.Time
	if len(l.queue.entries) > 0 {
		oldest = l.queue.entries[0].message.Time
	}
	full := len(l.queue.entries) >= l.config.Window || l.queue.bytes >= l.config.WindowBytes
	becameFull := false
	l.addStats(func(s *Stats) {
		becameFull = full && !s.Full && len(l.queue.delayed) > 0
		s.Unconfirmed, s.Waiting, s.Full, s.Oldest = len(l.queue.entries), len(l.queue.delayed), full, oldest
	})
	if becameFull {
		l.log.logFailure("the window is full of messages behind one that is not delivered; nothing is read until it is", l.queue.delayed[0].err)
	}
}

// logInterval is how often the same kind of failure is logged.
const logInterval = 10 * time.Second

// failureLog logs failures of one kind at most once each logInterval, with their number since the last line.
type failureLog struct {
	logger *slog.Logger

	mu    sync.Mutex
	lines map[string]*failureLine
}

type failureLine struct {
	logged time.Time
	count  int
}

func (f *failureLog) logFailure(what string, err error) {
	f.mu.Lock()
	line := f.lines[what]
	if line == nil {
		line = &failureLine{}
		if f.lines == nil {
			f.lines = map[string]*failureLine{}
		}
		f.lines[what] = line
	}
	line.count++
	count, now := line.count, time.Now()
	due := now.Sub(line.logged) >= logInterval
	if due {
		line.logged, line.count = now, 0
	}
	f.mu.Unlock()
	if due {
		f.logger.Warn(what, "count", count, "error", err)
	}
}
