package delta

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

const (
	// explainPatience bounds the requests to Temporal for an explanation.
	explainPatience = 4 * time.Second
	// shownErrors is how many of the latest errors an explanation has.
	shownErrors = 3
)

// Explain returns why a resource is not synced now, and what to do. It reads Postgres, and Temporal if the resource waits
// for a worker. It changes nothing, and the client need not be started. If Temporal does not answer, the explanation says
// so. It returns [ErrNotFound] if there is no resource.
func (c *Client) Explain(ctx context.Context, kind, objectID string) (*Explanation, error) {
	if err := checkRef(kind, objectID); err != nil {
		return nil, fmt.Errorf("delta: explain: %w", err)
	}
	facts, err := c.readFacts(ctx, kind, objectID)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, fmt.Errorf("delta: explain %s/%s: %w", kind, objectID, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("delta: explain %s/%s: %w", kind, objectID, schemaError(err))
	}
	if facts.needsTemporal() {
		facts.temporal, facts.temporalErr = c.readTemporalFacts(ctx, facts)
		if ctx.Err() != nil {
			return nil, fmt.Errorf("delta: explain %s/%s: %w", kind, objectID, context.Cause(ctx))
		}
	}
	explained := &Explanation{Resource: facts.row, At: facts.Now.UTC(), Reasons: facts.findReasons(), TemporalError: facts.temporalErr}
	for i := len(facts.row.Errors) - 1; i >= 0 && len(explained.LastErrors) < shownErrors; i-- {
		explained.LastErrors = append(explained.LastErrors, facts.row.Errors[i])
	}
	return explained, nil
}

// facts has the data of an explanation.
type facts struct {
	db.ExplainResourceRow
	row *deltatype.ResourceRow
	// key is the status of its limit key; nil if it has none.
	key *LimitKeyStatus
	// claimed counts claimed resources.
	claimed db.CountClaimedRow
	// awaited is the ancestor for which it ultimately waits; nil if it does not wait.
	awaited *db.Awaited
	// maxWorkers is that of its namespace, as far as this client knows; 0 for none.
	maxWorkers int
	// temporal is nil if Temporal was not asked, or did not answer.
	temporal    *temporalFacts
	temporalErr error
}

func (c *Client) readFacts(ctx context.Context, kind, objectID string) (*facts, error) {
	found, err := db.New().ExplainResource(ctx, c.pool, db.ExplainResourceParams{Kind: kind, ObjectID: objectID, Several: activities.MinStalePasses})
	if err != nil {
		return nil, err
	}
	f := &facts{ExplainResourceRow: found, maxWorkers: c.config.Namespaces[found.Resource.Namespace].MaxWorkers}
	if found.NamespaceWorkers != nil {
		f.maxWorkers = int(*found.NamespaceWorkers)
	}
	if f.row, err = c.rowOf(ctx, &found.Resource); err != nil {
		return nil, err
	}
	if parents := found.Resource.AwaitedParents; parents != nil && f.AwaitsAttempt && f.row.State != deltatype.ResourceStateDeleted {
		awaited, err := db.ReadAwaited(ctx, c.pool, parents)
		if err != nil {
			return nil, err
		}
		f.awaited = awaited.Find(Ref{Kind: kind, ObjectID: objectID}, parents)
	}
	if f.row.LimitKey != "" {
		if f.key, err = c.LimitKey(ctx, kind, objectID); err != nil {
			return nil, err
		}
	}
	if f.isDue() && f.claimedUntil() == nil {
		f.claimed, err = db.New().CountClaimed(ctx, c.pool, db.CountClaimedParams{
			Kind: kind, Namespace: f.row.Namespace, Longest: activities.LongestLease,
		})
	}
	return f, err
}

// claimedUntil returns until when the claim of the row is live; nil if it has none, or an expired one.
func (f *facts) claimedUntil() *time.Time {
	until := f.row.ClaimedUntil
	if until == nil {
		return nil
	}
	if renewed := db.UTC(f.RenewedUntil); renewed != nil && renewed.After(*until) {
		until = renewed
	}
	if !until.After(f.Now) {
		return nil
	}
	return until
}

// isDue reports whether the row waits for a call of Work or Finalize that may begin now, by its own times.
func (f *facts) isDue() bool {
	return f.AwaitsAttempt && f.row.DueAt != nil && !f.row.DueAt.After(f.Now)
}

// isWaiting reports whether the row waits for a call of Work or Finalize, or has one.
func (f *facts) isWaiting() bool { return f.AwaitsAttempt || f.Worked }

// isLate reports whether the next step of the row is overdue.
func (f *facts) isLate() bool {
	return f.row.DueAt != nil && f.Now.Sub(*f.row.DueAt) > lateGrace
}

// needsTemporal reports whether Temporal has relevant facts.
func (f *facts) needsTemporal() bool {
	return f.isWaiting() || f.isLate() || f.claimedUntil() != nil
}

// lastError returns the latest error of the row if it belongs to no attempt: its object did not decode, or its workflow
// could not be started. Otherwise it returns nil.
func (f *facts) lastError() *deltatype.AttemptError {
	if n := len(f.row.Errors); n > 0 && f.row.Errors[n-1].Attempt == 0 {
		return &f.row.Errors[n-1]
	}
	return nil
}
