package db

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/chariot-giving/delta/delta/deltatype"
)

// InformOptions say how a set of objects is informed.
type InformOptions struct {
	// DefaultMaxAttempts is given to new rows whose object does not say.
	DefaultMaxAttempts int16
	// DefaultPriority is that of a new generation whose object does not say.
	DefaultPriority int16
	// Revive schedules resources that are degraded, deleted or unknown, even if their object did not change.
	Revive bool
	// ProcessExisting schedules resources whose object did not change.
	ProcessExisting bool
	// Notify wakes the dispatchers of each kind that has something to dispatch, when the transaction commits.
	Notify bool
	// LockTimeout bounds the wait for each lock; 0 leaves it to the database. Only for a set outside a transaction.
	LockTimeout time.Duration
	// Outbox has rows leased as they are written. Only for a set outside a transaction; nil for none.
	Outbox Outbox
}

// ErrInformContended is returned when other transactions kept changing the same rows.
var ErrInformContended = errors.New("rows kept changing under concurrent informs")

// maxInformRounds bounds how often a set is asked for again. Each round settles every row that was not changed by
// another transaction in that very moment.
const maxInformRounds = 10

type informKey struct{ kind, objectID string }

// Inform writes a set of objects: one statement, at most one write a row, and a second statement that reads the rows
// which needed no write, if there are any. Where an object is given twice the last one counts, and both get its result.
// Results are in the order of params.
func Inform(ctx context.Context, conn DBTX, params []deltatype.ObjectInformParams, options InformOptions) ([]*deltatype.ObjectInformResult, error) {
	latest := make(map[informKey]*deltatype.ObjectInformParams, len(params))
	for i := range params {
		latest[informKey{params[i].Kind, params[i].ResourceID}] = &params[i]
	}
	open := make([]*deltatype.ObjectInformParams, 0, len(latest))
	for _, p := range latest {
		open = append(open, p)
	}
	// One order for all writers, so that two sets that overlap wait for each other instead of deadlocking.
	slices.SortFunc(open, func(a, b *deltatype.ObjectInformParams) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.ResourceID, b.ResourceID))
	})

	found := make(map[informKey]*deltatype.ObjectInformResult, len(open))
	for round := 0; len(open) > 0; round++ {
		if round == maxInformRounds {
			return nil, fmt.Errorf("%w: %s/%s and %d more", ErrInformContended, open[0].Kind, open[0].ResourceID, len(open)-1)
		}
		leases := lease(open, options.Outbox)
		options.Outbox = nil // what is written in later rounds are few
		rows, err := informRows(ctx, conn, open, options, &leases)
		if err != nil {
			leases.start(nil)
			return nil, err
		}
		settled := make([]*deltatype.ObjectInformResult, 0, len(rows))
		for _, r := range rows {
			row, err := r.Row()
			if err != nil {
				leases.start(nil)
				return nil, err
			}
			key := informKey{r.Kind, r.ObjectID}
			if sent := latest[key]; bytes.Equal(sent.Hash, r.Hash) {
				row.EncodedObject = sent.EncodedObject // not as Postgres writes JSON
			}
			result := &deltatype.ObjectInformResult{Resource: row, AlreadyExists: r.existed, Scheduled: r.written}
			found[key] = result
			settled = append(settled, result)
		}
		leases.start(settled)
		open = slices.DeleteFunc(open, func(p *deltatype.ObjectInformParams) bool {
			return found[informKey{p.Kind, p.ResourceID}] != nil
		})
	}

	results := make([]*deltatype.ObjectInformResult, len(params))
	for i, p := range params {
		results[i] = found[informKey{p.Kind, p.ResourceID}]
	}
	return results, nil
}

// informed is a row that the upsert answered with.
type informed struct {
	Resource
	existed, written bool
}

// informRows writes a set, and reads what there was nothing to write of. What it does not answer with was changed by
// others at that moment.
func informRows(ctx context.Context, conn DBTX, set []*deltatype.ObjectInformParams, options InformOptions, leases *leases) ([]informed, error) {
	if len(set) == 1 {
		return informRow(ctx, conn, set[0], options)
	}
	params := informParams(set, options)
	leases.apply(&params)
	written, err := New().InformResources(ctx, planned(conn, len(set)), params)
	if err != nil {
		return nil, err
	}
	all := make([]informed, len(written), len(set))
	sent := make(map[informKey]*deltatype.ObjectInformParams, len(set))
	for _, o := range set {
		sent[informKey{o.Kind, o.ResourceID}] = o
	}
	for i, r := range written {
		key := informKey{r.Kind, r.ObjectID}
		all[i] = informed{InformResourceRow(r).resource(sent[key]), r.Generation > 1, true}
		delete(sent, key)
	}
	if len(sent) == 0 {
		return all, nil
	}
	left := slices.DeleteFunc(slices.Clone(set), func(o *deltatype.ObjectInformParams) bool {
		return sent[informKey{o.Kind, o.ResourceID}] == nil
	})
	kept, err := New().KeptResources(ctx, planned(conn, len(left)), keptParams(informParams(left, options)))
	if err != nil {
		return nil, err
	}
	for _, r := range kept {
		all = append(all, informed{r, true, false})
	}
	return all, nil
}

// preparedSets is the largest set whose statement is planned once a connection. A plan from when the table was small may
// read the whole of it for each object, until Postgres analyzes the table: for a few objects that is what any prepared
// statement risks, for thousands planning each time costs less.
const preparedSets = 64

// planned chooses how the statements of a set are planned.
func planned(conn DBTX, set int) DBTX {
	if set <= preparedSets {
		return conn
	}
	return plannedEachTime{conn}
}

// plannedEachTime has Postgres plan a statement with its arguments.
type plannedEachTime struct{ DBTX }

// Query sends the statement unnamed, so that it is planned with its arguments.
func (c plannedEachTime) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	return c.DBTX.Query(ctx, sql, append([]any{pgx.QueryExecModeCacheDescribe}, args...)...)
}

// informRow writes one object, or reads its row where there was nothing to write.
func informRow(ctx context.Context, conn DBTX, object *deltatype.ObjectInformParams, options InformOptions) ([]informed, error) {
	rows, err := New().InformResource(ctx, conn, informParam(object, options))
	if err != nil {
		return nil, err
	}
	if len(rows) > 0 {
		row := rows[0].resource(object)
		return []informed{{row, row.Generation > 1, true}}, nil
	}
	kept, err := New().GetResource(ctx, conn, GetResourceParams{Kind: object.Kind, ObjectID: object.ResourceID})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	left := kept.Resource.State == deltatype.ResourceStateDeleted && !options.Revive
	if !left && !asGiven(kept.Resource, object) {
		return nil, nil // it changed between the two statements
	}
	return []informed{{kept.Resource, true, false}}, nil
}

// riversHash begins the hashes that were taken over from the original (delta_is_rivers). The statements compare the objects
// of such rows, and whatever changes an object replaces its hash: a row that has it still is as it was found.
var riversHash = []byte("river:")

// asGiven tells whether a row has the content and the options of an object, as far as they can be compared as they are.
func asGiven(r Resource, o *deltatype.ObjectInformParams) bool {
	return (bytes.Equal(r.Hash, o.Hash) || bytes.HasPrefix(r.Hash, riversHash)) &&
		(o.Namespace == "" || o.Namespace == r.Namespace) &&
		(o.MaxAttempts == 0 || o.MaxAttempts == r.MaxAttempts) &&
		(o.Tags == nil || slices.Equal(o.Tags, r.Tags))
}

// InformRetrying is Inform outside a transaction: a deadlock or a serialization failure, which leave nothing behind, is
// tried again.
func InformRetrying(ctx context.Context, conn DBTX, params []deltatype.ObjectInformParams, options InformOptions) ([]*deltatype.ObjectInformResult, error) {
	for try := 1; ; try++ {
		results, err := Inform(ctx, conn, params, options)
		if err == nil || try == maxInformRounds || !isRetryable(err) {
			return results, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(time.Duration(try) * 10 * time.Millisecond):
		}
	}
}

func isRetryable(err error) bool {
	const serializationFailure, deadlockDetected = "40001", "40P01"
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (pg.Code == serializationFailure || pg.Code == deadlockDetected)
}

func priority(o *deltatype.ObjectInformParams, options InformOptions) int16 {
	const middle = 3
	return cmp.Or(o.Priority, options.DefaultPriority, middle)
}

func informParam(o *deltatype.ObjectInformParams, options InformOptions) InformResourceParams {
	p := InformResourceParams{
		Kind:               o.Kind,
		ObjectID:           o.ResourceID,
		Object:             o.EncodedObject,
		Hash:               o.Hash,
		Metadata:           o.Metadata,
		Tags:               o.Tags,
		ExternalCreatedAt:  o.CreatedAt,
		Priority:           priority(o, options),
		DefaultMaxAttempts: options.DefaultMaxAttempts,
		Revive:             options.Revive,
		ProcessExisting:    options.ProcessExisting,
		Notify:             options.Notify,
	}
	if o.Namespace != "" {
		p.Namespace = &o.Namespace
	}
	if o.MaxAttempts != 0 {
		p.MaxAttempts = &o.MaxAttempts
	}
	return p
}

func informParams(set []*deltatype.ObjectInformParams, options InformOptions) InformResourcesParams {
	n := len(set)
	p := InformResourcesParams{
		Kinds:              make([]string, n),
		ObjectIds:          make([]string, n),
		Objects:            make([][]byte, n),
		Hashes:             make([][]byte, n),
		Namespaces:         make([]string, n),
		Metadatas:          make([]string, n),
		Tags:               make([]string, n),
		MaxAttempts:        make([]int16, n),
		ExternalCreatedAts: make([]time.Time, n),
		Priorities:         make([]int16, n),
		DefaultMaxAttempts: options.DefaultMaxAttempts,
		Revive:             options.Revive,
		ProcessExisting:    options.ProcessExisting,
		Notify:             options.Notify,
	}
	if options.LockTimeout > 0 {
		p.LockTimeout = options.LockTimeout.String()
	}
	for i, o := range set {
		p.Kinds[i] = o.Kind
		p.ObjectIds[i] = o.ResourceID
		p.Objects[i] = o.EncodedObject
		p.Hashes[i] = o.Hash
		p.Namespaces[i] = o.Namespace
		p.Metadatas[i] = string(o.Metadata)
		p.MaxAttempts[i] = o.MaxAttempts
		p.Priorities[i] = priority(o, options)
		if o.Tags != nil {
			p.Tags[i] = arrayLiteral(o.Tags)
		}
		if o.CreatedAt != nil {
			p.ExternalCreatedAts[i] = *o.CreatedAt
		}
	}
	return p
}

func keptParams(p InformResourcesParams) KeptResourcesParams {
	return KeptResourcesParams{
		Kinds:           p.Kinds,
		ObjectIds:       p.ObjectIds,
		Hashes:          p.Hashes,
		Namespaces:      p.Namespaces,
		Metadatas:       p.Metadatas,
		Tags:            p.Tags,
		MaxAttempts:     p.MaxAttempts,
		Revive:          p.Revive,
		ProcessExisting: p.ProcessExisting,
	}
}

// arrayLiteral writes a Postgres text array. A set of arrays cannot be handed over as one array of arrays, because
// Postgres wants those to be of one length.
func arrayLiteral(values []string) string {
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	var b strings.Builder
	b.WriteByte('{')
	for i, v := range values {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteByte('"')
		b.WriteString(escape.Replace(v))
		b.WriteByte('"')
	}
	b.WriteByte('}')
	return b.String()
}
