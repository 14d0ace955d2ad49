package activities

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chariot-giving/delta/db"
)

// SnoozeScope says how much a snooze of Work puts off.
type SnoozeScope int

const (
	// SnoozesResource puts off the resource alone.
	SnoozesResource SnoozeScope = iota
	// SnoozesKind keeps all Work of its kind from beginning.
	SnoozesKind
	// SnoozesNamespace keeps all Work in its namespace from beginning, across kinds.
	SnoozesNamespace
)

const (
	// snoozeFresh is how old knowledge of snoozes may be when a call of Work begins.
	snoozeFresh = 100 * time.Millisecond
	// What waited for the end of a snooze comes back spread over a tenth of its time, within these bounds. The latter is in the schema, too.
	snoozeSpread    = 10
	minSnoozeSpread = time.Second
	maxSnoozeSpread = time.Minute
)

// Snoozes are the kinds and namespaces in which no Work is to begin for a while, as one client knows them. Postgres has them, for all clients:
// leases and claims look at them there. What was claimed before, as members of batches are that wait for their turn, looks here. Create it
// with [NewSnoozes]; nil knows of none.
type Snoozes struct {
	pool *pgxpool.Pool
	log  *slog.Logger

	mu sync.Mutex
	// readAt is when the statement began that read them last.
	readAt            time.Time
	kinds, namespaces map[string]snooze
}

// snooze is known since a time.
type snooze struct{ until, knownAt time.Time }

// NewSnoozes returns what is known before the first look.
func NewSnoozes(pool *pgxpool.Pool, log *slog.Logger) *Snoozes {
	return &Snoozes{pool: pool, log: log, kinds: map[string]snooze{}, namespaces: map[string]snooze{}}
}

// isSnoozed reports whether Work may not begin for a row of a kind and a namespace that was claimed at a time. The claim itself has looked, so what was
// known before means nothing, and Postgres is asked again only if that was a while ago, and no more often for all calls together.
func (s *Snoozes) isSnoozed(ctx context.Context, kind, namespace string, claimedAt time.Time) bool {
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); now.Sub(claimedAt) > snoozeFresh && now.Sub(s.readAt) > snoozeFresh {
		s.readSnoozes(ctx)
	}
	return s.kinds[kind].isInForce(claimedAt) || s.namespaces[namespace].isInForce(claimedAt)
}

func (s snooze) isInForce(claimedAt time.Time) bool {
	return s.knownAt.After(claimedAt) && time.Until(s.until) > 0
}

// readSnoozes asks Postgres. If it does not answer, what is known holds: claims that cannot be renewed end by themselves. The lock is held.
func (s *Snoozes) readSnoozes(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	began := time.Now()
	rows, err := db.New().ListSnoozes(ctx, s.pool)
	s.readAt = time.Now()
	if err != nil {
		if ctx.Err() == nil {
			s.log.Warn("reading which kinds and namespaces are snoozed failed; Work begins by what was known before", "error", err)
		}
		return
	}
	s.readAt = began
	clear(s.kinds)
	clear(s.namespaces)
	for _, row := range rows {
		if row.IsKind {
			s.kinds[row.Name] = snooze{began.Add(row.Lasts), began}
		} else {
			s.namespaces[row.Name] = snooze{began.Add(row.Lasts), began}
		}
	}
}

// noteSnooze notes a snooze that this client writes.
func (s *Snoozes) noteSnooze(scope SnoozeScope, name string, until time.Time) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	names := s.kinds
	if scope == SnoozesNamespace {
		names = s.namespaces
	}
	if before := names[name]; before.until.After(until) {
		until = before.until
	}
	names[name] = snooze{until, time.Now()}
}

// writeSnoozes keeps other Work of the kind or the namespace from beginning, where outcomes say so: at once, and before they are written, which may have
// to wait. It is no state of a row, and needs no claim: the upstream has said so, also if another execution has the resource by now.
func (e *execution) writeSnoozes(set []*claimed, outcomes []Outcome) {
	if e.rehearsal != nil {
		return // the outcomes say so, and there is nothing else to snooze
	}
	var longest [SnoozesNamespace + 1]time.Duration
	for i := range outcomes {
		if one := &outcomes[i]; one.Verdict == VerdictSnoozed {
			longest[one.SnoozeScope] = max(longest[one.SnoozeScope], one.SnoozeFor)
		}
	}
	if d := longest[SnoozesKind]; d > 0 {
		e.writeSnooze(set, SnoozesKind, set[0].worked.Kind, d)
	}
	if d := longest[SnoozesNamespace]; d > 0 {
		e.writeSnooze(set, SnoozesNamespace, set[0].worked.Namespace, d)
	}
}

// writeSnooze writes a snooze for all clients. One that cannot be written holds on this client.
func (e *execution) writeSnooze(set []*claimed, scope SnoozeScope, name string, d time.Duration) {
	spread := min(max(d/snoozeSpread, minSnoozeSpread), maxSnoozeSpread)
	until := time.Now().Add(d)
	e.Snoozes.noteSnooze(scope, name, until)
	err := e.persistWrite(set, func(ctx context.Context) error {
		if scope == SnoozesKind {
			return db.New().SnoozeKind(ctx, e.Pool, db.SnoozeKindParams{Kind: name, For: d, Spread: spread})
		}
		return db.New().SnoozeNamespace(ctx, e.Pool, db.SnoozeNamespaceParams{Namespace: name, For: d, Spread: spread})
	})
	if err != nil {
		e.Logger.Error("a snooze could not be written; other clients go on", append(e.logFields(set[0].worked), "name", name, "for", d, "error", err)...)
	}
	e.Snoozes.noteSnooze(scope, name, until) // also for what was claimed while it was written
}
