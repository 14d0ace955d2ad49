package server

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/chariot-giving/delta/cdc"
)

// watchPublication checks regularly that the slot's publication is still the one that it was created with, and reads its tables. When a
// table is removed from a publication, its changes stop without a message in the log's stream.
func (s *session) watchPublication(ctx context.Context, end context.CancelCauseFunc) {
	ticker := time.NewTicker(s.server.config.HeartbeatInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		o, err := s.server.findOwnSlot(ctx, s.slot)
		switch {
		case errors.Is(err, errUnpublished), err == nil && o.Incarnation != s.owned.Incarnation:
			end(errUnpublished)
			return
		case err != nil: // an error of the database; the stream gets it, too
		default:
			s.mu.Lock()
			s.published = o.Tables
			s.mu.Unlock()
			if s.consumer != "" {
				s.server.findSharedSlot(s.slot).setConsumers(o.Consumers)
			}
		}
	}
}

// sendTableChanges announces the tables that were added to the publication, or removed from it, since the last announcement.
func (s *session) sendTableChanges() error {
	s.mu.Lock()
	now, at := s.published, max(s.passed, s.last)
	s.mu.Unlock()
	before := s.knownTables
	if before == nil {
		before = s.owned.Tables
	}
	if s.isTail || now == nil || slices.Equal(now, before) {
		return nil
	}
	e := newEncoder(nil)
	e.writeText(`{"type":"schema","lsn":`)
	e.writeLSN(at)
	e.writeNames(`,"published":[`, missingFrom(now, before))
	e.writeNames(`,"unpublished":[`, missingFrom(before, now))
	e.writeText(`}`)
	s.knownTables = now
	return s.sendMessage("schema", e.toFrame(), "")
}

// missingFrom returns the names that are in all and not in others.
func missingFrom(all, others []string) (names []string) {
	for _, name := range all {
		if !slices.Contains(others, name) {
			names = append(names, name)
		}
	}
	return names
}

// sendSchema announces how a table has changed, before its first change with the new schema.
func (s *session) sendSchema(t *cdc.Transaction, c *cdc.Change) error {
	e := newEncoder(nil)
	e.writeSchema(t, c)
	return s.sendMessage("schema", e.toFrame(), "")
}

// writeNames writes a list, and nothing if it is empty.
func (e *encoder) writeNames(open string, names []string) {
	if len(names) == 0 {
		return
	}
	for i, name := range names {
		e.writeText(map[bool]string{true: open, false: `,`}[i == 0])
		e.writeString(name)
	}
	e.writeText(`]`)
}

func (e *encoder) writeSchema(t *cdc.Transaction, c *cdc.Change) {
	e.writeText(`{"type":"schema","lsn":`)
	e.writeLSN(t.EndLSN)
	e.writeTableName(c.Relation)
	e.writeText(`,"change":`)
	e.writeString(c.Schema.String())
	e.writeNames(`,"added":[`, c.Schema.Added)
	e.writeNames(`,"dropped":[`, c.Schema.Dropped)
	e.writeNames(`,"retyped":[`, c.Schema.Retyped)
	if c.Schema.Recreated {
		e.writeText(`,"recreated":true`)
	}
	if c.Schema.Renamed {
		e.writeText(`,"renamed_from":{`)
		e.writeText(`"schema":`)
		e.writeString(c.Schema.Previous.Schema)
		e.writeText(`,"table":`)
		e.writeString(c.Schema.Previous.Table)
		e.writeText(`}`)
	}
	e.writeText(`,"columns":`)
	e.writeColumns(c.Relation)
	e.writeText(`}`)
}

// wantsSchema reports whether the client wants a table under its new or old name, so that the renaming of a wanted table is announced.
func (e *encoder) wantsSchema(c *cdc.Change) bool {
	return e.filter.wantsTable(c.Relation.Name()) || e.filter.wantsTable(c.Schema.Previous.Name())
}
