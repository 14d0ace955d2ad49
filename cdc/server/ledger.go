package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/jackc/pgx/v5"

	"github.com/chariot-giving/delta/cdc"
)

// errUnpublished is a slot of ours whose publication somebody has dropped, or made again. The log between cannot be read: Postgres looks
// a publication up as it was when a change was written.
var errUnpublished = refusal(http.StatusGone, "resync_needed",
	"the publication of the slot was dropped by somebody, or made again: DELETE the slot, make it again, and begin with its snapshot")

const ledgerMaker = "delta stream /v2 slots"

// ledger is the comment of a publication without tables: the incarnations of the slots that were made here, by name. Without it, nothing
// would say whose a slot is once its own publication was dropped, and it could not be deleted.
type ledger struct {
	MadeBy string            `json:"madeBy"`
	Slots  map[string]string `json:"slots"`
}

// parseLedger reads the comment of a publication; it is nil where that is not a ledger.
func parseLedger(comment string) *ledger {
	var l ledger
	if json.Unmarshal([]byte(comment), &l) != nil || l.MadeBy != ledgerMaker {
		return nil
	}
	return &l
}

// noted are the slots of all ledgers: each role has its own, because only its owner can comment on a publication.
func (s *Server) noted(ctx context.Context) (map[string]string, error) {
	rows, err := s.pool.Query(ctx, `SELECT obj_description(oid, 'pg_publication') FROM pg_publication
		WHERE obj_description(oid, 'pg_publication') LIKE '{"madeBy":%'`)
	if err != nil {
		return nil, err
	}
	slots := map[string]string{}
	var comment string
	_, err = pgx.ForEachRow(rows, []any{&comment}, func() error {
		if l := parseLedger(comment); l != nil {
			for name, incarnation := range l.Slots {
				slots[name] = incarnation
			}
		}
		return nil
	})
	return slots, err
}

// changeLedger changes the ledger of the role within a transaction. Without slots there is none.
func changeLedger(ctx context.Context, tx pgx.Tx, change func(slots map[string]string)) error {
	var name string
	err := tx.QueryRow(ctx, `SELECT 'delta_stream_slots_' || left(md5(current_user), 8)
		FROM pg_advisory_xact_lock(hashtextextended('delta stream ledger', 0))`).Scan(&name)
	if err != nil {
		return err
	}
	// Another statement, whose snapshot is of after the lock.
	var comment string
	err = tx.QueryRow(ctx, `SELECT coalesce(obj_description(oid, 'pg_publication'), '') FROM pg_publication WHERE pubname = $1`, name).Scan(&comment)
	exists := !errors.Is(err, pgx.ErrNoRows)
	if exists && err != nil {
		return err
	}
	l := parseLedger(comment)
	if exists && l == nil {
		return refusal(http.StatusConflict, "exists", "the publication "+name+", in which this server notes its slots, is somebody else's: rename it")
	}
	if l == nil {
		l = &ledger{MadeBy: ledgerMaker, Slots: map[string]string{}}
	}
	change(l.Slots)
	quoted := pgx.Identifier{name}.Sanitize()
	switch {
	case len(l.Slots) == 0 && exists:
		_, err = tx.Exec(ctx, `DROP PUBLICATION `+quoted)
		return err
	case len(l.Slots) == 0:
		return nil
	case !exists:
		if _, err := tx.Exec(ctx, `CREATE PUBLICATION `+quoted); err != nil {
			return err
		}
	}
	text, err := json.Marshal(l)
	if err != nil {
		return err
	}
	return commentOn(ctx, tx, name, string(text))
}

// commentOn sets the comment of a publication.
func commentOn(ctx context.Context, tx pgx.Tx, name, comment string) error {
	var statement string
	if err := tx.QueryRow(ctx, `SELECT format('COMMENT ON PUBLICATION %I IS %L', $1::text, $2::text)`, name, comment).Scan(&statement); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, statement)
	return err
}

// unpublish drops the publication of a slot, unless it is gone or somebody else's, and takes the slot out of the ledger.
func (s *Server) unpublish(ctx context.Context, name string) error {
	found, err := s.findOwned(ctx, name)
	if err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, ours := found[name]; ours {
			if err := cdc.DropPublication(ctx, tx, name); err != nil {
				return err
			}
		}
		return changeLedger(ctx, tx, func(slots map[string]string) { delete(slots, name) })
	})
}
