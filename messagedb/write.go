package messagedb

import (
	"context"
	"errors"
	"strconv"

	"github.com/jackc/pgx/v5"
)

// WriteOption changes what a write does.
type WriteOption func(*writeOptions)

type writeOptions struct{ idempotent bool }

// Idempotent makes a write that is repeated a success: if all messages of the call are in the stream already, one after
// another and with the same content, their last position is returned as if they had been written just now, whatever the
// version of the stream is by then. Each message needs an ID. If something else has one of the ids, the error is a
// [*DuplicateIDError]. It costs a second round trip only where something is in the way; in a transaction, it costs a
// savepoint.
func Idempotent() WriteOption { return func(o *writeOptions) { o.idempotent = true } }

// WriteMessage writes one message: see [Client.Write].
func (c *Client) WriteMessage(ctx context.Context, stream StreamName, message ProposedMessage, expected int64, opts ...WriteOption) (position int64, err error) {
	return c.Write(ctx, stream, []ProposedMessage{message}, expected, opts...)
}

// WriteMessageTx writes one message in a transaction: see [Client.Write].
func (c *Client) WriteMessageTx(ctx context.Context, tx pgx.Tx, stream StreamName, message ProposedMessage, expected int64, opts ...WriteOption) (position int64, err error) {
	return c.InTx(tx).Write(ctx, stream, []ProposedMessage{message}, expected, opts...)
}

// WriteTx writes messages in a transaction: they are there when tx commits. See [Client.Write].
func (c *Client) WriteTx(ctx context.Context, tx pgx.Tx, stream StreamName, messages []ProposedMessage, expected int64, opts ...WriteOption) (position int64, err error) {
	return c.InTx(tx).Write(ctx, stream, messages, expected, opts...)
}

// Write appends messages to a stream, all of them or none, in one round trip, and returns the position of the last.
//
// expected is the version that the stream must be at: the position of its last message, [NoStreamVersion] where there must
// be none, [AnyVersion] where it does not matter. If it is at another, the error is a [*VersionConflictError].
//
// A message with an id that the store has already gives a [*DuplicateIDError]; see [Idempotent]. Bad input gives an
// [*InvalidError] before anything is sent. The category of the stream is locked until the transaction of the write ends.
func (c *Client) Write(ctx context.Context, stream StreamName, messages []ProposedMessage, expected int64, opts ...WriteOption) (position int64, err error) {
	if err := stream.validate(); err != nil {
		return 0, err
	}
	position, err = c.writeMessages(ctx, stream, messages, expected, opts...)
	c.counters.countWrite(len(messages), err)
	return position, err
}

// writeMessages accepts a stream name without an id, because the position stream of a consumer may have none.
func (c *Client) writeMessages(ctx context.Context, stream StreamName, messages []ProposedMessage, expected int64, opts ...WriteOption) (int64, error) {
	var o writeOptions
	for _, change := range opts {
		change(&o)
	}
	if err := c.checkUsable(); err != nil {
		return 0, err
	}
	if err := validExpected(expected); err != nil {
		return 0, err
	}
	rows, err := prepareAll(messages, o.idempotent)
	if err != nil {
		return 0, err
	}
	about := call{doing: "writing to stream", stream: stream, expected: expected, writes: true}
	sql, args := c.writeStatement(stream, rows, expected)
	if !o.idempotent {
		var position int64
		err := c.queryValue(ctx, about, sql, &position, args...)
		return position, err
	}
	return c.writeOnce(ctx, about, rows, sql, args)
}

func validExpected(expected int64) error {
	if expected < AnyVersion {
		return newInvalidError(FieldExpectedVersion, expected, "must be a position, -1 for no stream or -2 for any version")
	}
	return nil
}

// writeStatement chooses a statement by the number of messages and whether to notify listeners.
func (c *Client) writeStatement(stream StreamName, rows []row, expected int64) (sql string, args []any) {
	var version *int64
	if expected != AnyVersion {
		version = &expected
	}
	plain, notifying := c.sql.write, c.sql.writeNotify
	if len(rows) == 1 {
		r := rows[0]
		args = []any{r.id, stream.String(), r.kind, r.data, r.metadata, version}
	} else {
		ids, kinds, data, metadata := splitColumns(rows)
		args = []any{stream.String(), version, ids, kinds, data, metadata}
		plain, notifying = c.sql.writeMany, c.sql.writeManyNotify
	}
	if c.config.Notify {
		return notifying, append(args, notificationPayload(stream.Category()))
	}
	return plain, args
}

func splitColumns(rows []row) (ids, kinds []string, data, metadata []*string) {
	for _, r := range rows {
		ids, kinds = append(ids, r.id), append(kinds, r.kind)
		data, metadata = append(data, r.data), append(metadata, r.metadata)
	}
	return ids, kinds, data, metadata
}

func prepareAll(messages []ProposedMessage, idempotent bool) ([]row, error) {
	if len(messages) == 0 {
		return nil, newInvalidError(FieldMessages, "none", "must be at least one message")
	}
	rows := make([]row, 0, len(messages))
	for i, m := range messages {
		r, err := m.prepareRow()
		if err == nil && idempotent && m.ID == "" {
			err = newInvalidError(FieldID, "", "must not be empty: an idempotent write is recognised by it")
		}
		if bad := new(InvalidError); errors.As(err, &bad) && len(messages) > 1 {
			bad.Field = Field("Messages[" + strconv.Itoa(i) + "]." + string(bad.Field))
		}
		if err != nil {
			return nil, err
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// writeOnce makes an idempotent write. After a conflict it looks for the messages in the store.
func (c *Client) writeOnce(ctx context.Context, about call, rows []row, sql string, args []any) (int64, error) {
	var position int64
	err := c.writeInSavepoint(ctx, about, sql, &position, args)
	if err == nil {
		return position, nil
	}
	var conflict *VersionConflictError
	var duplicate *DuplicateIDError
	if !errors.As(err, &conflict) && !errors.As(err, &duplicate) {
		return 0, err
	}
	there, position, findErr := c.findMessages(ctx, about, rows)
	switch {
	case findErr != nil:
		return 0, findErr
	case there == nil:
		return position, nil
	case there.ID == "":
		return 0, err // none of them is in the store
	default:
		there.cause = errors.Unwrap(err)
		return 0, there
	}
}

// writeInSavepoint runs the write in a savepoint if there is a transaction, so that the transaction survives a failed write. The
// three statements are one round trip.
func (c *Client) writeInSavepoint(ctx context.Context, about call, sql string, position *int64, args []any) error {
	if c.tx == nil {
		return c.queryValue(ctx, about, sql, position, args...)
	}
	if err := checkEncoding(c.tx.Conn()); err != nil {
		return c.explainError(err, about)
	}
	batch := &pgx.Batch{}
	batch.Queue("SAVEPOINT messagedb_write")
	batch.Queue(sql, args...).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			into := make([]any, len(rows.FieldDescriptions()))
			into[0] = position
			if err := rows.Scan(into...); err != nil {
				return err
			}
		}
		return rows.Err()
	})
	batch.Queue("RELEASE SAVEPOINT messagedb_write")
	err := c.tx.SendBatch(ctx, batch).Close()
	if err == nil {
		return nil
	}
	err = c.explainError(err, about)
	// If the savepoint itself failed, the transaction was unusable before.
	if _, rollbackErr := c.tx.Exec(ctx, "ROLLBACK TO SAVEPOINT messagedb_write; RELEASE SAVEPOINT messagedb_write"); rollbackErr != nil {
		return errors.Join(err, rollbackErr)
	}
	return err
}

// findMessages looks for the messages of a write. It returns nil and the last position if all are there as they would have been
// written, else what is wrong: an error without an ID if none of them is there.
func (c *Client) findMessages(ctx context.Context, about call, rows []row) (*DuplicateIDError, int64, error) {
	ids, kinds, data, metadata := splitColumns(rows)
	found, err := c.db.Query(ctx, c.sql.find, about.stream.String(), ids, kinds, data, metadata)
	if err != nil {
		return nil, 0, c.explainError(err, about)
	}
	type place struct {
		number   int64
		stream   string
		position int64
		same     bool
	}
	places, err := pgx.CollectRows(found, func(r pgx.CollectableRow) (p place, err error) {
		return p, r.Scan(&p.number, &p.stream, &p.position, &p.same)
	})
	if err != nil {
		return nil, 0, c.explainError(err, about)
	}
	if len(places) == 0 {
		return &DuplicateIDError{}, 0, nil
	}
	whole := len(places) == len(rows)
	for i, p := range places {
		if !p.same || p.position != places[0].position+int64(i) {
			return &DuplicateIDError{ID: ids[p.number-1], Stream: StreamName(p.stream), Position: p.position, Different: !p.same}, 0, nil
		}
	}
	if !whole {
		p := places[0]
		return &DuplicateIDError{ID: ids[p.number-1], Stream: StreamName(p.stream), Position: p.position}, 0, nil
	}
	return nil, places[len(places)-1].position, nil
}
