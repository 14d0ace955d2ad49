package cdc

import "time"

// Kind is what happened.
type Kind string

// The kinds of changes.
const (
	// KindRead is a row as a snapshot found it.
	KindRead Kind = "read"
	// KindInsert is a new row.
	KindInsert Kind = "insert"
	// KindUpdate is a changed row.
	KindUpdate Kind = "update"
	// KindDelete is a deleted row.
	KindDelete Kind = "delete"
	// KindTruncate is a table that was emptied.
	KindTruncate Kind = "truncate"
	// KindMessage is what pg_logical_emit_message wrote.
	KindMessage Kind = "message"
	// KindSchema is a table whose shape has changed, before its first change under the new one. Only with [Config.SchemaChanges].
	KindSchema Kind = "schema"
)

// Change is one row, one truncated table or one message. It may be kept: nothing writes to it later.
type Change struct {
	Kind Kind
	// Relation is the table, as it was when the change was made. It is nil for [KindMessage].
	Relation *Relation
	// New is the row after the change, in the order of Relation.Columns. It is nil where there is none.
	New []Value
	// Old is the row before it. A server sends it where the table's replica identity is FULL. It is nil otherwise.
	Old []Value
	// Key holds the columns of the replica identity before the change, the others being null: of a deleted row, and of an
	// updated one whose key has changed. It is nil otherwise, and where Old is there.
	Key []Value
	// LSN is where the change stands in the log. Several changes can stand at the same position.
	LSN LSN
	// XID is the transaction, or the subtransaction where the server streams, that made the change. It is zero for
	// [KindRead], and for messages outside of transactions.
	XID uint32
	// Truncate says how, for [KindTruncate].
	Truncate Truncate
	// Message is there for [KindMessage].
	Message *Message
	// Schema is there for [KindSchema]: how Relation differs from what it was.
	Schema *SchemaChange
}

// Truncate are the options of a TRUNCATE.
type Truncate struct {
	Cascade         bool
	RestartIdentity bool
}

// Message is what pg_logical_emit_message wrote.
type Message struct {
	// Transactional tells a message that comes with its transaction from one that came at once.
	Transactional bool
	Prefix        string
	Content       []byte
}

// KeyValues are the values of the key columns that the row had before the change, and has after it if it is new: what
// names the row. It is nil where the table has no replica identity, and for messages and truncates.
func (c *Change) KeyValues() []Value {
	row := c.New
	switch {
	case c.Old != nil:
		row = c.Old
	case c.Key != nil:
		row = c.Key
	}
	if c.Relation == nil || row == nil {
		return nil
	}
	var key []Value
	for i, column := range c.Relation.Columns {
		if column.Key && i < len(row) {
			key = append(key, row[i])
		}
	}
	return key
}

// Relation is a table, as the server describes it. It is not to be changed.
type Relation struct {
	OID      uint32
	Schema   string
	Table    string
	Identity Identity
	Columns  []Column
}

// Name is the schema and the table with a dot between them, not quoted.
func (r *Relation) Name() string { return r.Schema + "." + r.Table }

// Index is the place of a column in Columns, -1 if there is none of that name.
func (r *Relation) Index(column string) int {
	for i := range r.Columns {
		if r.Columns[i].Name == column {
			return i
		}
	}
	return -1
}

// Identity is a table's replica identity: which columns the server sends of the row before a change.
type Identity byte

// The replica identities.
const (
	IdentityDefault Identity = 'd' // the primary key
	IdentityNothing Identity = 'n'
	IdentityFull    Identity = 'f' // all columns
	IdentityIndex   Identity = 'i' // those of an index
)

// Column is one of a table.
type Column struct {
	Name string
	// Type is the name of the type, for one that is not built in with its schema; for a domain, that of the type it is made of.
	// It is empty for one that the server has not named.
	Type    string
	TypeOID uint32
	// Modifier is the type's, such as a length; -1 if it has none.
	Modifier int32
	// Key tells whether the column belongs to the replica identity. With [IdentityFull] all do.
	Key bool
}

// State tells whether a value is there.
type State byte

// The states of a value.
const (
	// Null is SQL's NULL, or a column that does not belong to a key.
	Null State = iota
	// Present is a value.
	Present
	// Unchanged is a large value, stored beside the table, that an update has left alone. The server does not send it.
	Unchanged
)

// Value is one column of a row. The zero Value is null.
type Value struct {
	State State
	// Text is the value as Postgres prints it: dates in ISO form, times with a zone in UTC, bytea in hex, floats so that
	// they can be read back exactly. It is the same in snapshots and in streams.
	Text string
}

// String is the text, NULL or (unchanged): for people to read.
func (v Value) String() string {
	switch v.State {
	case Present:
		return v.Text
	case Unchanged:
		return "(unchanged)"
	default:
		return "NULL"
	}
}

// postgresEpoch is where the server's times begin.
var postgresEpoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
