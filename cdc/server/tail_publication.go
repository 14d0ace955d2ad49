package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/chariot-giving/delta/cdc"
)

// updateTailPublication creates the publication of tails, or sets its tables to those that exist now, and returns the tables. It does not
// change a publication that was created by another program.
func (s *Server) updateTailPublication(ctx context.Context) (names []string, err error) {
	s.tailMu.Lock()
	defer s.tailMu.Unlock()
	name := s.config.Publication
	var exists bool
	err = s.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_publication WHERE pubname = $1),
		ARRAY(SELECT schemaname || '.' || tablename FROM pg_publication_tables WHERE pubname = $1 ORDER BY 1)`, name).Scan(&exists, &names)
	if err != nil {
		return nil, err
	}
	mine, err := s.findOwned(ctx, name)
	if err != nil {
		return nil, err
	}
	o, own := mine[name]
	switch {
	case exists && !own:
		return names, nil
	case own && !slices.Equal(o.Tail, sortPatterns(s.config.Tables)):
		return nil, otherTailError(name, o)
	}
	all, can, err := s.findAllowedTables(ctx, s.config.Tables)
	if err != nil {
		return nil, err
	}
	var tables []cdc.PublishedTable
	var wanted, quoted []string
	for _, t := range all {
		// Updates of tables without a replica identity would fail, and only owners may publish a table.
		if k := can.usesOf(t); k.canStream && k.isOwned {
			tables, wanted = append(tables, t), append(wanted, t.Schema+"."+t.Table)
			quoted = append(quoted, pgx.Identifier{t.Schema, t.Table}.Sanitize())
		}
	}
	switch {
	case len(tables) == 0:
		return nil, newProblem(http.StatusUnprocessableEntity, "no_primary_key",
			"none of the tables that may be read has a primary key and is owned by the role of this server, which only its owner can publish")
	case !exists:
		_, err = s.createPublication(ctx, name, tables, sortPatterns(s.config.Tables), nil)
		if errors.Is(err, cdc.ErrExists) { // another server has created it
			if mine, err = s.findOwned(ctx, name); err == nil && !slices.Equal(mine[name].Tail, sortPatterns(s.config.Tables)) {
				err = otherTailError(name, mine[name])
			}
		}
	case !slices.Equal(o.Tables, wanted):
		_, err = s.pool.Exec(ctx, `ALTER PUBLICATION `+pgx.Identifier{name}.Sanitize()+` SET TABLE `+strings.Join(quoted, ", "))
	}
	return wanted, err
}

// otherTailError refuses a publication that must not be changed, because its readers would miss changes without a message.
func otherTailError(name string, o ownedPublication) error {
	whose := "that of a slot"
	if o.Tail != nil {
		whose = "kept by a server that serves other tables (" + strings.Join(o.Tail, ", ") + ")"
	}
	return newProblem(http.StatusConflict, "other_tables", fmt.Sprintf(
		"the publication %q, for tails, is %s: start this server with another --publication, or drop that one if its server is gone", name, whose))
}
