package delta

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
)

// Withheld is a deletion that complete listings of a kind, or of a shard, have asked for, and that was not carried out because it is of
// suspiciously many resources ([ObjectSettings].MaxDeleted), because the listing named nothing at all, or because the controller no longer names
// the shard. It is there until a listing leaves out less, or it was approved and carried out.
type Withheld struct {
	// Kind is the kind that was listed, Shard its shard; empty for a kind that is listed as a whole.
	Kind, Shard string
	// Missing is how many resources were left out at SeenAt, of Total.
	Missing, Total int64
	// Reason says in words why the latest listing may not delete them by itself.
	Reason string
	// Since is when a listing first left out so many, SeenAt when that was counted last: by each complete listing, but of a shard that its controller no
	// longer names once an hour at most.
	Since, SeenAt time.Time
	// Decision is [WithheldApproved] or [WithheldDismissed]; empty where nobody has decided. It holds for listings that leave out no more
	// than DecidedMissing.
	Decision string
	// DecidedMissing is how many resources it was decided of, DecidedAt when; 0 and nil where nobody has.
	DecidedMissing int64
	DecidedAt      *time.Time
}

// Decisions of what was withheld.
const (
	// WithheldApproved has the next complete listing delete what it leaves out.
	WithheldApproved = activities.Approved
	// WithheldDismissed keeps the resources, and is no longer reported.
	WithheldDismissed = activities.Dismissed
)

// ErrNotWithheld is wrapped in errors of calls that decide of a deletion which is not withheld, or is of more resources by now.
var ErrNotWithheld = errors.New("there is no such withheld deletion")

// Withheld reads the deletions that are withheld, by kind and shard, decided or not.
func (c *Client) Withheld(ctx context.Context) ([]Withheld, error) {
	rows, err := db.New().ListWithheld(ctx, c.pool)
	if err != nil {
		return nil, fmt.Errorf("delta: withheld: %w", schemaError(err))
	}
	all := make([]Withheld, len(rows))
	for i := range rows {
		all[i] = withheldOf(&rows[i])
	}
	return all, nil
}

// ApproveWithheld allows the next complete listing of a kind, or of one of its shards (empty for a kind without), to mark deleted what it leaves out, if that is no more than missing: the
// Missing that was looked at. Run one at once with [Client.RunInform]. What is left of a shard that is no longer
// named is deleted by the next run. It returns [ErrNotWithheld] where nothing is withheld, or more is by
// now.
func (c *Client) ApproveWithheld(ctx context.Context, kind, shard string, missing int64) (*Withheld, error) {
	return c.decideWithheld(ctx, WithheldApproved, kind, shard, missing)
}

// DismissWithheld keeps what complete listings of a kind, or of one of its shards, leave out, for as long as it is no more than missing: the Missing that was looked
// at. Passes go on to say in their results what they withhold. It returns [ErrNotWithheld] where nothing is withheld, or more is by now.
func (c *Client) DismissWithheld(ctx context.Context, kind, shard string, missing int64) (*Withheld, error) {
	return c.decideWithheld(ctx, WithheldDismissed, kind, shard, missing)
}

func (c *Client) decideWithheld(ctx context.Context, decision, kind, shard string, missing int64) (*Withheld, error) {
	what := map[string]string{WithheldApproved: "approve", WithheldDismissed: "dismiss"}[decision]
	if err := checkText("kind", kind); err != nil {
		return nil, fmt.Errorf("delta: %s: %w", what, err)
	}
	if err := checkKey("shard", shard); err != nil {
		return nil, fmt.Errorf("delta: %s: %w", what, err)
	}
	if missing < 1 {
		return nil, fmt.Errorf("delta: %s: %w", what, inputError("missing", missing, "must be the number of resources that was looked at, 1 at least"))
	}
	row, err := db.New().DecideWithheld(ctx, c.pool, db.DecideWithheldParams{Decision: decision, Kind: kind, Shard: shard, Missing: &missing})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, fmt.Errorf("delta: %s %d deletions of kind %s: %w, or it is of more resources by now", what, missing, kind, ErrNotWithheld)
	}
	if err != nil {
		return nil, fmt.Errorf("delta: %s %d deletions of kind %s: %w", what, missing, kind, schemaError(err))
	}
	decided := withheldOf(&row)
	return &decided, nil
}

func withheldOf(row *db.Withheld) Withheld {
	w := Withheld{Kind: row.Kind, Shard: row.Shard, Missing: row.Missing, Total: row.Total, Reason: row.Reason, Since: row.Since.UTC(), SeenAt: row.SeenAt.UTC()}
	if row.Decision != nil {
		w.Decision, w.DecidedMissing, w.DecidedAt = *row.Decision, *row.DecidedMissing, db.UTC(row.DecidedAt)
	}
	return w
}
