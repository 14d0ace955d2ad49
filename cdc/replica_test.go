package cdc_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/chariot-giving/delta/cdc"
)

// replica is a table rebuilt from changes. It is strict: a change that does not fit its rows is an error.
type replica struct {
	keys []string
	rows map[string][]cdc.Value
}

func newReplica(keys ...string) *replica { return &replica{keys: keys, rows: map[string][]cdc.Value{}} }

func (r *replica) key(c *cdc.Change, row []cdc.Value) string {
	var key []string
	for _, k := range r.keys {
		key = append(key, fmt.Sprintf("%q", row[c.Relation.Index(k)].Text))
	}
	return strings.Join(key, ",")
}

func (r *replica) apply(c *cdc.Change) error {
	before := c.New
	switch {
	case c.Old != nil:
		before = c.Old
	case c.Key != nil:
		before = c.Key
	}
	switch c.Kind {
	case cdc.KindRead, cdc.KindInsert:
		key := r.key(c, c.New)
		if _, exists := r.rows[key]; exists {
			return fmt.Errorf("%s of %s, which exists", c.Kind, key)
		}
		r.rows[key] = c.New
	case cdc.KindUpdate:
		key := r.key(c, before)
		old, exists := r.rows[key]
		if !exists {
			return fmt.Errorf("update of %s, which does not exist", key)
		}
		delete(r.rows, key)
		row := slices.Clone(c.New)
		for i := range row {
			if row[i].State == cdc.ValueUnchanged {
				row[i] = old[i]
			}
		}
		key = r.key(c, row)
		if _, exists := r.rows[key]; exists {
			return fmt.Errorf("update to %s, which exists", key)
		}
		r.rows[key] = row
	case cdc.KindDelete:
		key := r.key(c, before)
		if _, exists := r.rows[key]; !exists {
			return fmt.Errorf("delete of %s, which does not exist", key)
		}
		delete(r.rows, key)
	case cdc.KindTruncate:
		clear(r.rows)
	case cdc.KindMessage, cdc.KindSchema:
	}
	return nil
}

// lines returns the rows as sorted text.
func (r *replica) lines() []string {
	lines := make([]string, 0, len(r.rows))
	for row := range maps.Values(r.rows) {
		lines = append(lines, formatRow(row))
	}
	slices.Sort(lines)
	return lines
}

func formatRow(row []cdc.Value) string {
	var parts []string
	for _, v := range row {
		parts = append(parts, fmt.Sprintf("%d:%s", v.State, v.Text))
	}
	return strings.Join(parts, "|")
}
