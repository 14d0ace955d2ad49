package cdc

import (
	"errors"
	"fmt"
)

// Field names the input that an [InvalidError] is about.
type Field string

// The fields that can be wrong.
const (
	FieldLSN            Field = "LSN"
	FieldConn           Field = "Conn"
	FieldSlot           Field = "Slot"
	FieldPublications   Field = "Publications"
	FieldStart          Field = "Start"
	FieldProtocol       Field = "Protocol"
	FieldMemoryLimit    Field = "MemoryLimit"
	FieldSpillLimit     Field = "SpillLimit"
	FieldStatusInterval Field = "StatusInterval"
	FieldTimeout        Field = "Timeout"
	FieldRetry          Field = "Retry"
	FieldHeartbeat      Field = "Heartbeat"
	FieldTable          Field = "Table"
	FieldTables         Field = "Tables"
	FieldColumns        Field = "Columns"
	FieldFilter         Field = "Filter"
	FieldPageSize       Field = "PageSize"
	FieldAfter          Field = "After"
	FieldConnections    Field = "Connections"
	FieldToken          Field = "Token"
	FieldChunkSize      Field = "ChunkSize"
	FieldChunkTimeout   Field = "ChunkTimeout"
	FieldInterval       Field = "Interval"
	FieldWALLevel       Field = "wal_level"
	FieldServerVersion  Field = "server_version"
	FieldFailover       Field = "Failover"
	// FieldClientEncoding is of a pool, connection or transaction of the caller's. Those that this package makes have their own.
	FieldClientEncoding Field = "client_encoding"
)

// MinServerVersion is the oldest server that is spoken to, as its server_version_num: Postgres 14.
const MinServerVersion = 140_000

// InvalidError is input, or a setting of the server, that breaks a rule.
type InvalidError struct {
	// Field is what is wrong.
	Field Field
	// Value is what was given.
	Value string
	// Rule says what it must be.
	Rule string
}

func (e *InvalidError) Error() string { return fmt.Sprintf("cdc: %s %q: %s", e.Field, e.Value, e.Rule) }

func newInvalidError(field Field, value any, rule string) error {
	text := fmt.Sprint(value)
	if len(text) > 200 {
		text = text[:200] + "…"
	}
	return &InvalidError{Field: field, Value: text, Rule: rule}
}

// ErrProtocol is a message of the server that cannot be read.
var ErrProtocol = errors.New("cdc: a message of the server cannot be read")

// ErrClosed is what [Stream.Next] and [Stream.Ack] return after [Stream.Close].
var ErrClosed = errors.New("cdc: the stream is closed")

// ErrSlotBusy is a slot that somebody else reads at the moment. Only one can.
var ErrSlotBusy = errors.New("cdc: the slot is in use")

// ErrSnapshotGone is a [Snapshot] that has ended with the connection which holds it, as when the server is restarted, or of
// whose tables one was rewritten or truncated before it was read: drop its slot, and begin anew.
var ErrSnapshotGone = errors.New("cdc: the snapshot is lost: drop the slot and begin anew")

// ErrStandby is a standby with a copy of the slot, which is of use when it is promoted. A [Stream] waits for that, and [Open]
// fails with it.
var ErrStandby = errors.New("cdc: the server is a standby, and its copy of the slot is of use when it is promoted")

// ErrResyncNeeded is a slot that can no longer give all changes since the position that was confirmed: what was made of
// them has to be made anew, from a snapshot. It is always a [*ResyncError].
var ErrResyncNeeded = errors.New("cdc: changes were lost: resync needed")

// ResyncReason is why.
type ResyncReason string

// The reasons.
const (
	// SlotMissing is a slot that does not exist, or no longer.
	SlotMissing ResyncReason = "missing"
	// SlotInvalidated is a slot whose WAL the server has removed, or that it has made useless for another reason.
	SlotInvalidated ResyncReason = "invalidated"
	// SlotAdvanced is a slot that was moved by somebody else beyond what was confirmed here, or that was made anew.
	SlotAdvanced ResyncReason = "advanced"
	// SlotDiverged is one of a standby that was promoted and did not have all that had been delivered.
	SlotDiverged ResyncReason = "diverged"
	// PublicationMissing is a publication that was not there when a change was written: it was dropped, or made behind the slot. What was
	// written without it cannot be read, though it was made again since.
	PublicationMissing ResyncReason = "without its publication"
)

// ResyncError tells why [ErrResyncNeeded], which it matches.
type ResyncError struct {
	Slot   string
	Reason ResyncReason
	// Detail says more, for people.
	Detail string
}

func (e *ResyncError) Error() string {
	return fmt.Sprintf("cdc: slot %q is %s: %s: resync needed", e.Slot, e.Reason, e.Detail)
}

// Is matches [ErrResyncNeeded].
func (e *ResyncError) Is(target error) bool { return target == ErrResyncNeeded }

// RowSecurityError is a table of which row-level security can hide rows from the role. It is not read: a snapshot or a backfill would lack
// rows that the stream has, because Postgres decodes all of them, whatever policies say.
type RowSecurityError struct {
	// Table has its schema in front.
	Table string
	// Role is the one that connects.
	Role string
}

func (e *RowSecurityError) Error() string {
	return fmt.Sprintf("cdc: table %q: row-level security hides rows of it from role %q, and the stream has them all: "+
		"give the role BYPASSRLS, or ownership of a table without FORCE ROW LEVEL SECURITY. To leave rows out, filter them in the publication", e.Table, e.Role)
}

// AckError is an acknowledgement that was refused. Nothing was confirmed by it.
type AckError struct {
	// LSN is what was to be acknowledged.
	LSN LSN
	// Acknowledged is the last position that was, and Delivered the end of the last transaction that was delivered: the
	// position must be the end of a transaction from the one to the other.
	Acknowledged, Delivered LSN
}

func (e *AckError) Error() string {
	problem := "not the end of a transaction that was delivered"
	switch {
	case e.LSN > e.Delivered:
		problem = "beyond what was delivered"
	case e.LSN < e.Acknowledged:
		problem = "behind what is acknowledged"
	}
	return fmt.Sprintf("cdc: acknowledgement of %s: it is %s (acknowledged %s, delivered %s)", e.LSN, problem, e.Acknowledged, e.Delivered)
}

// TooLargeError is transactions that need more room than [Config.SpillLimit] gives. It ends the stream; nothing of them was
// delivered.
type TooLargeError struct {
	// XID is the transaction that needed more.
	XID uint32
	// Limit is the room there is, in bytes.
	Limit int64
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("cdc: transaction %d does not fit into the %d bytes of SpillLimit", e.XID, e.Limit)
}

// UndecodableError is a row that cannot be decoded. It ends the stream, the backfill, or the loop over a snapshot, unless SkipUndecodable of the
// configuration decides that the row is left out. It comes again each time, so that nothing behind it is ever delivered otherwise.
type UndecodableError struct {
	// Table has its schema in front. It is empty where Postgres could not decode the row, because then it does not say of which table that is.
	Table string
	// Column is the first one that has no text, empty where the fault is another one.
	Column string
	// LSN is where the change stands in the log, which is the same each time the log is read. It is that of the snapshot for its rows, and zero for
	// those of a backfill.
	LSN LSN
	// XID is the transaction, zero where none is known.
	XID uint32
	// Whole is set where the whole transaction is left out, because Postgres gives nothing of it behind the row: it could not decode the row itself.
	Whole bool
	Err   error
}

func (e *UndecodableError) Error() string {
	what := "a row"
	if e.Table != "" {
		what += fmt.Sprintf(" of %q", e.Table)
	}
	if e.LSN != 0 {
		what += " at " + e.LSN.String()
	}
	if e.Column != "" {
		what += fmt.Sprintf(", column %q,", e.Column)
	}
	return fmt.Sprintf("cdc: %s cannot be decoded (SkipUndecodable leaves it out): %v", what, e.Err)
}

// Unwrap gives the reason.
func (e *UndecodableError) Unwrap() error { return e.Err }

// errNotUTF8 is a text of a database without an encoding.
var errNotUTF8 = errors.New("the bytes are no UTF-8, and the encoding of the database is SQL_ASCII, which is none")

// SpillError is a temporary file of a large transaction that could not be written or read: the disk is full, say. It ends the stream.
// The server still has the transaction, and a new stream tries again.
type SpillError struct {
	// Folder is where the file is: [Config.SpillFolder].
	Folder string
	Err    error
}

func (e *SpillError) Error() string {
	return fmt.Sprintf("cdc: the temporary file of a large transaction, in the folder %q (SpillFolder): %v", e.Folder, e.Err)
}

// Unwrap gives the error of the file system, such as syscall.ENOSPC.
func (e *SpillError) Unwrap() error { return e.Err }
