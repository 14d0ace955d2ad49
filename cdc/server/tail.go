package server

import (
	"context"
	"errors"
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
	if exists && !own {
		return names, nil
	}
	all, can, err := s.tablesOf(ctx, s.config.Tables)
	if err != nil {
		return nil, err
	}
	var tables []cdc.PublishedTable
	var wanted, quoted []string
	for _, t := range all {
		// Others could not be updated any more, and only owners may publish.
		if full := t.Schema + "." + t.Table; can[full].streams && can[full].owned {
			tables, wanted = append(tables, t), append(wanted, full)
			quoted = append(quoted, pgx.Identifier{t.Schema, t.Table}.Sanitize())
		}
	}
	switch {
	case len(tables) == 0:
		return nil, refusal(http.StatusUnprocessableEntity, "no_primary_key",
			"none of the tables that may be read has a primary key and is owned by the role of this server, which only its owner can publish")
	case !exists:
		_, err = s.publish(ctx, name, tables)
		if errors.Is(err, cdc.ErrExists) {
			err = nil // another server was faster
		}
	case !slices.Equal(o.Tables, wanted):
		_, err = s.pool.Exec(ctx, `ALTER PUBLICATION `+pgx.Identifier{name}.Sanitize()+` SET TABLE `+strings.Join(quoted, ", "))
	}
	return wanted, err
}
