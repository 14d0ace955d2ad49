package activities

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

const (
	// snoozeFresh is the longest age of what is known of snoozes when a call of Work begins.
	snoozeFresh = 100 * time.Millisecond
	// Resources that waited for the end of a snooze come back spread over a tenth of its time, within these bounds. The
	// schema has maxSnoozeSpread too.
	snoozeSpread    = 10
	minSnoozeSpread = time.Second
	maxSnoozeSpread = time.Minute
)

// Snoozes are the kinds and namespaces in which no Work may begin for a while, as one client knows them. Postgres has
// them for all clients, and leases and claims check them there. Rows that were claimed before, such as members of a
// batch that wait for a slot, check them here. Create it with [NewSnoozes]; nil knows of none.
type Snoozes struct {
	pool *pgxpool.Pool
	log  *slog.Logger

	mu sync.Mutex
	// readAt is when the latest statement began that read them.
	readAt            time.Time
	kinds, namespaces map[string]snooze
}

// snooze is a snooze, and when it became known.
type snooze struct{ until, knownAt time.Time }

// NewSnoozes returns Snoozes that know of none.
func NewSnoozes(pool *pgxpool.Pool, log *slog.Logger) *Snoozes {
	return &Snoozes{pool: pool, log: log, kinds: map[string]snooze{}, namespaces: map[string]snooze{}}
}

// isSnoozed reports whether Work may not begin for a row that was claimed at a time. The claim checked the snoozes
// itself, so only later ones count. Postgres is asked again if that was a while ago, and no more often for all calls
// together.
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

// readSnoozes asks Postgres. If it does not answer, the known snoozes stay, because claims that cannot be renewed end
// by themselves. The caller has the lock.
func (s *Snoozes) readSnoozes(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	began := time.Now()
	rows, err := db.New().ListSnoozes(ctx, s.pool)
	s.readAt = time.Now()
	if err != nil {
		if ctx.Err() == nil {
			s.log.Warn("reading which kinds and namespaces are snoozed failed; those that were known before count", "error", err)
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

// noteSnooze adds a snooze that this client writes.
func (s *Snoozes) noteSnooze(scope deltatype.SnoozeScope, name string, until time.Time) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	names := s.kinds
	if scope == deltatype.SnoozesNamespace {
		names = s.namespaces
	}
	if before := names[name]; before.until.After(until) {
		until = before.until
	}
	names[name] = snooze{until, time.Now()}
}

// writeSnoozes snoozes the kind or the namespace where outcomes ask for it: at once, before the outcomes are written,
// which may have to wait. A snooze is not the state of a row and needs no claim: the upstream asked for it, even if
// another execution has the resource by now.
func (e *execution) writeSnoozes(set []*claimed, outcomes []Outcome) {
	if e.rehearsal != nil {
		return // the caller sees the outcomes, and there is nothing else to snooze
	}
	var longest [deltatype.SnoozesNamespace + 1]time.Duration
	for i := range outcomes {
		if one := &outcomes[i]; one.Verdict == VerdictSnoozed {
			longest[one.SnoozeScope] = max(longest[one.SnoozeScope], one.SnoozeFor)
		}
	}
	if d := longest[deltatype.SnoozesKind]; d > 0 {
		e.writeSnooze(set, deltatype.SnoozesKind, set[0].worked.Kind, d)
	}
	if d := longest[deltatype.SnoozesNamespace]; d > 0 {
		e.writeSnooze(set, deltatype.SnoozesNamespace, set[0].worked.Namespace, d)
	}
}

// writeSnooze writes a snooze for all clients. If it cannot be written, it holds on this client only.
func (e *execution) writeSnooze(set []*claimed, scope deltatype.SnoozeScope, name string, d time.Duration) {
	spread := min(max(d/snoozeSpread, minSnoozeSpread), maxSnoozeSpread)
	until := time.Now().Add(d)
	e.Snoozes.noteSnooze(scope, name, until)
	err := e.persistWrite(set, func(ctx context.Context) error {
		if scope == deltatype.SnoozesKind {
			return db.New().SnoozeKind(ctx, e.Pool, db.SnoozeKindParams{Kind: name, For: d, Spread: spread})
		}
		return db.New().SnoozeNamespace(ctx, e.Pool, db.SnoozeNamespaceParams{Namespace: name, For: d, Spread: spread})
	})
	if err != nil {
		e.Logger.Error("a snooze could not be written; other clients go on", append(e.logFields(set[0].worked), "name", name, "for", d, "error", err)...)
	}
	e.Snoozes.noteSnooze(scope, name, until) // again, for rows that were claimed while it was written
}
