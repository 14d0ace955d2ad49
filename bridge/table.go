package bridge

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/delta"
)

// TableConfig says which table the objects of a kind are the rows of. Only Table is required.
type TableConfig[T delta.Object] struct {
	// Table is the name of the table, Schema that of its schema. The table needs a primary key, or the index that is its replica identity.
	//
	// Schema defaults to public.
	Table, Schema string

	// Query has the objects be what a SELECT over the table gives, rather than its rows: with columns of other names, computed ones, those of other
	// tables, or a part of the rows only. A change of a row has the query be read for the key of that row. The query must give the columns of the
	// table's key, as they are and under their own names, and one row of each at most; a row of the table that it does not give is no object. It runs as the
	// role of Conn, and should find rows by the key with an index. It has no parameters, and no semicolon at its end.
	//
	// Changes of other tables that it reads are not seen: they count when the row itself changes, or the table is read again as a whole. That happens
	// by itself when the text of the query is another one than before.
	//
	// Defaults to the rows of the table.
	Query string

	// Map makes the object of a row. It may return [ErrNotObject] for a row that is none. Another error refuses the row ([delta.Client.Refused]), and not
	// the others. The object's ID has to be the text of the key of the row, for a key of several columns as [KeyID] joins them, unless the table has
	// REPLICA IDENTITY FULL. It is called again for the same row.
	//
	// Defaults to the fields of T: each is read from the column that its tag db names, or its tag json, or from the one of its own name, whose case and
	// underscores do not matter. What pgx reads into a type of Go, a field of that type takes. db:"-" is for a field of no column,
	// db:"name,optional" for one whose column need not be there. The ID of T may depend on nothing but the columns of the key, unless the table has
	// REPLICA IDENTITY FULL.
	Map func(row Row) (T, error)

	// Version has the whole table read again when it is another one than before: raise it when Map makes other objects of the same rows. Columns
	// and fields that come, go or change their type are noticed without it.
	Version int

	// Conn connects to the table's database, as a role that may replicate (and, unless Publication exists, owns the table and may create in the
	// database). It must be a direct connection, or one of a pooler that passes replication on.
	//
	// Defaults to how the client's pool connects.
	Conn *pgx.ConnConfig

	// BeforeConnect may change the configuration before each connection, such as a password that expires; see [cdc.Config].
	BeforeConnect func(ctx context.Context, config *pgx.ConnConfig) error

	// Publication and Slot name the publication and the replication slot. Both are made if they are not there. A table that is missing in a
	// publication that was made here is added to it; one of your own, which has no other name by chance, is left as it is. The slot is this
	// source's alone: another reader of it is ended.
	//
	// Default to names that are made of the kind's and the installation's.
	Publication, Slot string

	// ChunkSize is how many rows are read at a time when the table is read as a whole; see [cdc.BackfillConfig].
	//
	// Defaults to 5000.
	ChunkSize int

	// CheckInterval is how often it is looked whether the database answers, the table is still published, and a deletion that was withheld has
	// been approved. At least 100 milliseconds.
	//
	// Defaults to 5 seconds.
	CheckInterval time.Duration
}

const (
	defaultCheckInterval = 5 * time.Second
	minCheckInterval     = 100 * time.Millisecond
)

// WithDefaults returns a copy with every field set that was left at zero, but those whose defaults are only known to a client.
func (c TableConfig[T]) WithDefaults() TableConfig[T] {
	if c.Schema == "" {
		c.Schema = "public"
	}
	if c.CheckInterval == 0 {
		c.CheckInterval = defaultCheckInterval
	}
	return c
}

var slotName = regexp.MustCompile(`^[a-z0-9_]{0,63}$`)

// ConfigError is a field of a configuration that breaks its rule.
type ConfigError struct {
	// Field is the field, Value what it is, and Rule what it must be.
	Field, Value, Rule string
}

// Error names the field, the value and the rule.
func (e *ConfigError) Error() string { return fmt.Sprintf("%s is %q: it %s", e.Field, e.Value, e.Rule) }

func newInvalidError(field string, value any, rule string) error {
	return &ConfigError{Field: field, Value: fmt.Sprint(value), Rule: rule}
}

func (c TableConfig[T]) validate() error {
	for _, name := range []struct {
		field, value string
		empty        bool
	}{{"Table", c.Table, false}, {"Schema", c.Schema, false}, {"Publication", c.Publication, true}} {
		if (name.value == "" && !name.empty) || len(name.value) > 63 || strings.ContainsRune(name.value, 0) {
			return newInvalidError(name.field, name.value, "must be 1 to 63 bytes, none of them zero")
		}
	}
	switch {
	case !slotName.MatchString(c.Slot):
		return newInvalidError("Slot", c.Slot, "must be 1 to 63 of the characters a-z, 0-9 and _")
	case c.ChunkSize < 0 || c.ChunkSize > 100_000:
		return newInvalidError("ChunkSize", c.ChunkSize, "must be 1 to 100000 rows, or 0 for the default of 5000")
	case c.CheckInterval < minCheckInterval:
		return newInvalidError("CheckInterval", c.CheckInterval, "must be at least 100ms, or 0 for the default of 5s")
	}
	return nil
}

// Table has the objects of a kind be the rows of a table, and panics where [TableSafely] returns an error.
//
// The worker is a controller without an informer (see [delta.AddController]): it needs Work and ResourceTimeout, which [delta.WorkerDefaults] has, and may
// have the methods of the optional interfaces, such as a [delta.Finalizer] for rows that are deleted.
//
//   - The newest version of each row is informed. If a row is deleted, its resource is deleted and then finalized.
//   - First the table is read, beside the changes; then changes come within milliseconds of their commit. The code that writes the table need not know.
//   - The slot is confirmed only after what it has brought was committed. So nothing is lost by any crash.
//   - TRUNCATE, and a slot that was lost, have the whole table read again: resources whose rows are gone are deleted, unless they are suspiciously many
//     ([delta.ObjectSettings].MaxDeleted). Then they are withheld until somebody approves ([delta.Client.ApproveWithheld], `delta informs approve`).
//   - One client of all that are started runs it: see [delta.Source].
func Table[T delta.Object](controllers *delta.Controllers, worker delta.Worker[T], config TableConfig[T]) {
	if err := TableSafely(controllers, worker, config); err != nil {
		panic(err)
	}
}

// TableSafely is [Table], and returns an error where [delta.AddControllerSafely] or [delta.AddSourceSafely] would, where the worker lists objects, or for a
// configuration that breaks a rule ([*ConfigError]).
func TableSafely[T delta.Object](controllers *delta.Controllers, worker delta.Worker[T], config TableConfig[T]) error {
	config = config.WithDefaults()
	if err := config.validate(); err != nil {
		return fmt.Errorf("bridge: table: %w", err)
	}
	if _, err := newMapping[T](config.Map); err != nil {
		return fmt.Errorf("bridge: table: %w", err)
	}
	if worker == nil {
		return errors.New("bridge: table: the worker is nil")
	}
	if err := delta.AddControllerSafely(controllers, delta.Controller[T](workerOnly[T]{Worker: worker})); err != nil {
		return err
	}
	return delta.AddSourceSafely[T](controllers, &tableSource[T]{config: config})
}

// workerOnly is a controller that lists nothing.
type workerOnly[T delta.Object] struct {
	delta.Worker[T]
	delta.NoInformer[T]
}

// Unwrap shows the optional interfaces of the worker.
func (w workerOnly[T]) Unwrap() any { return w.Worker }

// tableSource is a table as a source.
type tableSource[T delta.Object] struct{ config TableConfig[T] }

// Name names the table.
func (s *tableSource[T]) Name() string {
	return "table " + s.config.Schema + "." + s.config.Table
}

// Run follows the table until ctx ends.
func (s *tableSource[T]) Run(ctx context.Context, feed *delta.Feed) error {
	r, err := s.openRun(ctx, feed)
	if err != nil {
		return err
	}
	defer r.close()
	for {
		err := r.followTable(ctx)
		if !errors.Is(err, cdc.ErrResyncNeeded) {
			return err
		}
		if err := r.dropLostSlot(ctx, err); err != nil {
			return err
		}
	}
}
