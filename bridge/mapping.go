package bridge

import (
	"errors"
	"fmt"
	"reflect"
	"runtime/debug"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/delta"
)

// mapping makes objects of rows.
type mapping[T delta.Object] struct {
	fields []field
	custom func(Row) (T, error)
	types  *pgtype.Map
	// source is in words what relation is of.
	source string
	// columns are those of the fields in the table as it was last, whose description is relation; -1 for one that has none.
	relation *cdc.Relation
	columns  []int
}

func newMapping[T delta.Object](custom func(Row) (T, error)) (*mapping[T], error) {
	m := &mapping[T]{custom: custom, types: pgtype.NewMap(), source: "table"}
	if custom != nil {
		return m, nil
	}
	var err error
	m.fields, err = fieldsOf(reflect.TypeFor[T]())
	return m, err
}

// columnError is a table that lacks what the program reads. Every row would be refused: the source fails instead, and goes on where it stands when the table,
// or the program, has changed.
type columnError struct{ of, field, column string }

func (e *columnError) Error() string {
	return fmt.Sprintf("%s has no column %q, which the field %s is read from: add the column, tag the field with the column's name (db:%q), with db:\"-\" if it is of "+
		"no column, or with db:%q if the column need not be there", e.of, e.column, e.field, e.column, e.column+",optional")
}

// useRelation finds the columns of the fields in a table as it is now.
func (m *mapping[T]) useRelation(relation *cdc.Relation) error {
	if m.relation == relation {
		return nil
	}
	columns := make([]int, len(m.fields))
	for i, f := range m.fields {
		columns[i] = f.findColumn(relation)
		if columns[i] < 0 && !f.optional {
			return &columnError{m.source + " " + relation.Name(), f.name, f.column}
		}
	}
	m.relation, m.columns = relation, columns
	return nil
}

// describeShape describes what is read from which columns: when it changes, rows that were read before have to be read again.
func (m *mapping[T]) describeShape(relation *cdc.Relation) (string, error) {
	if err := m.useRelation(relation); err != nil {
		return "", err
	}
	var b strings.Builder
	if m.custom != nil {
		for _, c := range relation.Columns {
			fmt.Fprintf(&b, "%s:%d ", c.Name, c.TypeOID)
		}
		return b.String(), nil
	}
	for i, f := range m.fields {
		if at := m.columns[i]; at >= 0 {
			fmt.Fprintf(&b, "%s=%s:%d ", f.name, relation.Columns[at].Name, relation.Columns[at].TypeOID)
		}
	}
	return b.String(), nil
}

// makeObject makes the object of a row. errUnchanged is in the error of a row that has to be read from the table, and ErrNotObject in that of one that is none.
func (m *mapping[T]) makeObject(relation *cdc.Relation, values []cdc.Value) (object T, err error) {
	if err := m.useRelation(relation); err != nil {
		return object, err
	}
	unchanged := false
	row := Row{relation: relation, values: values, types: m.types, unchanged: &unchanged}
	if m.custom != nil {
		object, err = callMap(m.custom, row)
		if unchanged {
			err = errUnchanged
		}
		return object, err
	}
	return m.scanColumns(row, false)
}

// scanColumns reads columns into the fields of an object: all, or those of the key.
func (m *mapping[T]) scanColumns(row Row, keyOnly bool) (T, error) {
	into, object := newObject[T]()
	for i, f := range m.fields {
		at := m.columns[i]
		if at < 0 || keyOnly && !row.relation.Columns[at].Key {
			continue
		}
		if err := row.scanColumn(at, fieldAt(into, f.index)); err != nil {
			return object, fmt.Errorf("field %s: %w", f.name, err)
		}
	}
	if reflect.TypeFor[T]().Kind() != reflect.Pointer {
		object = into.Interface().(T)
	}
	return object, nil
}

// newObject makes a struct that can be set, and the object if that is a pointer to it.
func newObject[T any]() (into reflect.Value, object T) {
	if t := reflect.TypeFor[T](); t.Kind() == reflect.Pointer {
		made := reflect.New(t.Elem())
		return made.Elem(), made.Interface().(T)
	}
	return reflect.New(reflect.TypeFor[T]()).Elem(), object
}

// fieldAt is a pointer to a field, within embedded structs that are made for it.
func fieldAt(in reflect.Value, index []int) any {
	for i, at := range index {
		if i > 0 && in.Kind() == reflect.Pointer {
			if in.IsNil() {
				in.Set(reflect.New(in.Type().Elem()))
			}
			in = in.Elem()
		}
		in = in.Field(at)
	}
	return in.Addr().Interface()
}

// catchPanic is deferred around code of the user's. It makes an error of a panic.
func catchPanic(err *error) {
	if v := recover(); v != nil {
		*err = &delta.PanicError{Value: v, Stack: string(debug.Stack())}
	}
}

// callMap calls a Map of the user's. A panic is an error.
func callMap[T any](custom func(Row) (T, error), row Row) (object T, err error) {
	defer catchPanic(&err)
	return custom(row)
}

// keyID is the id of the object of a row of which only the key is known. Where the server sends whole rows, it is that of the whole object.
func (m *mapping[T]) keyID(relation *cdc.Relation, values []cdc.Value) (id string, err error) {
	if relation.Identity == cdc.IdentityFull {
		object, err := m.makeObject(relation, values)
		if err != nil {
			return "", err
		}
		return objectID(object)
	}
	if m.custom != nil {
		return keyText(relation, values), nil
	}
	if err := m.useRelation(relation); err != nil {
		return "", err
	}
	unchanged := false
	object, err := m.scanColumns(Row{relation: relation, values: values, types: m.types, unchanged: &unchanged}, true)
	if err != nil {
		return "", err
	}
	return objectID(object)
}

// objectID asks an object for its id. A panic is an error.
func objectID(object delta.Object) (id string, err error) {
	defer catchPanic(&err)
	return object.ID(), nil
}

// KeyID returns the id of the object with these values of its key, in the order of the columns in the table: a single value as it is, several with commas between them. A comma
// or backslash in one of several has a backslash before it, so that no two keys have the same id.
func KeyID(values ...string) string {
	if len(values) == 1 {
		return values[0]
	}
	escaped := make([]string, len(values))
	for i, value := range values {
		escaped[i] = keyEscapes.Replace(value)
	}
	return strings.Join(escaped, ",")
}

var keyEscapes = strings.NewReplacer(`\`, `\\`, ",", `\,`)

// keyText is the key of a row as [KeyID] has it.
func keyText(relation *cdc.Relation, values []cdc.Value) string {
	var parts []string
	for i, c := range relation.Columns {
		if c.Key && i < len(values) {
			parts = append(parts, values[i].String())
		}
	}
	return KeyID(parts...)
}

// checkID refuses an object if its id depends on more than the key of its row, because only the key of a deleted row is known.
func (m *mapping[T]) checkID(relation *cdc.Relation, values []cdc.Value, object T) error {
	if relation.Identity == cdc.IdentityFull {
		return nil
	}
	id, err := objectID(object)
	if err != nil {
		return err
	}
	ofKey, err := m.keyID(relation, values)
	if err != nil {
		return fmt.Errorf("the id by the key of the row: %w", err)
	}
	if id != ofKey {
		return fmt.Errorf("its ID is %q, and by the key of the row it would be %q: an ID must say nothing but the key, which is all that is known of a row that is deleted. "+
			"Otherwise the table needs REPLICA IDENTITY FULL", id, ofKey)
	}
	return nil
}

// isWhole reports whether an error is of the table as a whole, rather than of one row.
func isWhole(err error) bool { return errors.As(err, new(*columnError)) }
