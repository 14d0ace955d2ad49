package cdc

import (
	"errors"
	"fmt"
)

// Field names the input that an [InvalidError] rejects.
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
	// FieldClientEncoding is the setting of a pool, connection or transaction of the caller. Connections that this
	// package makes set their own.
	FieldClientEncoding Field = "client_encoding"
)

// MinServerVersion is the server_version_num of the oldest supported server, Postgres 14.
const MinServerVersion = 140_000

// InvalidError reports an input, or a setting of the server, that breaks a rule.
type InvalidError struct {
	// Field is the wrong input.
	Field Field
	// Value is the value that was given.
	Value string
	// Rule says which values are valid.
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

// ErrProtocol reports a message of the server that cannot be parsed.
var ErrProtocol = errors.New("cdc: a message of the server cannot be read")

// ErrClosed is returned by [Stream.Next] and [Stream.Ack] after [Stream.Close].
var ErrClosed = errors.New("cdc: the stream is closed")

// ErrSlotBusy reports a slot that another connection reads at the moment. Only one can.
var ErrSlotBusy = errors.New("cdc: the slot is in use")

// ErrSnapshotGone reports a [Snapshot] that was lost, either with the connection that holds it, for example because the
// server was restarted, or because a table was rewritten or truncated before it was read. Drop its slot and start over.
var ErrSnapshotGone = errors.New("cdc: the snapshot is lost: drop the slot and start over")

// ErrStandby reports a standby with a copy of the slot, which can be used once the standby is promoted. A [Stream] that
// is running waits for that; [Open] fails.
var ErrStandby = errors.New("cdc: the server is a standby: its copy of the slot can be used once it is promoted")

// ErrResyncNeeded reports a slot that can no longer deliver all changes since the confirmed position. Rebuild
// everything derived from them from a new snapshot. It is always a [*ResyncError].
var ErrResyncNeeded = errors.New("cdc: changes were lost: resync needed")

// ResyncReason is the reason for a [ResyncError].
type ResyncReason string

// The reasons.
const (
	// SlotMissing is a slot that does not exist, or no longer.
	SlotMissing ResyncReason = "missing"
	// SlotInvalidated is a slot that the server has invalidated, because its WAL was removed or for another reason.
	SlotInvalidated ResyncReason = "invalidated"
	// SlotAdvanced is a slot that another program moved beyond the position confirmed here, or recreated.
	SlotAdvanced ResyncReason = "advanced"
	// SlotDiverged is the slot of a promoted standby that did not have everything that had been delivered.
	SlotDiverged ResyncReason = "diverged"
	// PublicationMissing is a publication that did not exist when a change was written: it was dropped, or created
	// after the slot. Changes written without it cannot be read, even if it was created again since.
	PublicationMissing ResyncReason = "without its publication"
)

// ResyncError reports why a resync is needed. It matches [ErrResyncNeeded].
type ResyncError struct {
	Slot   string
	Reason ResyncReason
	// Detail explains the reason, for people to read.
	Detail string
}

func (e *ResyncError) Error() string {
	return fmt.Sprintf("cdc: slot %q is %s: %s: resync needed", e.Slot, e.Reason, e.Detail)
}

// Is reports whether the target is [ErrResyncNeeded].
func (e *ResyncError) Is(target error) bool { return target == ErrResyncNeeded }

// RowSecurityError reports a table of which row-level security can hide rows from the role. The table is not read,
// because a snapshot or a backfill would lack rows that the stream has: Postgres decodes all rows, regardless of
// policies.
type RowSecurityError struct {
	// Table is the name of the table, with its schema.
	Table string
	// Role is the role that connects.
	Role string
}

func (e *RowSecurityError) Error() string {
	return fmt.Sprintf("cdc: table %q: row-level security hides rows from role %q, but the stream has all of them: "+
		"give the role BYPASSRLS, or ownership of a table without FORCE ROW LEVEL SECURITY. To leave rows out, filter them in the publication", e.Table, e.Role)
}

// AckError reports an acknowledgement that was refused. It has confirmed nothing.
type AckError struct {
	// LSN is the refused position.
	LSN LSN
	// Acknowledged is the last acknowledged position, and Delivered the end of the last delivered transaction. The
	// position must be the end of a transaction between the two.
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

// TooLargeError reports a transaction that does not fit into [Config.SpillLimit]. It ends the stream. Nothing of the
// transaction was delivered.
type TooLargeError struct {
	// XID is the transaction that exceeded the limit.
	XID uint32
	// Limit is the limit, in bytes.
	Limit int64
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("cdc: transaction %d does not fit into the %d bytes of SpillLimit", e.XID, e.Limit)
}

// UndecodableError reports a row that cannot be decoded. It ends the stream, the backfill, or the loop over a snapshot,
// unless SkipUndecodable of the configuration leaves the row out. Reading again meets the same row, so nothing after it
// is delivered until it is left out.
type UndecodableError struct {
	// Table is the name of the table, with its schema. It is empty if Postgres could not decode the row, because then the
	// server does not name the table.
	Table string
	// Column is the first column without valid text, empty if the cause is another one.
	Column string
	// LSN is the position of the change in the log, which is the same each time the log is read. For rows of a snapshot it
	// is the snapshot's, and for rows of a backfill zero.
	LSN LSN
	// XID is the transaction, zero if it is not known.
	XID uint32
	// Whole reports whether the whole transaction is left out, because Postgres itself could not decode the row and
	// sends nothing of the transaction after it.
	WholeTransaction bool
	Err              error
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

// Unwrap returns the reason.
func (e *UndecodableError) Unwrap() error { return e.Err }

// errNotUTF8 reports a text in a database without an encoding.
var errNotUTF8 = errors.New("the bytes are not UTF-8, and the encoding of the database is SQL_ASCII, which is no encoding")

// SpillError reports that the temporary file of a large transaction could not be written or read, for example because
// the disk is full. It ends the stream. The server still has the transaction, so a new stream reads it again.
type SpillError struct {
	// Folder is the folder of the file: [Config.SpillFolder].
	Folder string
	Err    error
}

func (e *SpillError) Error() string {
	return fmt.Sprintf("cdc: the temporary file of a large transaction, in the folder %q (SpillFolder): %v", e.Folder, e.Err)
}

// Unwrap returns the error of the file system, such as syscall.ENOSPC.
func (e *SpillError) Unwrap() error { return e.Err }
