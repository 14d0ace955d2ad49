package delta_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// confidential is a kind with a log of changes, of which the note is nowhere to be found.
type confidential struct {
	Name  string    `json:"name"`
	Note  string    `json:"note"`
	Until time.Time `json:"until"`
}

func (c confidential) ID() string   { return c.Name }
func (c confidential) Kind() string { return "confidential" }
func (c confidential) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{
		InformInterval: -1, Log: true, RetryPolicy: delta.RetryPolicy{InitialInterval: 10 * time.Millisecond, MaximumInterval: 10 * time.Millisecond},
	}
}

const planted = "planted-5f1c9e"

var codecKeys = map[string][]byte{"old": bytes.Repeat([]byte{1}, 32), "new": bytes.Repeat([]byte{2}, 32)}

// encoding adds a codec with some keys to a configuration. It encrypts with the first.
func encoding(t *testing.T, config *delta.Config, names ...string) *delta.Config {
	t.Helper()
	keys := map[string][]byte{}
	for _, name := range names {
		keys[name] = codecKeys[name]
	}
	codec, err := NewAESCodec(names[0], keys)
	require.NoError(t, err)
	config.ObjectCodec, config.ObjectHashKey = codec, bytes.Repeat([]byte{9}, 32)
	return config
}

// dumpTables returns the text of all rows of the schema, by table.
func (h *harness) dumpTables() map[string]string {
	h.t.Helper()
	conn, err := h.Pool.Acquire(context.Background())
	require.NoError(h.t, err)
	defer conn.Release()
	rows, err := conn.Query(context.Background(), `SELECT c.relname FROM pg_class c WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'm')`)
	require.NoError(h.t, err)
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(h.t, err)
	all := map[string]string{}
	for _, table := range tables {
		var dump bytes.Buffer
		_, err := conn.Conn().PgConn().CopyTo(context.Background(), &dump, "COPY "+pgx.Identifier{table}.Sanitize()+" TO STDOUT")
		require.NoError(h.t, err)
		all[table] = dump.String()
	}
	return all
}

// storedObject returns the stored form of an object, and its hash.
func (h *harness) storedObject(kind, id string) (object string, hash []byte) {
	h.t.Helper()
	require.NoError(h.t, h.Pool.QueryRow(context.Background(), "SELECT object::text, hash FROM delta_resource WHERE kind = $1 AND object_id = $2", kind, id).
		Scan(&object, &hash))
	return object, hash
}

// Whatever becomes of an object, its text is in no table, no history and no log.
func TestAnEncodedObjectIsNowhereInPlainText(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	outside := &upstream[mirror]{}
	seen := make(chan string, 100)
	config := encoding(t, h.config(
		with(&controller[confidential]{work: func(_ context.Context, r *delta.Resource[confidential]) error {
			seen <- r.Object.Note
			switch {
			case r.Object.Name == "fails" && r.Attempt == 1:
				return errors.New("try again")
			case r.Object.Name == "degrades":
				return delta.ResourceDegrade(errors.New("hopeless"))
			case r.Object.Name == "goes":
				return delta.ResourceDelete(errors.New("gone"))
			}
			return nil
		}}),
		with(&controller[mirror]{inform: outside.inform}),
		with(&controller[batched]{}),
	), "old")
	var logs logBuffer
	config.Logger = logs.logger()
	c := h.start(config)

	for _, name := range []string{"synced", "fails", "degrades", "goes"} {
		result, err := c.Inform(t.Context(), confidential{Name: name, Note: planted}, nil)
		require.NoError(t, err)
		require.Contains(t, string(result.Resource.EncodedObject), planted, "the caller gets its object")
	}
	h.eventually("confidential", "synced", synced(1))
	h.eventually("confidential", "fails", synced(1))
	h.eventually("confidential", "degrades", inState(deltatype.ResourceStateDegraded))
	h.eventually("confidential", "goes", inState(deltatype.ResourceStateDeleted))
	_, err := c.Inform(t.Context(), confidential{Name: "synced", Note: planted + "-2"}, nil)
	require.NoError(t, err)
	h.eventually("confidential", "synced", synced(2))
	require.Equal(t, planted, <-seen)

	var members []delta.Object
	for _, name := range names("b", 30) {
		members = append(members, batched{account{Name: name, Plan: planted}})
	}
	_, err = c.InformMany(t.Context(), members, nil)
	require.NoError(t, err)
	for _, name := range names("b", 30) {
		h.eventually("batched", name, synced(1))
	}
	// A refused object is kept with its JSON, and one that Postgres could not store as it is has an error of its own.
	outside.set(mirror{Name: "fine", Note: planted}, mirror{Name: "bad", Note: planted + "\x00"})
	run, err := c.RunInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "mirror", RunForeground: true}, nil)
	require.NoError(t, err)
	require.Equal(t, 1, run.Refused)
	refused, err := c.Refused(t.Context(), "mirror")
	require.NoError(t, err)
	require.Len(t, refused, 1)
	require.True(t, refused[0].IsKept)
	require.Contains(t, refused[0].Rule, "must have no NUL character")

	dump := h.dumpTables()
	encoded := 0
	for table, text := range dump {
		require.NotContains(t, text, planted, table)
		encoded += strings.Count(text, `"delta.encoded"`)
	}
	require.GreaterOrEqual(t, encoded, 40)
	require.Contains(t, dump["delta_refused"], "\\\\x7b2264656c74612e656e636f646564223a", "a bytea with the envelope")
	require.NotContains(t, dump["delta_refused"], fmt.Sprintf("%x", planted))
	require.NotContains(t, logs.String(), planted)
	for runID, id := range h.findWorkflows() {
		events := h.Temporal.GetWorkflowHistory(t.Context(), id, runID, false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
		for events.HasNext() {
			event, err := events.Next()
			require.NoError(t, err)
			text, err := event.Marshal()
			require.NoError(t, err)
			require.NotContains(t, string(text), planted, "event %d of %s", event.GetEventId(), id)
		}
	}

	// The client has all of it.
	row, err := c.Get(t.Context(), "confidential", "synced")
	require.NoError(t, err)
	require.Contains(t, string(row.EncodedObject), planted)
	rows, err := c.List(t.Context(), delta.Filter{Kinds: []string{"batched"}}, delta.Page{})
	require.NoError(t, err)
	require.Len(t, rows, 30)
	for _, row := range rows {
		require.Contains(t, string(row.EncodedObject), planted)
	}
	changes, err := c.ResourceChanges(t.Context(), "confidential", "synced", 0, 0)
	require.NoError(t, err)
	require.Len(t, changes, 2)
	require.Contains(t, string(changes[0].After), planted+"-2")
	require.Contains(t, string(changes[0].Before), planted)
	for change, err := range c.Changes(t.Context(), "", "confidential") {
		require.NoError(t, err)
		if change.After != nil {
			require.Contains(t, string(change.After), planted)
			break
		}
	}
	previous, err := c.PreviousObject(t.Context(), "confidential", "synced")
	require.NoError(t, err)
	require.False(t, previous.IsSynced)
	require.NotNil(t, previous.Until)
	require.NotContains(t, string(previous.Object), planted+"-2")
	require.Contains(t, string(previous.Object), planted)

	// One without the codec sees that the objects are encoded.
	without := h.client(&delta.Config{})
	row, err = without.Get(t.Context(), "confidential", "synced")
	require.NoError(t, err)
	require.True(t, deltatype.IsEncoded(row.EncodedObject))
	_, err = delta.GetAs[confidential](t.Context(), without, "synced")
	require.ErrorContains(t, err, "the stored object is encoded, and this client has no Config.ObjectCodec")
	previous, err = without.PreviousObject(t.Context(), "confidential", "synced")
	require.NoError(t, err)
	require.Nil(t, previous.Object, "two encoded versions cannot be compared")
	for _, err := range without.Changes(t.Context(), "") {
		require.ErrorContains(t, err, "no Config.ObjectCodec")
	}
}

// An inform compares by hash, by revision and by Compare as without a codec.
func TestEncodedObjectsAreComparedAsOthers(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.client(encoding(t, &delta.Config{}, "old"))
	inform := func(object delta.Object) *deltatype.ObjectInformResult {
		t.Helper()
		result, err := c.Inform(t.Context(), object, nil)
		require.NoError(t, err)
		require.False(t, deltatype.IsEncoded(result.Resource.EncodedObject))
		return result
	}
	require.True(t, inform(account{Name: "a", Plan: "x"}).Scheduled)
	first, hash := h.storedObject("account", "a")
	require.False(t, inform(account{Name: "a", Plan: "x"}).Scheduled, "nothing has changed")
	again, _ := h.storedObject("account", "a")
	require.Equal(t, first, again)
	require.True(t, inform(account{Name: "a", Plan: "y"}).Scheduled)

	require.True(t, inform(mirror{Name: "m", Version: 2, Note: "n"}).Scheduled)
	older := inform(mirror{Name: "m", Version: 1})
	require.True(t, older.Stale)
	require.Contains(t, string(older.Resource.EncodedObject), `"note":"n"`, "the stored object, decoded")
	require.False(t, inform(mirror{Name: "m", Version: 2, Note: "another"}).Scheduled, "its Compare ignores the note")
	results, err := c.InformMany(t.Context(), []delta.Object{mirror{Name: "m", Version: 1}, mirror{Name: "n", Version: 1}, account{Name: "a", Plan: "y"}}, nil)
	require.NoError(t, err)
	require.True(t, results[0].Stale)
	require.True(t, results[1].Scheduled)
	require.False(t, results[2].Scheduled || results[2].Stale)
	for _, result := range results {
		require.False(t, deltatype.IsEncoded(result.Resource.EncodedObject))
	}

	// Equal objects have other hashes without the key.
	plain := &harness{Env: deltatest.New(t), t: t}
	_, err = plain.client(&delta.Config{}).Inform(t.Context(), account{Name: "a", Plan: "x"}, nil)
	require.NoError(t, err)
	_, other := plain.storedObject("account", "a")
	require.NotEqual(t, hash, other)
	require.Len(t, hash, len(other))

	_, err = c.Inform(t.Context(), envelope{}, nil)
	require.ErrorContains(t, err, `must not have "delta.encoded" as its only member`)
}

// envelope looks like a stored, encoded object.
type envelope struct {
	Encoded string `json:"delta.encoded"`
}

func (envelope) ID() string   { return "" + "e" }
func (envelope) Kind() string { return "envelope" }

// A stored object that decodes, and that its type does not take, has no part of it in its error.
func TestTheErrorOfAnEncodedObjectDoesNotShowIt(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	config := encoding(t, h.config(with(&controller[confidential]{})), "old")
	for name, value := range map[string]any{"time": planted, "number": map[string]string{"x": planted}} {
		_, err := h.client(encoding(t, &delta.Config{}, "old")).Inform(t.Context(), untyped{Name: name, Until: value}, nil)
		require.NoError(t, err)
	}
	c := h.start(config)
	for name, want := range map[string]string{
		"time":   "the stored object does not decode into delta_test.confidential. The reason is not stored, because it may have a part of the object",
		"number": "the stored object does not decode into delta_test.confidential",
	} {
		row := h.eventually("confidential", name, func(r *deltatype.ResourceRow) bool { return len(r.Errors) > 0 })
		require.Contains(t, row.Errors[0].Error, want)
		require.NotContains(t, row.Errors[0].Error, planted)
	}
	_, err := delta.GetAs[confidential](t.Context(), c, "time")
	require.ErrorAs(t, err, new(*delta.UndecodableError))
	require.ErrorContains(t, err, planted, "the reader of the object may see it")
}

// untyped is a confidential object of another version of the program.
type untyped struct {
	Name  string `json:"name"`
	Until any    `json:"until"`
}

func (l untyped) ID() string { return l.Name }
func (untyped) Kind() string { return "confidential" }

// Clients that would store objects as they are, or hash them with another key, neither start nor inform.
func TestClientsOfADatabaseAgreeOnTheCodec(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	_, err := h.client(encoding(t, &delta.Config{}, "old")).Inform(t.Context(), account{Name: "a"}, nil)
	require.NoError(t, err)
	for name, other := range map[string]func(*delta.Config){
		"ObjectCodec is nil: it must be set": func(*delta.Config) {},
		"ObjectHashKey must be the key of the others": func(c *delta.Config) {
			encoding(t, c, "old").ObjectHashKey = bytes.Repeat([]byte{8}, 32)
		},
	} {
		config := h.config(with(&controller[account]{}))
		other(config)
		c := h.client(config)
		_, err := c.Inform(t.Context(), account{Name: "b"}, nil)
		require.ErrorIs(t, err, delta.ErrObjectCodec)
		require.ErrorContains(t, err, name)
		err = c.Start(t.Context())
		require.ErrorIs(t, err, delta.ErrObjectCodec)
		require.ErrorContains(t, err, name)
		tx, err := h.Pool.Begin(t.Context())
		require.NoError(t, err)
		_, err = c.InformTx(t.Context(), tx, account{Name: "b"}, nil)
		require.ErrorIs(t, err, delta.ErrObjectCodec)
		require.NoError(t, tx.Rollback(t.Context()))
	}
	require.Nil(t, h.row("account", "b"))
}
