package migrations_test

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
	"github.com/chariot-giving/delta/migrations"
)

func TestTheWayDownGivesTheOriginalItsTablesAndWhatBecameOfThem(t *testing.T) {
	t.Parallel()
	for name, migrate := range ways {
		t.Run(name, func(t *testing.T) {
			pool := openOriginal(t, riverSettings)
			hour := timeAgo(time.Hour)
			for _, r := range []riverRow{
				{id: "kept", state: "synced", attempt: 3, max: 10, attempted: hour, synced: hour, tags: "{a,b}", errors: "{" + failureJSON(1) + "}"},
				{id: "gone", state: "synced", attempt: 1, max: 10, attempted: hour, synced: hour},
				{id: "again", state: "synced", attempt: 1, max: 10, attempted: hour, synced: hour},
				{id: "worked", state: "scheduled", max: 10},
				{id: "changed", state: "synced", attempt: 1, max: 10, attempted: hour, synced: hour},
			} {
				r.insert(t, pool)
			}
			before := dump(t, pool)
			kept := contentOf(t, pool, "(SELECT * FROM delta_resource WHERE object_id = 'kept')")
			settings := contentOf(t, pool, "delta_namespace", "delta_controller")
			migrate(t, pool, "up")

			// Changes before the migration is reverted.
			_, err := pool.Exec(t.Context(), `
				DELETE FROM delta_resource WHERE object_id IN ('gone', 'again');
				INSERT INTO delta_resource (kind, object_id, namespace, max_attempts, hash, object, state, tags) VALUES
					('user', 'again', 'default', 4, '\x01', '{"n": 1}', 'scheduled', '{x}'),
					('user', 'new', 'default', 4, '\x01', '{"n": 1}', 'pending', '{x}');
				UPDATE delta_resource SET state = 'synced', synced_at = now(), attempted_at = now(), attempt = 1, snoozes = 1, sync_count = 1,
					synced_generation = generation, due_at = now() WHERE object_id = 'worked';
				UPDATE delta_resource SET object = '{"n": 2}', hash = sha256('2'), state = 'failed', generation = 2, errors = ARRAY[jsonb '{"error": "e"}']
					WHERE object_id = 'changed'`)
			require.NoError(t, err)
			migrate(t, pool, "down")

			require.Equal(t, cutTheirs(before), cutTheirs(dump(t, pool)), "the schema is the original's")
			require.Equal(t, settings, contentOf(t, pool, "delta_namespace", "delta_controller"))
			require.Equal(t, kept, contentOf(t, pool, "(SELECT * FROM delta_resource WHERE object_id = 'kept')"))
			require.Equal(t, `(again,scheduled,0,f,"\\x01","{""n"": 1}",{x},)
(changed,failed,1,f,"\\xd4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35","{""n"": 2}",{},"{""{\\""error\\"": \\""e\\""}""}")
(kept,synced,3,t,same,"{""id"": ""kept""}","{a,b}",same)
(new,scheduled,0,f,"\\x01","{""n"": 1}",{x},)
(worked,synced,1,t,same,"{""id"": ""worked""}",{},)`, contentOf(t, pool, `(
				SELECT object_id, state, attempt, synced_at IS NOT NULL AS synced,
					CASE WHEN hash = sha256(object_id::bytea) THEN 'same' ELSE hash::text END AS hash, object, tags,
					CASE WHEN object_id = 'kept' THEN 'same' ELSE errors::text END AS errors
				FROM delta_resource)`))
			_, err = pool.Exec(t.Context(), `
				INSERT INTO delta_resource (object_id, kind, max_attempts) VALUES ('next', 'user', 1)`)
			require.NoError(t, err, "the sequence goes on where it was")

			// And forward again.
			migrate(t, pool, "up")
			require.Equal(t, newestVersion(t), readVersion(t, pool))
			row, err := db.New().GetResource(t.Context(), pool, db.GetResourceParams{Kind: "user", ObjectID: "kept"})
			require.NoError(t, err)
			require.Equal(t, deltatype.ResourceStateSynced, row.Resource.State)
			require.EqualValues(t, 2, row.Resource.SyncCount)
		})
	}
}

// cutTheirs returns a dump without the history of Delta's migrations.
func cutTheirs(dump string) string {
	var lines []string
	for line := range strings.Lines(dump) {
		if !strings.Contains(line, "delta_goose_version") {
			lines = append(lines, line)
		}
	}
	return strings.TrimRight(strings.Join(lines, ""), "\n")
}

func TestEachVersionOfTheOriginalIsTakenOver(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	for name, change := range map[string]string{
		"first": `ALTER TABLE delta_resource DROP COLUMN external_created_at;
			DROP TABLE delta_controller;
			CREATE TABLE delta_controller_inform (id serial PRIMARY KEY, resource_kind text NOT NULL, last_inform_time timestamptz)`,
		"without the time of creation outside": `ALTER TABLE delta_resource DROP COLUMN external_created_at`,
		"with reconciliation": `ALTER TABLE delta_controller
			ADD COLUMN reconcile_interval interval NOT NULL DEFAULT '0', ADD COLUMN last_reconcile_time timestamptz NOT NULL DEFAULT '1970-01-01 00:00:00Z'`,
		"without unused indexes": `DROP INDEX delta_resource_object_index, delta_resource_metadata_index, delta_resource_object_id, delta_resource_external_created_at`,
		"with an index, a check, a view and a column of the user's": `CREATE INDEX mine ON delta_resource (state);
			ALTER TABLE delta_resource ADD CONSTRAINT delta_resource_priority_range CHECK (attempt < 9); CREATE INDEX delta_resource_dispatch_idx ON delta_resource (kind);
			 ALTER TABLE delta_resource ADD COLUMN mine text;
			CREATE VIEW mine_too AS SELECT count(*) FROM delta_resource`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := openOriginal(t, change)
			riverRow{id: "a", state: "synced", attempt: 1, max: 10, synced: timeAgo(0)}.withoutExternal(t, pool)
			before := dump(t, pool)
			require.NoError(t, migrations.Up(t.Context(), pool))
			row, err := db.New().GetResource(t.Context(), pool, db.GetResourceParams{Kind: "user", ObjectID: "a"})
			require.NoError(t, err)
			require.EqualValues(t, 1, row.Resource.SyncedGeneration)
			require.NoError(t, migrations.Down(t.Context(), pool))
			if !strings.Contains(change, "external_created_at;") && !strings.HasSuffix(change, "COLUMN external_created_at") {
				require.Equal(t, cutTheirs(before), cutTheirs(dump(t, pool)))
			}
		})
	}
}

func (r riverRow) withoutExternal(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	_, err := pool.Exec(t.Context(), `
		INSERT INTO delta_resource (state, attempt, max_attempts, synced_at, object_id, kind) VALUES ($1, $2, $3, $4, $5, 'user')`,
		r.state, r.attempt, r.max, r.synced, r.id)
	require.NoError(t, err)
}

func TestAnEmptyInstallationOfTheOriginalIsTakenOver(t *testing.T) {
	t.Parallel()
	pool := openOriginal(t)
	before := dump(t, pool)
	require.NoError(t, migrations.Up(t.Context(), pool))
	require.NoError(t, migrations.Up(t.Context(), pool))
	require.Empty(t, contentOf(t, pool, "delta_resource", "delta_namespace", "delta_controller"))
	require.NoError(t, migrations.Down(t.Context(), pool))
	require.Equal(t, cutTheirs(before), cutTheirs(dump(t, pool)))
}

func TestATakeoverThatFailsLeavesTheOriginalAsItWas(t *testing.T) {
	t.Parallel()
	pool := openOriginal(t, riverSettings, `CREATE TABLE delta_listing (of_somebody_else integer)`)
	riverRow{id: "a", state: "synced", attempt: 1, max: 10, synced: timeAgo(0)}.insert(t, pool)
	before, rows := dump(t, pool), contentOf(t, pool, "delta_resource", "delta_namespace", "delta_controller")
	require.ErrorContains(t, migrations.Up(t.Context(), pool), "delta_listing")
	require.Equal(t, cutTheirs(before), cutTheirs(dump(t, pool)))
	require.Equal(t, rows, contentOf(t, pool, "delta_resource", "delta_namespace", "delta_controller"))
}

func TestWhoDroppedWhatWasKeptCanStillGoDownAndUp(t *testing.T) {
	t.Parallel()
	pool := openOriginal(t, riverSettings)
	riverRow{id: "a", state: "synced", attempt: 1, max: 10, synced: timeAgo(0)}.insert(t, pool)
	require.NoError(t, migrations.Up(t.Context(), pool))
	_, err := pool.Exec(t.Context(), `
		DROP TABLE delta_river_resource, delta_river_namespace, delta_river_controller;
		DROP TYPE delta_river_resource_state`)
	require.NoError(t, err)
	require.Equal(t, cutOurs(dump(t, deltatest.New(t).Pool)), cutOurs(dump(t, pool)))
	require.NoError(t, migrations.Down(t.Context(), pool))
	require.Empty(t, cutOurs(dump(t, pool)))
	require.NoError(t, migrations.Up(t.Context(), pool))
	require.Empty(t, contentOf(t, pool, "delta_resource"))
}
