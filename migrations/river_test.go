package migrations_test

import (
	"context"
	_ "embed"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
	"github.com/chariot-giving/delta/migrations"
)

//go:embed testdata/river.sql
var riverSchema string

// openOriginal returns a pool on a schema with the tables of Delta on River, the original.
func openOriginal(t *testing.T, more ...string) *pgxpool.Pool {
	t.Helper()
	return originalIn(t, deltatest.New(t), more...)
}

func originalIn(t *testing.T, env *deltatest.Env, more ...string) *pgxpool.Pool {
	t.Helper()
	pool := emptySchema(t, env, "")
	for _, sql := range append([]string{riverSchema}, more...) {
		_, err := pool.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	return pool
}

// riverRow is a row of the original. Other columns are the same in all rows.
type riverRow struct {
	id                        string
	state                     string
	attempt, max              int
	attempted, synced         *time.Time
	namespace, metadata, tags string
	errors                    string
}

func (r riverRow) insert(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	_, err := pool.Exec(t.Context(), `
		INSERT INTO delta_resource (state, attempt, max_attempts, attempted_at, created_at, synced_at, external_created_at, object_id, kind,
			namespace, object, hash, metadata, tags, errors)
		VALUES ($1, $2, $3, $4, '2024-05-06 07:08:09.123456Z', $5, '2023-02-01 00:00:00Z', $6, 'user', coalesce(nullif($7, ''), 'default'),
			jsonb_build_object('id', $6::text), sha256($6::text::bytea), coalesce(nullif($8, ''), '{}')::jsonb,
			coalesce(nullif($9, ''), '{}')::varchar(255)[], nullif($10, '')::jsonb[])`,
		r.state, r.attempt, r.max, r.attempted, r.synced, r.id, r.namespace, r.metadata, r.tags, r.errors)
	require.NoError(t, err)
}

// want is the expected row after the migration. A due_at of "now" is the time of the migration.
type want struct {
	state                     deltatype.ResourceState
	generation, synced, syncs int64
	attempt                   int
	due                       *time.Time
	cause                     deltatype.Cause
	now                       bool
	namespace, metadata       string
	tags                      []string
	errors                    []deltatype.AttemptError
}

const riverAt = "2024-05-06T07:08:10.5Z"

// failureJSON returns an error as the original writes it, in an array literal; attemptError is the same error, decoded.
func failureJSON(attempt int) string {
	return fmt.Sprintf(`"{\"at\": \"%s\", \"attempt\": %d, \"error\": \"no \\\"luck\\\"\", \"trace\": \"\"}"`, riverAt, attempt)
}

func attemptError(attempt int) deltatype.AttemptError {
	return deltatype.AttemptError{At: time.Date(2024, 5, 6, 7, 8, 10, 500_000_000, time.UTC), Attempt: attempt, Error: `no "luck"`}
}

const rescheduled = `"{\"at\": \"2024-05-06T07:08:10.5Z\", \"attempt\": 1, \"error\": \"Expired resource reset by Resource Re-scheduler\", \"trace\": \"TODO\"}"`

var rescheduledError = deltatype.AttemptError{
	At: attemptError(0).At, Attempt: 1, Error: "Expired resource reset by Resource Re-scheduler", Trace: "TODO",
}

func timeAgo(d time.Duration) *time.Time {
	at := time.Now().UTC().Truncate(time.Microsecond).Add(-d)
	return &at
}

func timeAfter(t *time.Time, d time.Duration) *time.Time {
	at := t.Add(d)
	return &at
}

type riverCase struct {
	row  riverRow
	want want
}

// riverCases has rows in each of the eight states, rows that were synced before, and invalid rows.
func riverCases() []riverCase {
	hour, minute, longAgo := timeAgo(time.Hour), timeAgo(time.Minute), timeAgo(30*time.Hour)
	return []riverCase{
		{
			riverRow{id: "synced", state: "synced", attempt: 1, max: 10, attempted: hour, synced: hour, metadata: `{"a": [1, 2]}`, tags: `{one,"two 2"}`},
			want{state: "synced", generation: 1, synced: 1, syncs: 1, attempt: 1, due: timeAfter(hour, 24*time.Hour), metadata: `{"a": [1, 2]}`, tags: []string{"one", "two 2"}},
		},
		{
			riverRow{id: "synced-expiring", state: "synced", attempt: 14, max: 10, attempted: minute, synced: minute, namespace: "quick", errors: "{" + failureJSON(1) + "," + failureJSON(2) + "}"},
			want{state: "synced", generation: 12, synced: 12, syncs: 12, attempt: 10, due: timeAfter(minute, 10*time.Minute), namespace: "quick", errors: []deltatype.AttemptError{attemptError(1), attemptError(2)}},
		},
		{
			riverRow{id: "synced-overdue", state: "synced", attempt: 1, max: 10, attempted: hour, synced: hour, namespace: "quick"},
			want{state: "synced", generation: 1, synced: 1, syncs: 1, attempt: 1, due: timeAfter(hour, 10*time.Minute), namespace: "quick"},
		},
		{
			riverRow{id: "synced-for-ever", state: "synced", attempt: 1, max: 1, attempted: longAgo, synced: longAgo, namespace: "still"},
			want{state: "synced", generation: 1, synced: 1, syncs: 1, attempt: 1, due: timeAfter(longAgo, 24*time.Hour), namespace: "still"},
		},
		{
			riverRow{id: "scheduled", state: "scheduled", max: 10},
			want{state: "scheduled", generation: 1, now: true},
		},
		{
			riverRow{id: "scheduled-again", state: "scheduled", attempt: 3, max: 3, attempted: hour},
			want{state: "scheduled", generation: 4, synced: 3, syncs: 3, now: true},
		},
		{
			riverRow{id: "pending", state: "pending", attempt: 2, max: 10, attempted: hour, errors: "{" + rescheduled + "}"},
			want{state: "scheduled", generation: 3, synced: 2, syncs: 2, attempt: 2, now: true, errors: []deltatype.AttemptError{rescheduledError}},
		},
		{
			riverRow{id: "failed", state: "failed", attempt: 2, max: 10, attempted: minute, errors: "{" + failureJSON(1) + "," + failureJSON(2) + "}"},
			want{state: "failed", generation: 1, attempt: 2, now: true, errors: []deltatype.AttemptError{attemptError(1), attemptError(2)}},
		},
		{
			riverRow{id: "failed-beyond-bounds", state: "failed", attempt: 12, max: 5, attempted: minute, errors: "{" + failureJSON(12) + "}"},
			want{state: "failed", generation: 12, synced: 11, syncs: 11, attempt: 4, now: true, errors: []deltatype.AttemptError{attemptError(12)}},
		},
		{
			riverRow{id: "failed-of-one", state: "failed", attempt: 1, max: 1, attempted: minute, errors: "{" + failureJSON(1) + "}"},
			want{state: "failed", generation: 1, now: true, errors: []deltatype.AttemptError{attemptError(1)}},
		},
		{
			riverRow{id: "degraded", state: "degraded", attempt: 25, max: 10, attempted: hour, errors: "{" + failureJSON(25) + "}"},
			want{state: "degraded", generation: 25, synced: 24, syncs: 24, attempt: 10, due: timeAfter(hour, 24*time.Hour), errors: []deltatype.AttemptError{attemptError(25)}},
		},
		{
			riverRow{id: "expired", state: "expired", attempt: 5, max: 4, attempted: hour, synced: hour, namespace: "quick"},
			want{state: "expired", generation: 6, synced: 5, syncs: 5, now: true, namespace: "quick"},
		},
		{
			riverRow{id: "deleted", state: "deleted", attempt: 2, max: 10, attempted: hour, synced: hour, errors: "{" + failureJSON(2) + "}"},
			want{state: "deleted", generation: 2, synced: 2, syncs: 1, attempt: 2, due: timeAfter(hour, 24*time.Hour), cause: deltatype.CauseWork, errors: []deltatype.AttemptError{attemptError(2)}},
		},
		{
			riverRow{id: "unknown", state: "unknown", max: 10},
			want{state: "unknown", generation: 1},
		},
		{
			riverRow{
				id: `odd "id"/ü 😀`, state: "scheduled", attempt: 1, max: 10, attempted: hour, metadata: `["no object"]`,
				tags:   `{{"}{,\"\\",NULL},{"",ü}}`,
				errors: `{NULL,"\"text\"","7","null","{\"at\": \"yesterday\", \"attempt\": 1e30, \"error\": {\"x\": 1}}","{\"at\": 5, \"attempt\": -1, \"error\": \"e\", \"trace\": 5}"}`,
			},
			want{
				state: "scheduled", generation: 1, now: true, metadata: `{"metadata": ["no object"]}`, tags: []string{`}{,"\`, "", "ü"},
				errors: []deltatype.AttemptError{
					{At: *hour, Error: "text"},
					{At: *hour, Error: "7"},
					{At: *hour},
					{At: *hour, Error: `{"at": "yesterday", "error": {"x": 1}, "attempt": 1000000000000000000000000000000}`},
					{At: *hour, Error: "e", Trace: "5"},
				},
			},
		},
		{
			riverRow{id: "null-metadata", state: "degraded", max: 10, metadata: "null"},
			want{state: "degraded", generation: 1},
		},
	}
}

const riverSettings = `
	INSERT INTO delta_namespace (name, created_at, metadata, updated_at, expiry_ttl) VALUES
		('quick', '2024-01-01 00:00:00Z', '{"m": 1}', '2024-02-01 00:00:00Z', 600), ('still', '2024-01-01 00:00:00Z', '{}', '2024-02-01 00:00:00Z', 0);
	INSERT INTO delta_controller (name, last_inform_time, inform_interval, created_at, updated_at, metadata) VALUES
		('user', '2024-03-01 01:02:03.456789Z', '1 day 02:00:00', '2024-01-01 00:00:00Z', '2024-02-01 00:00:00Z', '{"c": 2}'),
		('off', '1970-01-01 00:00:00Z', '-00:00:01', '2024-01-01 00:00:00Z', '2024-02-01 00:00:00Z', '{}')`

// The ways to migrate. The goose command's history has other versions before it gets ours.
var ways = map[string]func(t *testing.T, pool *pgxpool.Pool, command string){
	"delta": func(t *testing.T, pool *pgxpool.Pool, command string) {
		t.Helper()
		do := map[string]func(context.Context, *pgxpool.Pool) error{"up": migrations.Up, "down": migrations.Down}[command]
		require.NoError(t, do(t.Context(), pool))
	},
	"goose": runGoose,
}

// prepareGoose sets goose's globals once, because parallel tests would race on them.
var prepareGoose = sync.OnceValue(func() error {
	goose.SetLogger(goose.NopLogger())
	return goose.SetDialect("postgres")
})

// runGoose does the same as the goose command, in this folder.
func runGoose(t *testing.T, pool *pgxpool.Pool, command string) {
	t.Helper()
	require.NoError(t, prepareGoose())
	conn := stdlib.OpenDBFromPool(pool)
	defer conn.Close() //nolint:errcheck // closes the adapter only
	require.NoError(t, goose.RunContext(t.Context(), command, conn, "."))
}

func TestTheOriginalIsTakenOverInPlace(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	for name, migrate := range ways {
		t.Run(name, func(t *testing.T) {
			cases := riverCases()
			pool := openOriginal(t, riverSettings, `SELECT setval('delta_resource_id_seq', 41)`)
			for _, c := range cases {
				c.row.insert(t, pool)
			}
			content := func(prefix string) string {
				return contentOf(t, pool, prefix+"resource", prefix+"namespace", prefix+"controller")
			}
			theirs, rivers, history := content("delta_"), contentOf(t, pool, "river_job"), contentOf(t, pool, "goose_db_version")

			began := serverTime(t, pool)
			migrate(t, pool, "up")
			ended := serverTime(t, pool)
			require.Equal(t, newestVersion(t), readVersion(t, pool))

			for i, c := range cases {
				c.check(t, pool, int64(42+i), began, ended)
			}
			checkRiverSettings(t, pool)
			var next int64
			require.NoError(t, pool.QueryRow(t.Context(), `
				INSERT INTO delta_resource (kind, object_id, namespace, max_attempts, hash, object) VALUES ('user', 'new', 'default', 1, '', '{}')
				RETURNING id`).Scan(&next))
			require.Greater(t, next, int64(41+len(cases)))

			require.Equal(t, theirs, content("delta_river_"), "what was taken over is kept as it was")
			require.Equal(t, rivers, contentOf(t, pool, "river_job"))
			if name == "delta" {
				require.Equal(t, history, contentOf(t, pool, "goose_db_version"))
			}
			require.Equal(t, cutOurs(dump(t, deltatest.New(t).Pool)), cutOurs(dump(t, pool)), "the schema is that of an empty database")

			// A second run changes nothing.
			before := contentOf(t, pool, "delta_resource")
			migrate(t, pool, "up")
			require.NoError(t, migrations.Up(t.Context(), pool))
			require.Equal(t, before, contentOf(t, pool, "delta_resource"))
		})
	}
}

func (c riverCase) check(t *testing.T, pool *pgxpool.Pool, id int64, began, ended time.Time) {
	t.Helper()
	got, err := db.New().GetResource(t.Context(), pool, db.GetResourceParams{Kind: "user", ObjectID: c.row.id})
	require.NoError(t, err, c.row.id)
	row, err := got.Resource.Row()
	require.NoError(t, err, c.row.id)
	due := c.want.due
	if c.want.now {
		require.WithinRange(t, *row.DueAt, began, ended, c.row.id)
		due = row.DueAt
	}
	require.WithinRange(t, row.GenerationAt, began, ended, "%s: its generation begins with the migration", c.row.id)
	var hash []byte
	require.NoError(t, pool.QueryRow(t.Context(), `SELECT 'river:'::bytea || sha256($1::text::bytea)`, c.row.id).Scan(&hash))
	external := time.Date(2023, 2, 1, 0, 0, 0, 0, time.UTC)
	require.Equal(t, &deltatype.ResourceRow{
		ID: id, ObjectID: c.row.id, ObjectKind: "user", Namespace: or(c.want.namespace, "default"), State: c.want.state,
		Cause: c.want.cause, Generation: c.want.generation, SyncedGeneration: c.want.synced, SyncCount: c.want.syncs,
		Attempt: c.want.attempt, MaxAttempts: c.row.max, Priority: 3,
		EncodedObject: row.EncodedObject, Hash: hash, Metadata: []byte(or(c.want.metadata, "{}")),
		Tags: append([]string{}, c.want.tags...), Errors: c.want.errors,
		CreatedAt: time.Date(2024, 5, 6, 7, 8, 9, 123456000, time.UTC), AttemptedAt: c.row.attempted, SyncedAt: c.row.synced,
		GenerationAt: row.GenerationAt, ExternalCreatedAt: &external, DueAt: due, DispatchAt: due,
	}, row, c.row.id)
	require.JSONEq(t, fmt.Sprintf(`{"id": %q}`, c.row.id), string(row.EncodedObject))
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func checkRiverSettings(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	require.Equal(t, strings.Join([]string{
		`(quick,00:10:00,,24:00:00,24:00:00,"{""m"": 1}","2024-01-01 00:00:00+00","2024-02-01 00:00:00+00")`,
		`(still,00:00:00,,24:00:00,24:00:00,{},"2024-01-01 00:00:00+00","2024-02-01 00:00:00+00")`,
	}, "\n"), contentOf(t, pool, "(SELECT name, resource_expiry, synced_retention, degraded_retention, deleted_retention, metadata, created_at, updated_at FROM delta_namespace)"))
	require.Equal(t, strings.Join([]string{
		`(off,"1970-01-01 00:00:00+00",-00:00:01,f,f,{},"2024-01-01 00:00:00+00","2024-02-01 00:00:00+00")`,
		`(user,"2024-03-01 01:02:03.456789+00","1 day 02:00:00",f,f,"{""c"": 2}","2024-01-01 00:00:00+00","2024-02-01 00:00:00+00")`,
	}, "\n"), contentOf(t, pool,
		"(SELECT c.name, s.last_inform_time, c.inform_interval, c.paused, c.inform_paused, c.metadata, c.created_at, c.updated_at "+
			"FROM delta_controller c JOIN delta_shard s ON s.kind = c.name AND s.shard = '')"))
	controller, err := db.New().GetController(t.Context(), pool, "user")
	require.NoError(t, err)
	require.Equal(t, 26*time.Hour, controller.InformInterval)
}

// contentOf returns the rows of tables as text.
func contentOf(t *testing.T, pool *pgxpool.Pool, tables ...string) string {
	t.Helper()
	var all []string
	for _, table := range tables {
		tx, err := pool.Begin(t.Context())
		require.NoError(t, err)
		_, err = tx.Exec(t.Context(), "SET LOCAL TimeZone TO 'UTC'")
		require.NoError(t, err)
		rows, err := tx.Query(t.Context(), "SELECT o::text FROM "+table+" o ORDER BY 1")
		require.NoError(t, err)
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		require.NoError(t, err)
		require.NoError(t, tx.Rollback(t.Context()))
		all = append(all, lines...)
	}
	return strings.Join(all, "\n")
}

var notOurs = regexp.MustCompile(`delta_river_|_?river_job|goose_db_version|delta_goose_version`)

// cutOurs returns a dump without the objects of others in the schema.
func cutOurs(dump string) string {
	var lines []string
	for line := range strings.Lines(dump) {
		if !notOurs.MatchString(line) {
			lines = append(lines, line)
		}
	}
	return strings.TrimRight(strings.Join(lines, ""), "\n")
}
