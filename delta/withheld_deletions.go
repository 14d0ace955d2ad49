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

// Withheld is a deletion that complete listings of a kind, or of a shard, have asked for, and that was not carried out: it
// is of suspiciously many resources ([ObjectSettings].MaxDeleted), the listing returned nothing at all, or the controller
// no longer names the shard. It ends when a listing leaves out fewer, or when it was approved and carried out.
type Withheld struct {
	// Kind is the listed kind, Shard its shard; empty for a kind that is listed as a whole.
	Kind, Shard string
	// Missing is how many resources, of Total, were left out at SeenAt.
	Missing, Total int64
	// Reason describes why the latest listing may not delete them by itself.
	Reason string
	// Since is when a listing first left out so many. SeenAt is when they were last counted: by each complete listing, but
	// for a shard that its controller no longer names once an hour at most.
	Since, SeenAt time.Time
	// Decision is [WithheldApproved] or [WithheldDismissed]; empty before a decision. It applies to listings that leave out
	// no more than DecidedMissing.
	Decision string
	// DecidedMissing is the number of resources of the decision, DecidedAt its time; 0 and nil before one.
	DecidedMissing int64
	DecidedAt      *time.Time
}

// Decisions about withheld deletions.
const (
	// WithheldApproved lets the next complete listing delete the resources that it leaves out.
	WithheldApproved = activities.Approved
	// WithheldDismissed keeps the resources, and is no longer reported.
	WithheldDismissed = activities.Dismissed
)

// ErrNotWithheld is wrapped in errors of decisions about a deletion that is not withheld, or is of more resources by now.
var ErrNotWithheld = errors.New("there is no such withheld deletion")

// Withheld returns the withheld deletions, by kind and shard, decided or not.
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

// ApproveWithheld allows the next complete listing of a kind, or of one of its shards, to mark deleted the resources that
// it leaves out, if they are no more than missing: the Missing that somebody has looked at. shard is empty for a kind
// without shards. To run a listing at once, call [Client.RunInform]. The resources of a shard that is no longer named are
// deleted by the next run. It returns [ErrNotWithheld] if nothing is withheld, or more than missing by now.
func (c *Client) ApproveWithheld(ctx context.Context, kind, shard string, missing int64) (*Withheld, error) {
	return c.decideWithheld(ctx, WithheldApproved, kind, shard, missing)
}

// DismissWithheld keeps the resources that complete listings of a kind, or of one of its shards, leave out, while they are
// no more than missing: the Missing that somebody has looked at. Passes still report them as withheld in their results. It
// returns [ErrNotWithheld] if nothing is withheld, or more than missing by now.
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
