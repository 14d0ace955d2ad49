package cdc

import "time"

// Kind is the kind of a [Change].
type Kind string

// The kinds of changes.
const (
	// KindRead is a row that a snapshot or a backfill has read.
	KindRead Kind = "read"
	// KindInsert is a new row.
	KindInsert Kind = "insert"
	// KindUpdate is a changed row.
	KindUpdate Kind = "update"
	// KindDelete is a deleted row.
	KindDelete Kind = "delete"
	// KindTruncate empties a table.
	KindTruncate Kind = "truncate"
	// KindMessage is a logical message, written by pg_logical_emit_message.
	KindMessage Kind = "message"
	// KindSchema is a changed table definition, before the first change under it. Only with [Config.SchemaChanges].
	KindSchema Kind = "schema"
)

// Change is one row, one truncated table or one message. You may keep it, because nothing writes to it later.
type Change struct {
	Kind Kind
	// Relation is the table as it was defined when the change was made. It is nil for [KindMessage].
	Relation *Relation
	// New is the row after the change, in the order of Relation.Columns. It is nil if there is none.
	New []Value
	// Old is the row before the change. The server sends it only if the table's replica identity is FULL; otherwise it
	// is nil.
	Old []Value
	// Key holds the replica identity's columns before the change, and null for all others. It is set for a deleted row,
	// and for an update that changes the key. It is nil otherwise, and if Old is set.
	Key []Value
	// LSN is the position of the change in the log. Several changes can be at the same position.
	LSN LSN
	// XID is the transaction that made the change, or its subtransaction if the server streams. It is zero for
	// [KindRead], and for messages outside of transactions.
	XID uint32
	// Truncate holds the options of a [KindTruncate].
	Truncate Truncate
	// Message is set for [KindMessage].
	Message *Message
	// Schema is set for [KindSchema]: how Relation differs from its previous definition.
	Schema *SchemaChange
}

// Truncate holds the options of a TRUNCATE.
type Truncate struct {
	Cascade         bool
	RestartIdentity bool
}

// Message is a logical message, written by pg_logical_emit_message.
type Message struct {
	// Transactional reports whether the message was delivered with its transaction, and not at once.
	Transactional bool
	Prefix        string
	Content       []byte
}

// KeyValues returns the values of the key columns, which identify the row: those before the change, or those of a new
// row. It is nil if the table has no replica identity, and for messages and truncates.
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

// Relation is a table as the server describes it. Do not modify it.
type Relation struct {
	OID      uint32
	Schema   string
	Table    string
	Identity Identity
	Columns  []Column
}

// Name returns the schema and the table with a dot between them, not quoted.
func (r *Relation) Name() string { return r.Schema + "." + r.Table }

// Index returns the index of a column in Columns, -1 if there is no column of that name.
func (r *Relation) Index(column string) int {
	for i := range r.Columns {
		if r.Columns[i].Name == column {
			return i
		}
	}
	return -1
}

// Identity is a table's replica identity: the columns of the old row that the server sends with a change.
type Identity byte

// The replica identities.
const (
	IdentityDefault Identity = 'd' // the primary key
	IdentityNothing Identity = 'n'
	IdentityFull    Identity = 'f' // all columns
	IdentityIndex   Identity = 'i' // the columns of an index
)

// Column is a column of a table.
type Column struct {
	Name string
	// Type is the name of the type, with its schema unless it is built in. For a domain it is the base type. It is
	// empty if the server has not named the type.
	Type    string
	TypeOID uint32
	// Modifier is the type modifier, such as a length; -1 if there is none.
	Modifier int32
	// Key reports whether the column belongs to the replica identity. With [IdentityFull] all columns do.
	Key bool
}

// ValueState reports whether a value is present.
type ValueState byte

// The states of a value.
const (
	// ValueNull is SQL's NULL, or a column that does not belong to the key.
	ValueNull ValueState = iota
	// ValuePresent is a value.
	ValuePresent
	// ValueUnchanged is a large value, stored out of line (TOAST), that an update has not changed. The server does not send
	// it.
	ValueUnchanged
)

// Value is one column of a row. The zero Value is null.
type Value struct {
	State ValueState
	// Text is the value as Postgres prints it: dates in ISO form, times with a zone in UTC, bytea in hex, and floats
	// with enough digits to be read back exactly. It is the same in snapshots and in streams.
	Text string
}

// String returns the text, NULL or (unchanged), for people to read.
func (v Value) String() string {
	switch v.State {
	case ValuePresent:
		return v.Text
	case ValueUnchanged:
		return "(unchanged)"
	default:
		return "NULL"
	}
}

// postgresEpoch is the zero of the server's timestamps.
var postgresEpoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
