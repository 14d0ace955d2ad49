package db

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/chariot-giving/delta/delta/deltatype"
)

// InformOptions are the options of informing a set of objects.
type InformOptions struct {
	// DefaultMaxAttempts is for new rows of objects without MaxAttempts.
	DefaultMaxAttempts int16
	// DefaultPriority is the priority of a new generation of objects without Priority.
	DefaultPriority int16
	// Revive schedules degraded, deleted and unknown resources even if their object did not change.
	Revive bool
	// ProcessExisting schedules resources with an unchanged object.
	ProcessExisting bool
	// Notify wakes the dispatchers of each kind with due rows when the transaction commits.
	Notify bool
	// LockTimeout bounds the wait for each lock; 0 leaves it to the database. Only for a set outside a transaction.
	LockTimeout time.Duration
	// Coder encodes objects for storage; nil stores them as they are.
	Coder *Coder
	// Pass is the claim of the complete listing that informs, if one does: it records itself what it has listed.
	Pass *string
}

// ErrInformContended is returned when other transactions kept changing the same rows.
var ErrInformContended = errors.New("rows kept changing under concurrent informs")

// maxInformRounds bounds how often a set is tried. Each round settles every row that no other transaction changed at
// that moment.
const maxInformRounds = 10

// Inform writes a set of objects: one statement for each page of them, with at most one write for each row, and as many
// statements that read the rows that needed no write, if there are any. Where an object is given twice the last one
// counts, unless it is older, and both get its result. Results are in the order of params.
//
// Objects that compare themselves are compared first, with rows that another statement has read. If such a row has
// changed by the time of the write, it is compared again.
func Inform(ctx context.Context, conn DBTX, params []deltatype.ObjectInformParams, options InformOptions) ([]*deltatype.ObjectInformResult, error) {
	return informSet(ctx, conn, params, options, 1)
}

// InformRetrying is Inform outside a transaction: it repeats a statement that ends in a deadlock or a serialization
// failure, because neither leaves anything behind. With a LockTimeout, results are nil for objects with locked rows
// that only had notes to write.
func InformRetrying(ctx context.Context, conn DBTX, params []deltatype.ObjectInformParams, options InformOptions) ([]*deltatype.ObjectInformResult, error) {
	return informSet(ctx, conn, params, options, maxInformRounds)
}

// informSet tries each statement so often. Pages that were written count even if a later one fails.
func informSet(
	ctx context.Context, conn DBTX, params []deltatype.ObjectInformParams, options InformOptions, tries int,
) ([]*deltatype.ObjectInformResult, error) {
	set, places, older := sortUnique(params)
	found := make([]*deltatype.ObjectInformResult, len(set))
	if err := options.Coder.Agree(ctx, conn); err != nil {
		return nil, err
	}
	if err := checkCycles(ctx, conn, set); err != nil {
		return nil, err
	}
	plain := set
	set, err := options.Coder.encodeSet(ctx, plain)
	if err != nil {
		return nil, err
	}
	open := make([]int, len(set)) // indexes in the set
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
		seen, err := compareWithRows(ctx, conn, asked, options.Coder)
		if err != nil {
			return nil, err
		}
		if open, asked = seen.moveAnswered(found, open, asked); len(open) == 0 {
			break
		}
		answers, err := informRows(ctx, conn, asked, options)
		if err != nil {
			if tries--; tries == 0 || !IsContended(err) || !sleepFor(ctx, time.Duration(maxInformRounds-tries)*10*time.Millisecond) {
				return nil, err
			}
			round--
			open = answers.moveWritten(found, open)
			continue
		}
		left := open[:0]
		for i, place := range open {
			if found[place] = answers[i]; answers[i] == nil {
				left = append(left, place)
			}
		}
		open = left
	}

	options.Coder.decodeResults(ctx, found, set, plain)
	results := make([]*deltatype.ObjectInformResult, len(params))
	for i, place := range places {
		switch results[i] = found[place]; {
		case results[i] == unnoted:
			results[i] = nil
		case older[i]:
			newer := found[place]
			results[i] = &deltatype.ObjectInformResult{
				Resource: newer.Resource, AlreadyExists: newer.AlreadyExists, Refused: newer.Refused, Stale: newer.Refused == nil,
			}
		}
	}
	return results, nil
}

// sortUnique returns a set without duplicates: it keeps the last object given, unless it is older. places has the index in the
// set for each given object, and older reports those that are older. All writers use the same order, so that two
// overlapping sets wait for each other instead of deadlocking.
func sortUnique(params []deltatype.ObjectInformParams) (set []*deltatype.ObjectInformParams, places []int, older []bool) {
	order := make([]int, len(params))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return compareKeys(&params[a], &params[b]) })
	set, places, older = make([]*deltatype.ObjectInformParams, 0, len(params)), make([]int, len(params)), make([]bool, len(params))
	for i, at := range order {
		switch {
		case i == 0 || compareKeys(&params[at], set[len(set)-1]) != 0:
			set = append(set, &params[at])
		case isOlder(&params[at], set[len(set)-1]):
			older[at] = true
		default:
			set[len(set)-1] = &params[at]
		}
		places[at] = len(set) - 1
	}
	return set, places, older
}

func compareKeys(a, b *deltatype.ObjectInformParams) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.ResourceID, b.ResourceID))
}

// informRows writes a set, and reads the rows that needed no write. With an error it still returns the answers of rows
// that were written; nil if none was.
func informRows(ctx context.Context, conn DBTX, set []*deltatype.ObjectInformParams, options InformOptions) (answers, error) {
	all := make(answers, len(set))
	if len(set) == 1 {
		return all, informRow(ctx, conn, set[0], options, all)
	}
	written, err := writeSet(ctx, conn, set, options, all)
	if err != nil {
		return nil, err
	}
	if written == len(set) {
		return all, nil
	}
	var left []*deltatype.ObjectInformParams
	for i, o := range set {
		if all[i] == nil {
			left = append(left, o)
		}
	}
	for page := range slices.Chunk(left, informPage) {
		kept, err := New().KeptResources(ctx, Planned(conn, len(page)), keptParams(informParams(page, options)))
		if err != nil {
			return all, err
		}
		next := 0
		for i := range kept {
			if next, err = all.addRow(set, next, &kept[i], true, false); err != nil {
				return all, err
			}
		}
	}
	if err := raiseWaiting(ctx, conn, set, options, all); err != nil {
		return all, err
	}
	listed, err := findListed(ctx, conn, set, all, options)
	if err != nil {
		return all, err
	}
	return all, noteUnchanged(ctx, conn, set, options, all, listed)
}

// raiseWaiting raises the priority of waiting rows that a live inform left unchanged to that of the inform. It never
// lowers one. An informer raises none, because no caller waits for its objects.
func raiseWaiting(ctx context.Context, conn DBTX, set []*deltatype.ObjectInformParams, options InformOptions, found answers) error {
	if !options.Revive {
		return nil
	}
	var p RaisePrioritiesParams
	raised := map[int64]*deltatype.ResourceRow{}
	for i, o := range set {
		answer, wanted := found[i], priorityOf(o, options)
		left := answer == nil || answer.Scheduled || answer.Stale || answer.Refused != nil
		if left || !isWaiting(answer.Resource.State) || answer.Resource.Priority <= int(wanted) {
			continue
		}
		p.Ids, p.Priorities = append(p.Ids, answer.Resource.ID), append(p.Priorities, wanted)
		raised[answer.Resource.ID] = answer.Resource
	}
	if len(p.Ids) == 0 {
		return nil
	}
	rows, err := New().RaisePriorities(ctx, Planned(conn, len(p.Ids)), p)
	for _, row := range rows {
		raised[row.ID].Priority = int(row.Priority)
	}
	return err
}

// informPage is how many objects one statement takes. A larger set takes several in one transaction: while Postgres
// writes a page, the rows of the page before it are read.
const informPage = 2048

// informPageBytes bounds the objects of one statement together, unless a single one is larger.
const informPageBytes = 8 << 20

// pageSize returns how many objects of a set one statement takes.
func pageSize(set []*deltatype.ObjectInformParams) (n int) {
	for bytes := 0; n < min(len(set), informPage); n++ {
		if bytes += len(set[n].EncodedObject); bytes > informPageBytes && n > 0 {
			break
		}
	}
	return n
}

// writeSet writes all of a set or nothing, and returns how many rows it wrote.
func writeSet(
	ctx context.Context, conn DBTX, set []*deltatype.ObjectInformParams, options InformOptions, all answers,
) (written int, err error) {
	if pool, ok := conn.(interface {
		BeginTx(ctx context.Context, options pgx.TxOptions) (pgx.Tx, error)
	}); ok && pageSize(set) < len(set) {
		if _, within := conn.(pgx.Tx); !within {
			// All statements of Delta are written for this level, whatever the role or the database has by default.
			err := pgx.BeginTxFunc(ctx, pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) (err error) {
				written, err = writeSet(ctx, tx, set, options, all)
				return err
			})
			return written, err
		}
	}
	var taking errgroup.Group
	taking.SetLimit(1) // one page waits at most, so that memory has a bound
	for from, to := 0, 0; from < len(set) && err == nil; from = to {
		to = from + pageSize(set[from:])
		params := informParams(set[from:to], options)
		var rows []InformResourcesRow
		if rows, err = New().InformResources(ctx, Planned(conn, to-from), params); err == nil {
			written += len(rows)
			taking.Go(func() error { return all[from:to].takeRows(set[from:to], rows) })
		}
	}
	if takeErr := taking.Wait(); err == nil {
		err = takeErr
	}
	return written, err
}

// informRow writes one object, or reads its row if it needed no write.
func informRow(ctx context.Context, conn DBTX, object *deltatype.ObjectInformParams, options InformOptions, to answers) error {
	set := []*deltatype.ObjectInformParams{object}
	rows, err := New().InformResource(ctx, conn, informParam(object, options))
	if err != nil {
		return err
	}
	if len(rows) > 0 {
		row := rows[0].toResource()
		_, err := to.addRow(set, 0, &row, row.Generation > 1, true)
		return err
	}
	kept, err := New().KeptResource(ctx, conn, KeptResourceParams{Kind: object.Kind, ObjectID: object.ResourceID, OwnPass: options.Pass})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	if checkNamespace(&kept.Resource, object) != nil {
		_, err = to.addRow(set, 0, &kept.Resource, true, false)
		return err
	}
	isAsSeen := object.ExpectedHash == nil || bytes.Equal(object.ExpectedHash, kept.Resource.Hash)
	if !isAsSeen || needsWrite(&kept.Resource, object, options) {
		return nil // it changed between the two statements
	}
	if _, err = to.addRow(set, 0, &kept.Resource, true, false); err != nil {
		return err
	}
	if err := raiseWaiting(ctx, conn, set, options, to); err != nil {
		return err
	}
	return noteUnchanged(ctx, conn, set, options, to, map[listedShard]bool{{object.Kind, ""}: kept.Listing})
}
