package delta

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// ErrNoSchema is wrapped in errors of calls that find no Delta schema, or an old one, in the database.
var ErrNoSchema = errors.New("the database has no up-to-date Delta schema in its search_path: " +
	"apply it with `delta migrate up --database-url URL`, or with delta.Migrate")

// Inform tells Delta that an object exists outside, in the given version. A new or changed object is scheduled to be
// synced. An unchanged object is left alone, unless its resource is degraded, deleted or of unknown state. An object that
// is older than the stored one ([ObjectWithRevision], [ComparableObject]) changes nothing, and its result is Stale. opts
// may be nil.
//
// Inform is one statement, which concurrent calls share, and needs no Temporal. If ctx ends before the answer, the object
// may or may not have been written. It returns an *[InputError] for input that breaks a rule, and [ErrNoSchema] if the
// schema is missing. It is safe for concurrent use.
func (c *Client) Inform(ctx context.Context, object Object, opts *InformOpts) (*deltatype.ObjectInformResult, error) {
	params, err := c.encodeAll([]Object{object}, opts)
	if err != nil {
		return nil, err
	}
	results, err := c.informInSpan(ctx, OperationInform, params, func(ctx context.Context) ([]*deltatype.ObjectInformResult, error) {
		result, err := c.groupCommit.inform(ctx, params[0])
		if err != nil {
			return nil, err
		}
		return []*deltatype.ObjectInformResult{result}, refusalError(params, []*deltatype.ObjectInformResult{result})
	})
	if err != nil {
		return nil, err // even for a refused object
	}
	return results[0], nil
}

// InformTx is Inform in the caller's transaction: the resource is synced after the transaction commits, and a rollback
// leaves nothing of it. The commit sends one Postgres notification a kind.
func (c *Client) InformTx(ctx context.Context, tx pgx.Tx, object Object, opts *InformOpts) (*deltatype.ObjectInformResult, error) {
	results, err := c.InformManyTx(ctx, tx, []Object{object}, opts)
	if err != nil {
		return nil, err // even for a refused object
	}
	return results[0], nil
}

// InformMany is Inform for a set of objects, of one kind or several, all or nothing: if one object breaks a rule, the whole
// set is refused. It is one statement for each 2048 objects, in one transaction if there are several statements. If an
// object is given twice, the last one counts. Results are in the order of the objects.
//
// An object that would move its resource to another namespace is refused alone, unless MoveNamespace is set: the others are
// written. Then the results come with an error that wraps a *[NamespaceError] for the first of them, and Refused is set in
// the result of each.
func (c *Client) InformMany(ctx context.Context, objects []Object, opts *InformOpts) ([]*deltatype.ObjectInformResult, error) {
	params, err := c.encodeAll(objects, opts)
	if err != nil || len(params) == 0 {
		return nil, err
	}
	return c.informInSpan(ctx, OperationInformMany, params, func(ctx context.Context) ([]*deltatype.ObjectInformResult, error) {
		results, err := c.writeInforms(ctx, params, 0)
		if err != nil {
			return nil, err
		}
		return results, refusalError(params, results)
	})
}

// maxRefusedNamed is how many refused objects an error names.
const maxRefusedNamed = 5

// refusalError returns an error for the refused objects; nil if there are none.
func refusalError(params []deltatype.ObjectInformParams, results []*deltatype.ObjectInformResult) error {
	var all []error
	more := 0
	for _, r := range results {
		switch {
		case r.Refused == nil:
		case len(all) == maxRefusedNamed:
			more++
		default:
			all = append(all, r.Refused)
		}
	}
	if len(all) == 0 {
		return nil
	}
	if more > 0 {
		all = append(all, fmt.Errorf("and %d more are refused", more))
	}
	return informError(params, errors.Join(all...))
}

// informOne and informGroup are the statements of groupCommit.
func (c *Client) informOne(ctx context.Context, params deltatype.ObjectInformParams) (*deltatype.ObjectInformResult, error) {
	results, err := c.writeInforms(ctx, []deltatype.ObjectInformParams{params}, 0)
	if err != nil {
		return nil, err
	}
	return results[0], nil
}

func (c *Client) informGroup(ctx context.Context, params []deltatype.ObjectInformParams) ([]*deltatype.ObjectInformResult, error) {
	return c.writeInforms(ctx, params, groupLockTimeout)
}

// writeInforms writes a set outside a transaction, and wakes the dispatchers of its kinds.
func (c *Client) writeInforms(ctx context.Context, params []deltatype.ObjectInformParams, lockTimeout time.Duration) ([]*deltatype.ObjectInformResult, error) {
	if err := c.encoding.checkPool(ctx); err != nil {
		return nil, informError(params, withCause(ctx, err))
	}
	notifies := c.hasOthersKind(params) && c.notifier.takeNotify()
	results, err := db.InformRetrying(ctx, c.pool, params, db.InformOptions{
		DefaultMaxAttempts: defaultMaxAttempts,
		DefaultPriority:    PriorityLive,
		Revive:             true,
		Coder:              c.coder,
		Notify:             notifies,
		LockTimeout:        lockTimeout,
	})
	if err != nil {
		return nil, informError(params, withCause(ctx, err))
	}
	due := make(map[string]int, 1)
	for _, r := range results {
		if r == nil {
			continue // its row is locked: its caller writes it alone
		}
		c.observeInform(r)
		if r.Scheduled {
			due[r.Resource.ObjectKind]++
		}
	}
	for kind, n := range due {
		if notifies {
			c.wakeOwnDispatcher(kind, n)
		} else {
			c.wakeKind(kind, n)
		}
	}
	return results, nil
}

// InformManyTx is InformMany in the caller's transaction; see InformTx. If objects are refused, the others are written:
// commit them, or roll back.
func (c *Client) InformManyTx(ctx context.Context, tx pgx.Tx, objects []Object, opts *InformOpts) ([]*deltatype.ObjectInformResult, error) {
	if tx == nil {
		return nil, errors.New("delta: inform: tx is nil")
	}
	params, err := c.encodeAll(objects, opts)
	if err != nil || len(params) == 0 {
		return nil, err
	}
	return c.informInSpan(ctx, OperationInformTx, params, func(ctx context.Context) ([]*deltatype.ObjectInformResult, error) {
		if err := checkEncoding(tx.Conn()); err != nil {
			return nil, informError(params, err)
		}
		results, err := db.Inform(ctx, tx, params, db.InformOptions{
			DefaultMaxAttempts: defaultMaxAttempts,
			DefaultPriority:    PriorityLive,
			Revive:             true,
			Coder:              c.coder,
			Notify:             true,
		})
		if err != nil {
			return nil, informError(params, withCause(ctx, err))
		}
		for _, r := range results {
			c.observeInform(r)
		}
		return results, refusalError(params, results)
	})
}

func (c *Client) encodeAll(objects []Object, opts *InformOpts) ([]deltatype.ObjectInformParams, error) {
	params := make([]deltatype.ObjectInformParams, 0, len(objects))
	for i, object := range objects {
		p, err := encodeObject(object, opts, c.decoderOf(object))
		if err == nil {
			err = c.checkKind(p.Kind)
		}
		if err != nil {
			at := ""
			if len(objects) > 1 {
				at = fmt.Sprintf("objects[%d]: ", i)
			}
			return nil, fmt.Errorf("delta: inform: %s%w", at, err)
		}
		params = append(params, p)
	}
	return params, nil
}

// decoderOf returns the decoder of the stored object with which an object is compared: that of the controller for its type,
// and nil if there is none.
func (c *Client) decoderOf(object Object) decoder {
	if _, compares := object.(ComparableObject); !compares || c.config.Controllers == nil {
		return nil
	}
	for _, there := range c.config.Controllers.byKind {
		if there.objectType == reflect.TypeOf(object) {
			return there.decode
		}
	}
	return nil
}

// checkKind refuses kinds without a controller, if the client has any controllers: then the controller was forgotten.
func (c *Client) checkKind(kind string) error {
	kinds := c.config.Controllers.kindNames()
	if len(kinds) == 0 {
		return nil
	}
	if _, ok := c.config.Controllers.byKind[kind]; !ok {
		return inputError("kind", kind, "must have a controller in Config.Controllers, which has %q "+
			"(a client without any controllers informs every kind)", kinds)
	}
	return nil
}

func informError(params []deltatype.ObjectInformParams, err error) error {
	what := params[0].Kind + "/" + params[0].ResourceID
	if len(params) > 1 {
		what = fmt.Sprintf("%d objects", len(params))
	}
	return fmt.Errorf("delta: inform %s: %w", what, schemaError(err))
}

// errNoPrepared has the remedy for a pooler that gives each transaction another server connection, where earlier statements
// are not prepared.
var errNoPrepared = errors.New("the pool connects through a pooler that has no prepared statements: give PgBouncer (1.21 or later) " +
	"max_prepared_statements, or the pool's connection string default_query_exec_mode=cache_describe")

// schemaError adds the remedy to errors of a missing or old schema, and of statements that are no longer prepared.
func schemaError(err error) error {
	const undefinedTable, undefinedColumn, undefinedObject, undefinedFunction, invalidSchema = "42P01", "42703", "42704", "42883", "3F000"
	const noPrepared, duplicatePrepared = "26000", "42P05"
	if pg := new(pgconn.PgError); errors.As(err, &pg) {
		switch pg.Code {
		case undefinedTable, undefinedColumn, undefinedObject, undefinedFunction, invalidSchema:
			return fmt.Errorf("%w (%w)", ErrNoSchema, err)
		case noPrepared, duplicatePrepared:
			return fmt.Errorf("%w (%w)", errNoPrepared, err)
		}
	}
	return err
}
