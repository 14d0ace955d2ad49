package server

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/chariot-giving/delta/cdc"
)

// errUnpublished says that the publication of a slot was dropped or created again by another program. The changes in between cannot be
// read, because Postgres looks a publication up as it was when a change was written.
var errUnpublished = newProblem(http.StatusGone, "resync_needed",
	"another program has dropped the publication of the slot, or created it again: DELETE the slot, create it again, and start with its snapshot")

const ledgerMaker = "delta stream /v2 slots"

// ledger is the comment of a publication without tables. It lists the incarnations of the slots that were created here, by name. Without
// it, nothing would say that a slot is ours after its own publication was dropped, and the slot could not be deleted. A slot that was seen
// to be missing has the incarnation "", because a later slot of its name was created by another program.
type ledger struct {
	MadeBy string            `json:"madeBy"`
	Slots  map[string]string `json:"slots"`
}

// parseLedger parses the comment of a publication; it returns nil if the comment is not a ledger.
func parseLedger(comment string) *ledger {
	var l ledger
	if json.Unmarshal([]byte(comment), &l) != nil || l.MadeBy != ledgerMaker {
		return nil
	}
	return &l
}

// readLedgers returns the incarnations of the slots of all ledgers, by name. Each role has a ledger, because only its owner can comment on
// a publication.
func (s *Server) readLedgers(ctx context.Context) (map[string]string, error) {
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
				slots[name] = cmp.Or(incarnation, slots[name])
			}
		}
		return nil
	})
	return slots, err
}

// changeLedger changes the ledger of the role within a transaction. A ledger without slots is dropped.
func changeLedger(ctx context.Context, tx pgx.Tx, change func(slots map[string]string)) error {
	var name string
	err := tx.QueryRow(ctx, `SELECT 'delta_stream_slots_' || left(md5(current_user), 8)
		FROM pg_advisory_xact_lock(hashtextextended('delta stream ledger', 0))`).Scan(&name)
	if err != nil {
		return err
	}
	return changeLedgerNamed(ctx, tx, name, change)
}

// lockLedgers locks the ledgers of all roles until the transaction ends. Statements after it see what the previous holder has committed.
func lockLedgers(ctx context.Context, tx pgx.Tx) error {
	_, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('delta stream ledger', 0))`)
	return err
}

// changeLedgers changes all ledgers that have one of some slots, within a transaction. It fails if a ledger belongs to a role of which this
// one is not a member.
func changeLedgers(ctx context.Context, tx pgx.Tx, names []string, change func(slots map[string]string)) error {
	if err := lockLedgers(ctx, tx); err != nil {
		return err
	}
	rows, err := tx.Query(ctx, `SELECT pubname, obj_description(oid, 'pg_publication'), pg_get_userbyid(pubowner), pg_has_role(pubowner, 'USAGE') FROM pg_publication
		WHERE obj_description(oid, 'pg_publication') LIKE '{"madeBy":%'`)
	if err != nil {
		return err
	}
	var ledgers []string
	var name, comment, owner string
	var may bool
	_, err = pgx.ForEachRow(rows, []any{&name, &comment, &owner, &may}, func() error {
		l := parseLedger(comment)
		if l == nil || !slices.ContainsFunc(names, func(slot string) bool { _, has := l.Slots[slot]; return has }) {
			return nil
		}
		if !may {
			return newProblem(http.StatusForbidden, "foreign_slot", fmt.Sprintf("a server with the role %q has created the slot, and only that role can remove it from its list: ask a server with that role", owner))
		}
		ledgers = append(ledgers, name)
		return nil
	})
	if err != nil {
		return err
	}
	for _, name := range ledgers {
		if err := changeLedgerNamed(ctx, tx, name, change); err != nil {
			return err
		}
	}
	return nil
}

// changeLedgerNamed changes one ledger, with the lock held.
func changeLedgerNamed(ctx context.Context, tx pgx.Tx, name string, change func(slots map[string]string)) error {
	// A statement after the lock, so that its snapshot has what the previous holder of the lock wrote.
	var comment string
	err := tx.QueryRow(ctx, `SELECT coalesce(obj_description(oid, 'pg_publication'), '') FROM pg_publication WHERE pubname = $1`, name).Scan(&comment)
	exists := !errors.Is(err, pgx.ErrNoRows)
	if exists && err != nil {
		return err
	}
	l := parseLedger(comment)
	if exists && l == nil {
		return newProblem(http.StatusConflict, "exists", "the publication "+name+", in which this server lists its slots, was created by another program: rename it")
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

// dropSlotPublication drops the publication of a slot, unless it is gone or was created by another program, and removes the slot from the
// ledger. Only the slot of an incarnation is meant, unless it is empty.
//
// It looks after it has locked the ledger. A transaction that creates the publication has that lock until it has ended, so one whose
// COMMIT is still under way, because its client was cut off, is waited for.
func (s *Server) dropSlotPublication(ctx context.Context, name, incarnation string) error {
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if err := lockLedgers(ctx, tx); err != nil {
			return err
		}
		found, err := findOwnedBy(ctx, tx, name)
		if err != nil {
			return err
		}
		if o, ours := found[name]; ours && (incarnation == "" || o.Incarnation == incarnation) {
			if err := cdc.DropPublication(ctx, tx, name); err != nil {
				return err
			}
		}
		return changeLedgers(ctx, tx, []string{name}, func(slots map[string]string) {
			if incarnation == "" || slots[name] == incarnation {
				delete(slots, name)
			}
		})
	})
}

// noteMissing marks slots in the ledger that are gone. It only logs a failure, because the request can be answered without the mark.
func (s *Server) noteMissing(ctx context.Context, gone map[string]string) {
	if len(gone) == 0 {
		return
	}
	names := slices.Collect(maps.Keys(gone))
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		return changeLedgers(ctx, tx, names, func(slots map[string]string) {
			for name, incarnation := range gone {
				if _, has := slots[name]; has && slots[name] == incarnation { // unless it was created again
					slots[name] = ""
				}
			}
		})
	})
	if err != nil {
		s.config.Logger.Debug("cdc/server: missing slots could not be marked", "slots", names, "error", err)
	}
}

// foreignSlotError refuses a slot that was created by another program.
func foreignSlotError(reason string) *problem {
	return newProblem(http.StatusForbidden, "foreign_slot", "the slot was not created by this server, which does not touch it"+reason)
}

// checkLedgerSlot returns nil if a slot can be the one in the ledger under its name, and otherwise the reason why not.
func checkLedgerSlot(slot cdc.Slot, incarnation string) *problem {
	switch {
	case slot.Plugin != "pgoutput":
		return foreignSlotError(fmt.Sprintf(": it has the plugin %q, and the slot of this name that was created here is gone", slot.Plugin))
	case slot.Temporary:
		return foreignSlotError(": it is temporary, and the slot of this name that was created here is gone")
	case incarnation == "":
		return foreignSlotError(": the slot of this name that was created here was missing before")
	}
	return nil
}
