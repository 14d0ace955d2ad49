package server

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/cdc/server/internal/identity"
)

const maker = "delta stream /v2"

// ownedPublication is the publication of a slot, or of tails, that a server of this kind has created. Its comment says so. A slot without
// such a publication belongs to another program, and is never touched.
type ownedPublication struct {
	MadeBy string `json:"madeBy"`
	// Incarnation distinguishes a slot from earlier ones of its name.
	Incarnation string `json:"incarnation"`
	// Tail are the patterns of tables for a publication of tails, nil for that of a slot.
	Tail []string `json:"tail,omitempty"`
	// Consumers share the slot, each at its own position. If there are none, one client reads it.
	Consumers []string `json:"consumers,omitempty"`
	Tables    []string `json:"-"`
}

// resumeToken returns the token to resume after a position.
func (o ownedPublication) resumeToken(lsn cdc.LSN) string { return lsn.String() + "@" + o.Incarnation }

// parseToken parses a token of resumeToken.
func parseToken(text string) (lsn cdc.LSN, incarnation string, err error) {
	at, incarnation, found := strings.Cut(text, "@")
	if lsn, err = cdc.ParseLSN(at); err != nil || !found || lsn == 0 {
		return 0, "", newProblem(http.StatusBadRequest, "bad_resume", fmt.Sprintf("resume %.100q: it is not a token of this server", text))
	}
	return lsn, incarnation, nil
}

// findOwned returns the owned publications by name; name selects one unless it is empty.
func (s *Server) findOwned(ctx context.Context, name string) (map[string]ownedPublication, error) {
	return findOwnedBy(ctx, s.pool, name)
}

func findOwnedBy(ctx context.Context, db cdc.DB, name string) (map[string]ownedPublication, error) {
	rows, err := db.Query(ctx, `
		SELECT p.pubname, obj_description(p.oid, 'pg_publication'),
			coalesce((SELECT array_agg(n.nspname || '.' || c.relname ORDER BY n.nspname, c.relname)
				FROM pg_publication_rel r JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
				WHERE r.prpubid = p.oid), '{}')
		FROM pg_publication p
		WHERE obj_description(p.oid, 'pg_publication') LIKE '{"madeBy":%' AND ($1 = '' OR p.pubname = $1)`, name)
	if err != nil {
		return nil, err
	}
	found := map[string]ownedPublication{}
	_, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (o ownedPublication, err error) {
		var name, comment string
		if err := row.Scan(&name, &comment, &o.Tables); err != nil {
			return o, err
		}
		if json.Unmarshal([]byte(comment), &o) == nil && o.MadeBy == maker && o.Incarnation != "" {
			found[name] = o
		}
		return o, nil
	})
	return found, err
}

// findOwnSlot returns the publication of one of our slots. It returns an error for a slot of another program, or one that does not exist.
func (s *Server) findOwnSlot(ctx context.Context, name string) (ownedPublication, error) {
	found, err := s.findOwned(ctx, name)
	if err != nil {
		return ownedPublication{}, err
	}
	if o, ok := found[name]; ok && o.Tail == nil {
		return o, nil
	}
	noted, err := s.readLedgers(ctx)
	if err != nil {
		return ownedPublication{}, err
	}
	incarnation, ours := noted[name]
	switch slot, err := cdc.LookupSlot(ctx, s.pool, name); {
	case ours && errors.Is(err, cdc.ErrNotFound):
		return ownedPublication{}, errUnpublished
	case err != nil:
		return ownedPublication{}, err
	case !ours:
		return ownedPublication{}, foreignSlotError("")
	default:
		if p := checkLedgerSlot(slot, incarnation); p != nil {
			return ownedPublication{}, p
		}
	}
	return ownedPublication{}, errUnpublished
}

// createPublication creates the publication of a slot, or of tails, with its comment, in one transaction.
func (s *Server) createPublication(ctx context.Context, name string, tables []cdc.PublishedTable, tail, consumers []string) (o ownedPublication, err error) {
	o = ownedPublication{MadeBy: maker, Incarnation: strings.ToLower(rand.Text()[:12]), Tail: tail, Consumers: consumers}
	comment, err := json.Marshal(o)
	if err != nil {
		return o, err
	}
	for _, t := range tables {
		o.Tables = append(o.Tables, t.Schema+"."+t.Table)
	}
	return o, pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if err := cdc.CreatePublication(ctx, tx, cdc.Publication{Name: name, Tables: tables, ViaRoot: true}); err != nil {
			return err
		}
		if err := commentOn(ctx, tx, name, string(comment)); err != nil || tail != nil {
			return err
		}
		return changeLedger(ctx, tx, func(slots map[string]string) { slots[name] = o.Incarnation })
	})
}

// tableUses says how a table can be used.
type tableUses struct {
	canStream bool // updates and deletes identify the row
	canPage   bool // it has a key to read pages in the order of
	isOwned   bool // the role may publish it
}

// usesByTable has the uses of tables by schema and name.
type usesByTable map[[2]string]tableUses

func (c usesByTable) usesOf(t cdc.PublishedTable) tableUses { return c[[2]string{t.Schema, t.Table}] }

// findAllowedTables returns the allowed tables that match patterns, and how they can be used.
func (s *Server) findAllowedTables(ctx context.Context, patterns []string) ([]cdc.PublishedTable, usesByTable, error) {
	all, err := cdc.FindTables(ctx, s.pool, patterns...)
	if err != nil {
		var invalid *cdc.InvalidError
		if errors.As(err, &invalid) && strings.Contains(invalid.Rule, "at least one table") {
			return nil, nil, newProblem(http.StatusNotFound, "unknown_table", fmt.Sprintf("no table matches %q", invalid.Value))
		}
		return nil, nil, err
	}
	var tables []cdc.PublishedTable
	for _, t := range all {
		if matchesTable(s.config.Tables, t.Schema+"."+t.Table) {
			tables = append(tables, t)
		}
	}
	if len(tables) == 0 {
		return nil, nil, newProblem(http.StatusForbidden, "table_not_allowed", "none of these tables may be read: the server allows "+strings.Join(s.config.Tables, ", "))
	}
	rows, err := s.pool.Query(ctx, `
		WITH `+identity.CTE+`
		SELECT n.nspname, c.relname, c.oid IN (SELECT oid FROM identified),
			c.relreplident = 'i' OR EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary),
			pg_has_role(c.relowner, 'USAGE')
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p')`)
	if err != nil {
		return nil, nil, err
	}
	found := usesByTable{}
	var name [2]string
	var k tableUses
	_, err = pgx.ForEachRow(rows, []any{&name[0], &name[1], &k.canStream, &k.canPage, &k.isOwned}, func() error {
		found[name] = k
		return nil
	})
	return tables, found, err
}
