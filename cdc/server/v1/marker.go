package v1

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/chariot-giving/delta/cdc"
)

// markers are the two publications of an installation. The comment of each names the installation; that of changes also lists the slots. A
// publication of the same name without the comment belongs to another program.
type markers struct {
	installation string
	// changes has the tables with a replica identity, and inserts all others.
	changes, inserts string
}

func newMarkers(installation string) markers {
	return markers{installation, "delta_stream_" + installation + "_changes", "delta_stream_" + installation + "_inserts"}
}

const maker = "delta stream /v1"

type marker struct {
	MadeBy       string   `json:"madeBy"`
	Installation string   `json:"installation"`
	Slots        []string `json:"slots,omitempty"`
}

// foreignPublicationError says that a publication has the name of one of ours, and was created by another program.
type foreignPublicationError struct{ name string }

func (e *foreignPublicationError) Error() string {
	return fmt.Sprintf("publication %q was not created by this installation: drop it, or choose another name for the installation", e.name)
}

// readMarker returns the comment of a publication, nil if the publication does not exist.
func (m markers) readMarker(ctx context.Context, db cdc.DB, name string) (*marker, error) {
	rows, err := db.Query(ctx, `SELECT coalesce(obj_description(oid, 'pg_publication'), '') FROM pg_publication WHERE pubname = $1`, name)
	if err != nil {
		return nil, err
	}
	comment, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[string])
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	made := &marker{}
	if json.Unmarshal([]byte(comment), made) != nil || made.MadeBy != maker || made.Installation != m.installation {
		return nil, &foreignPublicationError{name}
	}
	return made, nil
}

// Slots returns the slots that sessions of /v1 have created in a database, each with the name of its installation.
func Slots(ctx context.Context, db cdc.DB) (map[string]string, error) {
	rows, err := db.Query(ctx, `SELECT obj_description(oid, 'pg_publication') FROM pg_publication WHERE obj_description(oid, 'pg_publication') LIKE '{"madeBy":%'`)
	if err != nil {
		return nil, err
	}
	comments, err := pgx.CollectRows(rows, pgx.RowTo[string])
	found := map[string]string{}
	for _, comment := range comments {
		var made marker
		if json.Unmarshal([]byte(comment), &made) == nil && made.MadeBy == maker {
			for _, slot := range made.Slots {
				found[slot] = made.Installation
			}
		}
	}
	return found, err
}

// readSlots returns the slots that this installation has created, or was about to create.
func (m markers) readSlots(ctx context.Context, db cdc.DB) ([]string, error) {
	made, err := m.readMarker(ctx, db, m.changes)
	if err != nil || made == nil {
		return nil, err
	}
	return made.Slots, nil
}

// writeMarker writes the installation and its slots into the comment of a publication.
func (m markers) writeMarker(ctx context.Context, db cdc.DB, name string, slots ...string) error {
	comment, err := json.Marshal(marker{maker, m.installation, slots})
	if err != nil {
		return err
	}
	rows, err := db.Query(ctx, `SELECT format('COMMENT ON PUBLICATION %I IS %L', $1::text, $2::text)`, name, string(comment))
	if err != nil {
		return err
	}
	statement, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	_, err = db.Exec(ctx, statement)
	return err
}
