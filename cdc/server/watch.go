package server

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/chariot-giving/delta/cdc"
)

// watch looks now and then whether the slot's publication is still the one that it was made with, and has the same tables: what is no
// longer published is not in the log's stream, and nothing in it says so.
func (s *session) watch(ctx context.Context, end context.CancelCauseFunc) {
	ticker := time.NewTicker(s.server.config.HeartbeatInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		o, err := s.server.mine(ctx, s.slot)
		switch {
		case errors.Is(err, errUnpublished), err == nil && o.Incarnation != s.owned.Incarnation:
			end(errUnpublished)
			return
		case err != nil: // of the database: the stream itself meets it
		default:
			s.mu.Lock()
			s.published = o.Tables
			s.mu.Unlock()
			if s.consumer != "" {
				s.server.shareOf(s.slot).follow(o.Consumers)
			}
		}
	}
}

// tellTables says which tables have come into the publication, or left it, since it was told last.
func (s *session) tellTables() error {
	s.mu.Lock()
	now, at := s.published, max(s.passed, s.last)
	s.mu.Unlock()
	before := s.told
	if before == nil {
		before = s.owned.Tables
	}
	if s.auto || now == nil || slices.Equal(now, before) {
		return nil
	}
	e := newEncoder(nil)
	e.text(`{"type":"schema","lsn":`)
	e.lsn(at)
	e.names(`,"published":[`, missing(now, before))
	e.names(`,"unpublished":[`, missing(before, now))
	e.text(`}`)
	s.told = now
	return s.send("schema", e.frame(), "")
}

// missing are those of all that the others do not have.
func missing(all, others []string) (names []string) {
	for _, name := range all {
		if !slices.Contains(others, name) {
			names = append(names, name)
		}
	}
	return names
}

// tellSchema says how a table has changed, before its first change under the new shape.
func (s *session) tellSchema(t *cdc.Transaction, c *cdc.Change) error {
	e := newEncoder(nil)
	e.schema(t, c)
	return s.send("schema", e.frame(), "")
}

// names writes a list, and nothing where it is empty.
func (e *encoder) names(open string, names []string) {
	if len(names) == 0 {
		return
	}
	for i, name := range names {
		e.text(map[bool]string{true: open, false: `,`}[i == 0])
		e.string(name)
	}
	e.text(`]`)
}

func (e *encoder) schema(t *cdc.Transaction, c *cdc.Change) {
	e.text(`{"type":"schema","lsn":`)
	e.lsn(t.EndLSN)
	e.name(c.Relation)
	e.text(`,"change":`)
	e.string(c.Schema.String())
	e.names(`,"added":[`, c.Schema.Added)
	e.names(`,"dropped":[`, c.Schema.Dropped)
	e.names(`,"retyped":[`, c.Schema.Retyped)
	if c.Schema.Recreated {
		e.text(`,"recreated":true`)
	}
	if c.Schema.Renamed {
		e.text(`,"renamed_from":{`)
		e.text(`"schema":`)
		e.string(c.Schema.Previous.Schema)
		e.text(`,"table":`)
		e.string(c.Schema.Previous.Table)
		e.text(`}`)
	}
	e.text(`,"columns":`)
	e.columns(c.Relation)
	e.text(`}`)
}

// wantsSchema reports whether the client wants a table under its name of now or of before: one that is renamed away from what the client
// wants is told too.
func (e *encoder) wantsSchema(c *cdc.Change) bool {
	return e.filter.wants(c.Relation.Name()) || e.filter.wants(c.Schema.Previous.Name())
}
