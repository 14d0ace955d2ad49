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

// publishTail sees that the publication of the tails is there, and has the tables that there are today, which it returns. One
// that was made by somebody else is left as it is.
func (s *Server) publishTail(ctx context.Context) (names []string, err error) {
	s.tailing.Lock()
	defer s.tailing.Unlock()
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
	case own && !slices.Equal(o.Tail, sorted(s.config.Tables)):
		return nil, otherTail(name, o)
	}
	all, can, err := s.tablesOf(ctx, s.config.Tables)
	if err != nil {
		return nil, err
	}
	var tables []cdc.PublishedTable
	var wanted, quoted []string
	for _, t := range all {
		// Others could not be updated any more, and only owners may publish.
		if k := can.of(t); k.streams && k.owned {
			tables, wanted = append(tables, t), append(wanted, t.Schema+"."+t.Table)
			quoted = append(quoted, pgx.Identifier{t.Schema, t.Table}.Sanitize())
		}
	}
	switch {
	case len(tables) == 0:
		return nil, refusal(http.StatusUnprocessableEntity, "no_primary_key",
			"none of the tables that may be read has a primary key and is owned by the role of this server, which only its owner can publish")
	case !exists:
		_, err = s.publish(ctx, name, tables, sorted(s.config.Tables), nil)
		if errors.Is(err, cdc.ErrExists) { // another server was faster
			if mine, err = s.findOwned(ctx, name); err == nil && !slices.Equal(mine[name].Tail, sorted(s.config.Tables)) {
				err = otherTail(name, mine[name])
			}
		}
	case !slices.Equal(o.Tables, wanted):
		_, err = s.pool.Exec(ctx, `ALTER PUBLICATION `+pgx.Identifier{name}.Sanitize()+` SET TABLE `+strings.Join(quoted, ", "))
	}
	return wanted, err
}

// otherTail is a publication that must not be changed: its readers would miss what they are to have, and not be told.
func otherTail(name string, o owned) error {
	whose := "that of a slot"
	if o.Tail != nil {
		whose = "kept by a server that serves other tables (" + strings.Join(o.Tail, ", ") + ")"
	}
	return refusal(http.StatusConflict, "other_tables", fmt.Sprintf(
		"the publication %q, for tails, is %s: start this server with another --publication, or drop that one if its server is no more", name, whose))
}
