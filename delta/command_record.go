package delta

import (
	"context"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/internal/shorten"
)

const (
	// commandsKept is how long records of commands are kept.
	commandsKept = 90 * 24 * time.Hour
	// maxRecordedBytes bounds each text of a record.
	maxRecordedBytes = 64 << 10
)

// CommandRecord is a command of a person, with its subject and its result: see [Client.RecordCommand].
type CommandRecord struct {
	// ID identifies the record. Later ones have larger ids.
	ID int64
	// BegunAt is when the command was given. EndedAt is when it ended; nil while it runs, or if its process has died.
	BegunAt time.Time
	EndedAt *time.Time
	// Actor is the person, and Command the name of the command. Both are required.
	Actor, Command string
	// Kind, ObjectID, Shard, Namespace and Filter are its subject. Each may be empty.
	Kind, ObjectID, Shard, Namespace, Filter string
	// Resources is how many resources it has changed; nil if unknown.
	Resources *int64
	// Error is why it failed, or was stopped; empty otherwise.
	Error string
}

// RecordCommand records that a person gives a command, before the command runs, and returns the id for [Client.EndCommand]:
// an audit trail of commands. The console calls it for each of its commands. Delta itself does not, because it does not
// know the person. Records are kept for 90 days.
//
// It returns an [InputError] if the actor or the command is empty, or a text is longer than 64 KiB or not UTF-8.
func (c *Client) RecordCommand(ctx context.Context, r *CommandRecord) (id int64, err error) {
	for _, field := range []struct {
		name, value string
		isRequired  bool
	}{
		{"Actor", r.Actor, true},
		{"Command", r.Command, true},
		{"Kind", r.Kind, false},
		{"ObjectID", r.ObjectID, false},
		{"Shard", r.Shard, false},
		{"Namespace", r.Namespace, false},
		{"Filter", r.Filter, false},
	} {
		switch {
		case field.isRequired && field.value == "":
			return 0, fmt.Errorf("delta: record command: %w", inputError(field.name, field.value, "must not be empty"))
		case len(field.value) > maxRecordedBytes:
			return 0, fmt.Errorf("delta: record command: %w", inputError(field.name, field.value, "must not be longer than %d bytes", maxRecordedBytes))
		case !utf8.ValidString(field.value) || strings.ContainsRune(field.value, 0):
			return 0, fmt.Errorf("delta: record command: %w", inputError(field.name, field.value, "must be UTF-8 without NUL"))
		}
	}
	id, err = db.New().RecordCommand(ctx, c.pool, db.RecordCommandParams{
		Actor: r.Actor, Command: r.Command, Kind: r.Kind, ObjectID: r.ObjectID, Shard: r.Shard, Namespace: r.Namespace, Filter: r.Filter,
	})
	if err != nil {
		return 0, fmt.Errorf("delta: record command: %w", schemaError(err))
	}
	return id, nil
}

// EndCommand records the result of a recorded command: how many resources it has changed, nil if unknown, and why it
// failed, nil if it did not. A record that has ended stays as it is.
func (c *Client) EndCommand(ctx context.Context, id int64, resources *int64, failure error) error {
	text := ""
	if failure != nil {
		text = shorten.Text(failure.Error(), maxRecordedBytes)
	}
	if err := db.New().EndCommand(ctx, c.pool, db.EndCommandParams{ID: id, Resources: resources, Error: text}); err != nil {
		return fmt.Errorf("delta: end command: %w", schemaError(err))
	}
	return nil
}

// ListCommands lists recorded commands, the latest first: those of a kind, or of one of its resources; all if both are
// empty. It begins behind the record with the id before; 0 is the beginning. The limit must be between 1 and 1000.
func (c *Client) ListCommands(ctx context.Context, kind, objectID string, before int64, limit int) ([]CommandRecord, error) {
	const most = 1000
	if limit < 1 || limit > most {
		return nil, fmt.Errorf("delta: list commands: %w", inputError("limit", limit, "must be between 1 and %d", most))
	}
	if before <= 0 {
		before = math.MaxInt64
	}
	rows, err := db.New().ListCommands(ctx, c.pool, db.ListCommandsParams{Kind: kind, ObjectID: objectID, BeforeID: before, Batch: int32(limit)})
	if err != nil {
		return nil, fmt.Errorf("delta: list commands: %w", schemaError(err))
	}
	all := make([]CommandRecord, len(rows))
	for i, row := range rows {
		all[i] = CommandRecord{
			ID: row.ID, BegunAt: row.BegunAt.UTC(), EndedAt: row.EndedAt, Actor: row.Actor, Command: row.Command, Kind: row.Kind, ObjectID: row.ObjectID, Shard: row.Shard,
			Namespace: row.Namespace, Filter: row.Filter, Resources: row.Resources,
		}
		if row.Error != nil {
			all[i].Error = *row.Error
		}
	}
	return all, nil
}
