package db

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/chariot-giving/delta/delta/deltatype"
)

// answers are the results of a set, in its order. nil means that another transaction changed the row at that moment.
type answers []*deltatype.ObjectInformResult

// addRow sets the answer for a row. next is the index where the row before it left off: rows come in the order of the
// set, unless Postgres chose a plan that does not keep it.
func (a answers) addRow(set []*deltatype.ObjectInformParams, next int, r *Resource, existed, written bool) (int, error) {
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
	var refused error
	if !written {
		refused = checkNamespace(r, set[next])
	}
	if sent := set[next]; written || bytes.Equal(sent.Hash, r.Hash) {
		row.Hash, row.EncodedObject = sent.Hash, sent.EncodedObject // not as Postgres writes JSON
	}
	a[next] = &deltatype.ObjectInformResult{
		Resource: row, AlreadyExists: existed, Scheduled: written, Refused: refused,
		Stale: !written && refused == nil && isStale(set[next], r),
	}
	return next, nil
}

// moveWritten moves answers of rows that were written before a later statement failed to found, and returns the indexes
// that are still open: a second try would find written rows unchanged.
func (a answers) moveWritten(found []*deltatype.ObjectInformResult, open []int) []int {
	if a == nil {
		return open
	}
	left := open[:0]
	for i, place := range open {
		if a[i] != nil && a[i].Scheduled {
			found[place] = a[i]
			continue
		}
		left = append(left, place)
	}
	return left
}

// takeRows sets the answers for the rows that a statement has written.
func (a answers) takeRows(set []*deltatype.ObjectInformParams, rows []InformResourcesRow) (err error) {
	next := 0
	for i := range rows {
		row := (*InformResourceRow)(&rows[i]).toResource()
		if next, err = a.addRow(set, next, &row, row.Generation > 1, true); err != nil {
			return err
		}
	}
	return nil
}

// moveAnswered moves answers of compareWithRows to found, and returns what is still open. On nil nothing was answered.
func (a answers) moveAnswered(
	found []*deltatype.ObjectInformResult, open []int, asked []*deltatype.ObjectInformParams,
) ([]int, []*deltatype.ObjectInformParams) {
	if a == nil {
		return open, asked
	}
	left, leftOpen := asked[:0], open[:0]
	for i, place := range open {
		if a[i] != nil {
			found[place] = a[i]
			continue
		}
		left, leftOpen = append(left, asked[i]), append(leftOpen, place)
	}
	return leftOpen, left
}
