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

// updateTailPublication sees that the publication of the tails is there, and has the tables that there are today, which it returns. One
// that was made by somebody else is left as it is.
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
		// Others could not be updated any more, and only owners may publish.
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
		if errors.Is(err, cdc.ErrExists) { // another server was faster
			if mine, err = s.findOwned(ctx, name); err == nil && !slices.Equal(mine[name].Tail, sortPatterns(s.config.Tables)) {
				err = otherTailError(name, mine[name])
			}
		}
	case !slices.Equal(o.Tables, wanted):
		_, err = s.pool.Exec(ctx, `ALTER PUBLICATION `+pgx.Identifier{name}.Sanitize()+` SET TABLE `+strings.Join(quoted, ", "))
	}
	return wanted, err
}

// otherTailError is a publication that must not be changed: its readers would miss what they are to have, and not be told.
func otherTailError(name string, o ownedPublication) error {
	whose := "that of a slot"
	if o.Tail != nil {
		whose = "kept by a server that serves other tables (" + strings.Join(o.Tail, ", ") + ")"
	}
	return newProblem(http.StatusConflict, "other_tables", fmt.Sprintf(
		"the publication %q, for tails, is %s: start this server with another --publication, or drop that one if its server is no more", name, whose))
}
