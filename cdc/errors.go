package cdc

import (
	"errors"
	"fmt"
)

// Field names the input that an [InvalidError] is about.
type Field string

// The fields that can be wrong.
const (
	FieldLSN           Field = "LSN"
	FieldConn          Field = "Conn"
	FieldSlot          Field = "Slot"
	FieldPublications  Field = "Publications"
	FieldStart         Field = "Start"
	FieldProtocol      Field = "Protocol"
	FieldMemoryLimit   Field = "MemoryLimit"
	FieldSpillLimit    Field = "SpillLimit"
	FieldStatus        Field = "StatusInterval"
	FieldTimeout       Field = "Timeout"
	FieldRetry         Field = "Retry"
	FieldTable         Field = "Table"
	FieldTables        Field = "Tables"
	FieldColumns       Field = "Columns"
	FieldFilter        Field = "Filter"
	FieldPageSize      Field = "PageSize"
	FieldConnections   Field = "Connections"
	FieldWALLevel      Field = "wal_level"
	FieldServerVersion Field = "server_version"
	FieldFailover      Field = "Failover"
)

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

func invalid(field Field, value any, rule string) error {
	text := fmt.Sprint(value)
	if len(text) > 200 {
		text = text[:200] + "…"
	}
	return &InvalidError{Field: field, Value: text, Rule: rule}
}

// ErrProtocol is a message of the server that cannot be read.
var ErrProtocol = errors.New("cdc: a message of the server cannot be read")
