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

// Inform writes a set of objects: one statement, at most one write a row, and a second statement that reads the rows
// which needed no write, if there are any. Where an object is given twice the last one counts, and both get its result.
// Results are in the order of params.
func Inform(ctx context.Context, conn DBTX, params []deltatype.ObjectInformParams, options InformOptions) ([]*deltatype.ObjectInformResult, error) {
	return inform(ctx, conn, params, options, 1)
}

// InformRetrying is Inform outside a transaction: a statement that ends in a deadlock or a serialization failure, which leave
// nothing behind, is tried again.
func InformRetrying(ctx context.Context, conn DBTX, params []deltatype.ObjectInformParams, options InformOptions) ([]*deltatype.ObjectInformResult, error) {
	return inform(ctx, conn, params, options, maxInformRounds)
}

// inform tries each statement so often. What an earlier one has written counts, whatever becomes of those that follow it.
func inform(
	ctx context.Context, conn DBTX, params []deltatype.ObjectInformParams, options InformOptions, tries int,
) ([]*deltatype.ObjectInformResult, error) {
	set, places := unique(params)
	found := make([]*deltatype.ObjectInformResult, len(set))
	open := make([]int, len(set)) // places in the set
	for i := range open {
		open[i] = i
	}
	for round := 0; len(open) > 0; round++ {
		if round == maxInformRounds {
			first := set[open[0]]
			return nil, fmt.Errorf("%w: %s/%s and %d more", ErrInformContended, first.Kind, first.ResourceID, len(open)-1)
		}
		asked := make([]*deltatype.ObjectInformParams, len(open))
		for i, place := range open {
			asked[i] = set[place]
		}
		leases := lease(asked, options.Outbox)
		options.Outbox = nil // what is written in later rounds are few
		answers, err := informRows(ctx, conn, asked, options, &leases)
		if err != nil {
			leases.start(nil)
			if tries--; tries == 0 || !isRetryable(err) || !pause(ctx, time.Duration(maxInformRounds-tries)*10*time.Millisecond) {
				return nil, err
			}
			round--
			continue
		}
		leases.start(answers)
		left := open[:0]
		for i, place := range open {
			if found[place] = answers[i]; answers[i] == nil {
				left = append(left, place)
			}
		}
		open = left
	}

	results := make([]*deltatype.ObjectInformResult, len(params))
	for i, place := range places {
		results[i] = found[place]
	}
	return results, nil
}

// unique is a set in which each object is once, as it was given last, and where in it each of the given is. It is in one
// order for all writers, so that two sets that overlap wait for each other instead of deadlocking.
func unique(params []deltatype.ObjectInformParams) (set []*deltatype.ObjectInformParams, places []int) {
	order := make([]int, len(params))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return compareKeys(&params[a], &params[b]) })
	set, places = make([]*deltatype.ObjectInformParams, 0, len(params)), make([]int, len(params))
	for i, at := range order {
		if i > 0 && compareKeys(&params[at], set[len(set)-1]) == 0 {
			set[len(set)-1] = &params[at]
		} else {
			set = append(set, &params[at])
		}
		places[at] = len(set) - 1
	}
	return set, places
}

func compareKeys(a, b *deltatype.ObjectInformParams) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.ResourceID, b.ResourceID))
}

// answers are the results of a set, in its order. What has none was changed by others at that moment.
type answers []*deltatype.ObjectInformResult

// add puts a row where its object is in the set. next is where the row before it left off: rows come in the order of the set,
// unless Postgres has found a plan that does not keep it.
func (a answers) add(set []*deltatype.ObjectInformParams, next int, r Resource, existed, written bool) (int, error) {
	key := deltatype.ObjectInformParams{Kind: r.Kind, ResourceID: r.ObjectID}
	for next < len(set) && compareKeys(set[next], &key) < 0 {
		next++
	}
	if next == len(set) || compareKeys(set[next], &key) != 0 {
		at, there := slices.BinarySearchFunc(set, &key, compareKeys)
		if !there {
			return next, fmt.Errorf("Postgres answered with %s/%s, which was not asked for", r.Kind, r.ObjectID)
		}
		next = at
	}
	row, err := r.Row()
	if err != nil {
		return next, err
	}
	if sent := set[next]; written || bytes.Equal(sent.Hash, r.Hash) {
		row.Hash, row.EncodedObject = sent.Hash, sent.EncodedObject // not as Postgres writes JSON
	}
	a[next] = &deltatype.ObjectInformResult{Resource: row, AlreadyExists: existed, Scheduled: written}
	return next, nil
}

// informRows writes a set, and reads what there was nothing to write of.
func informRows(
	ctx context.Context, conn DBTX, set []*deltatype.ObjectInformParams, options InformOptions, leases *leases,
) (answers, error) {
	all := make(answers, len(set))
	if len(set) == 1 {
		return all, informRow(ctx, conn, set[0], options, all)
	}
	params := informParams(set, options)
	leases.apply(&params)
	written, err := New().InformResources(ctx, planned(conn, len(set)), params)
	if err != nil {
		return nil, err
	}
	next := 0
	for i := range written {
		row := InformResourceRow(written[i]).resource()
		if next, err = all.add(set, next, row, row.Generation > 1, true); err != nil {
			return nil, err
		}
	}
	if len(written) == len(set) {
		return all, nil
	}
	var left []*deltatype.ObjectInformParams
	for i, o := range set {
		if all[i] == nil {
			left = append(left, o)
		}
	}
	kept, err := New().KeptResources(ctx, planned(conn, len(left)), keptParams(informParams(left, options)))
	if err != nil {
		return nil, err
	}
	next = 0
	for i := range kept {
		if next, err = all.add(set, next, kept[i], true, false); err != nil {
			return nil, err
		}
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
func informRow(ctx context.Context, conn DBTX, object *deltatype.ObjectInformParams, options InformOptions, to answers) error {
	set := []*deltatype.ObjectInformParams{object}
	rows, err := New().InformResource(ctx, conn, informParam(object, options))
	if err != nil {
		return err
	}
	if len(rows) > 0 {
		row := rows[0].resource()
		_, err := to.add(set, 0, row, row.Generation > 1, true)
		return err
	}
	kept, err := New().GetResource(ctx, conn, GetResourceParams{Kind: object.Kind, ObjectID: object.ResourceID})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	left := kept.Resource.State == deltatype.ResourceStateDeleted && !options.Revive
	if !left && !asGiven(kept.Resource, object) {
		return nil // it changed between the two statements
	}
	_, err = to.add(set, 0, kept.Resource, true, false)
	return err
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

// pause waits, and tells whether ctx goes on.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
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

// informParams are the arrays of a set. A column that no object gives is left out: Postgres fills it with nulls.
func informParams(set []*deltatype.ObjectInformParams, options InformOptions) InformResourcesParams {
	n := len(set)
	p := InformResourcesParams{
		Kinds:              make([]string, n),
		ObjectIds:          make([]string, n),
		Objects:            make([][]byte, n),
		Hashes:             make([][]byte, n),
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
		p.Priorities[i] = priority(o, options)
		give(&p.Namespaces, n, i, o.Namespace, o.Namespace != "")
		give(&p.Metadatas, n, i, string(o.Metadata), len(o.Metadata) > 0)
		give(&p.MaxAttempts, n, i, o.MaxAttempts, o.MaxAttempts != 0)
		if o.Tags != nil {
			give(&p.Tags, n, i, arrayLiteral(o.Tags), true)
		}
		if o.CreatedAt != nil {
			give(&p.ExternalCreatedAts, n, i, *o.CreatedAt, true)
		}
	}
	return p
}

// give puts a value that is given into a column of n, which is made for the first.
func give[T any](column *[]T, n, i int, value T, given bool) {
	if !given {
		return
	}
	if *column == nil {
		*column = make([]T, n)
	}
	(*column)[i] = value
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
