package activities

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

const (
	// informPage is how many objects are written at once.
	informPage = 500
	// maxInformPage bounds a page of a kind with larger batches.
	maxInformPage = 1000
	// maxInformPageBytes bounds the objects of a page together, unless a single one is larger.
	maxInformPageBytes = 4 << 20
	// informFlushInterval is how long a page waits to fill.
	informFlushInterval = 250 * time.Millisecond
)

func (p *pass) addToPage(ctx context.Context, params deltatype.ObjectInformParams) error {
	p.page = append(p.page, params)
	p.bytes += len(params.EncodedObject)
	if len(p.page) < max(informPage, min(p.activities.BatchSize, maxInformPage)) && p.bytes < maxInformPageBytes {
		return nil
	}
	return p.writePage(ctx)
}

// writePage writes the page.
func (p *pass) writePage(ctx context.Context) error {
	if err := p.writeRefused(ctx); err != nil || len(p.page) == 0 {
		return err
	}
	options := db.InformOptions{
		DefaultMaxAttempts: p.activities.DefaultMaxAttempts,
		DefaultPriority:    deltatype.PriorityPeriodic,
		ProcessExisting:    p.in.ProcessExisting,
		Pass:               p.listingClaim.claimID(),
		Coder:              p.activities.Coder,
	}
	if p.in.ProcessExisting {
		options.DefaultPriority = deltatype.PriorityBackfill
	}
	if p.remember {
		if err := p.recordListed(ctx); err != nil {
			return err
		}
	}
	results, err := p.informObjects(ctx, p.page, options)
	if err != nil {
		return fmt.Errorf("writing a page of %d: %w", len(p.page), err)
	}
	if err := p.noteListed(ctx, results); err != nil {
		return err
	}
	if err := p.countStale(ctx, results); err != nil {
		return err
	}
	scheduled, taken := 0, make([]string, 0, len(results))
	for _, r := range results {
		if r.Refused != nil {
			if err := p.refuseObject(ctx, Listed{Params: p.refusedOfPage(r), Err: r.Refused}); err != nil {
				return err
			}
			continue
		}
		taken = append(taken, r.Resource.ObjectID)
		if !r.Scheduled && !r.Stale {
			p.unchanged++
		}
		if r.Scheduled {
			scheduled++
			if !r.AlreadyExists {
				p.added++
			}
		}
	}
	p.progress.Scheduled += scheduled
	p.progress.Pass.Pages++
	if p.activities.Listed != nil {
		p.activities.Listed(results)
	}
	p.page, p.bytes = p.page[:0], 0
	if err := p.forgetTaken(ctx, taken); err != nil {
		return err
	}
	if scheduled > 0 && p.activities.Informed != nil {
		p.activities.Informed(p.in.Kind, scheduled)
	}
	return p.writeRefused(ctx)
}

// refusedOfPage returns the page's object that was refused. A page may have the same id in two namespaces.
func (p *pass) refusedOfPage(r *deltatype.ObjectInformResult) deltatype.ObjectInformParams {
	isMeant := func(o deltatype.ObjectInformParams) bool {
		moved := new(deltatype.NamespaceError)
		return o.ResourceID == r.Resource.ObjectID && (!errors.As(r.Refused, &moved) || o.Namespace == moved.Given)
	}
	return p.page[slices.IndexFunc(p.page, isMeant)]
}

// informObjects writes some of a page's objects. An object that Postgres cannot store is refused, and the others are
// taken.
func (p *pass) informObjects(
	ctx context.Context, some []deltatype.ObjectInformParams, options db.InformOptions,
) ([]*deltatype.ObjectInformResult, error) {
	results, err := db.InformRetrying(ctx, p.activities.Pool, some, options)
	switch half := len(some) / 2; {
	case err == nil || !isObjectError(err):
		return results, err
	case half == 0:
		return nil, p.refuseObject(ctx, describeRefused(&some[0], err))
	default:
		first, err := p.informObjects(ctx, some[:half], options)
		if err != nil {
			return nil, err
		}
		second, err := p.informObjects(ctx, some[half:], options)
		return append(first, second...), err
	}
}

// isObjectError reports whether single objects of a set caused its error, so that the others can be taken.
func isObjectError(err error) bool {
	cycle := new(deltatype.ParentCycleError)
	return isUnstorable(err) || errors.As(err, &cycle)
}

// describeRefused returns a refused object with its error. An object that Postgres cannot store has no JSON, because no
// version of the controller would make Postgres store it.
func describeRefused(object *deltatype.ObjectInformParams, err error) Listed {
	params := deltatype.ObjectInformParams{ResourceID: object.ResourceID}
	if !isUnstorable(err) {
		params = *object
	}
	return Listed{Params: params, Err: fmt.Errorf("%s/%s: %w", object.Kind, object.ResourceID, err)}
}

// isUnstorable reports whether Postgres cannot store the data, such as a number out of range, or too much of it.
func isUnstorable(err error) bool {
	const dataException, programLimitExceeded = "22", "54"
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (strings.HasPrefix(pg.Code, dataException) || strings.HasPrefix(pg.Code, programLimitExceeded))
}
