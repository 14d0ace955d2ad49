package sinks

import (
	"log/slog"
	"sync"
	"time"
)

// Stats is what a Relay has done since it was made, and how it stands.
type Stats struct {
	// Running reports whether [Relay.Run] runs.
	Running bool
	// Delivered, Filtered and SetAside count messages that were finished that way.
	Delivered, Filtered, SetAside int64
	// Failed counts attempts to deliver a message that failed.
	Failed int64
	// SourceErrors counts failed reads and confirmations of the source.
	SourceErrors int64
	// Unconfirmed is how many messages were read and are not finished, or wait for one that is not.
	Unconfirmed int
	// Waiting is how many keys, or messages without a key, wait for their next attempt.
	Waiting int
	// Full reports whether [Config.Window] or [Config.WindowBytes] keeps the relay from reading further.
	Full bool
	// Oldest is the time of the oldest message that is not finished: the lag of what has been read. It is zero if there is none.
	Oldest time.Time
	// LastError is the last error of the sink or the source, nil if there was none.
	LastError error
}

// Stats returns what the relay has done so far.
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

// publishStats copies how the queue stands into the stats.
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
		l.log.logFailure("the window is full of messages that wait for one that is not delivered; nothing is read until it is", l.queue.delayed[0].err)
	}
}

// logInterval is how often the same kind of failure is logged.
const logInterval = 10 * time.Second

// failureLog logs failures of one kind at most once each logInterval, with how many there were since the last line.
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
