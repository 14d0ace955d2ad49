package bridge

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/chariot-giving/delta/cdc"
)

// ErrNotObject is returned by a [TableConfig].Map for a row that is no object, such as one that is marked deleted. If the row has a resource, that is
// deleted.
var ErrNotObject = errors.New("the row is no object")

// Row is a row of a table, as [TableConfig].Map is given it.
type Row struct {
	relation *cdc.Relation
	values   []cdc.Value
	types    *pgtype.Map
	// unchanged is set when a value was asked for that the server has not sent.
	unchanged *bool
}

// errUnchanged has a row read from the table.
var errUnchanged = errors.New("the server has not sent the value, which the update has left alone")

// Columns are the names of the columns, in the order of the table.
func (r Row) Columns() []string {
	names := make([]string, len(r.relation.Columns))
	for i, c := range r.relation.Columns {
		names[i] = c.Name
	}
	return names
}

// Text is the value of a column as Postgres prints it; ok is false for NULL, and for a column that is not there.
func (r Row) Text(column string) (text string, ok bool) {
	i := r.relation.Index(column)
	if i < 0 || i >= len(r.values) {
		return "", false
	}
	value := r.values[i]
	if value.State == cdc.ValueUnchanged {
		*r.unchanged = true
	}
	return value.Text, value.State == cdc.ValuePresent
}

// Scan reads the value of a column into a variable, as pgx does. NULL needs a variable that can be nil.
func (r Row) Scan(column string, into any) error {
	i := r.relation.Index(column)
	if i < 0 || i >= len(r.values) {
		return fmt.Errorf("table %s has no column %q", r.relation.Name(), column)
	}
	return r.scanColumn(i, into)
}

func (r Row) scanColumn(i int, into any) error {
	column, value := &r.relation.Columns[i], r.values[i]
	var text []byte
	switch value.State {
	case cdc.ValueUnchanged:
		*r.unchanged = true
		return fmt.Errorf("column %q: %w", column.Name, errUnchanged)
	case cdc.ValuePresent:
		text = []byte(value.Text)
	case cdc.ValueNull:
	}
	if err := r.types.Scan(column.TypeOID, pgtype.TextFormatCode, text, into); err != nil {
		if text == nil {
			return fmt.Errorf("column %q is NULL, and a %T has no nil: use a pointer", column.Name, reflect.ValueOf(into).Elem().Interface())
		}
		return fmt.Errorf("column %q: %w", column.Name, err)
	}
	return nil
}

// field is where the value of a column goes in a struct.
type field struct {
	index    []int
	name     string
	column   string
	tagged   bool // the column was named by a tag
	optional bool
}

// fieldsOf finds the columns that the fields of a struct name: by the tag db, by the tag json, or by the name of the field, without regard to case and
// underscores. db:"-" is for a field without a column, and db:"name,optional" for one with a column that need not exist.
func fieldsOf(t reflect.Type) ([]field, error) {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil, fmt.Errorf("objects of type %s must be structs, or pointers to them, to be read by column: give TableConfig.Map", t)
	}
	var all []field
	for _, f := range reflect.VisibleFields(t) {
		tag, tagged := f.Tag.Lookup("db")
		if !f.IsExported() || tag == "-" || (f.Anonymous && !tagged && f.Type.Kind() == reflect.Struct) {
			continue
		}
		column, options, _ := strings.Cut(tag, ",")
		if !tagged || column == "" {
			column, _, _ = strings.Cut(f.Tag.Get("json"), ",")
			tagged = column != "" && column != "-"
		}
		if !tagged {
			column = f.Name
		}
		all = append(all, field{index: f.Index, name: f.Name, column: column, tagged: tagged, optional: options == "optional"})
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s has no exported field that a column could be read into", t)
	}
	return all, nil
}

// findColumn finds the column of a field; -1 if there is none.
func (f field) findColumn(relation *cdc.Relation) int {
	if i := relation.Index(f.column); i >= 0 || f.tagged {
		return i
	}
	plain := func(s string) string { return strings.ToLower(strings.ReplaceAll(s, "_", "")) }
	for i := range relation.Columns {
		if plain(relation.Columns[i].Name) == plain(f.column) {
			return i
		}
	}
	return -1
}
