package v1_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	v1 "github.com/chariot-giving/delta/cdc/server/v1"
	"github.com/chariot-giving/delta/internal/cdctest"
)

// newRestrictedRole creates a role that may replicate and owns the schema public and its tables. It is not a superuser.
func newRestrictedRole(t *testing.T, d *cdctest.Database) string {
	t.Helper()
	role := d.Name + "_role"
	d.Exec(`create role `+role+` login replication password 'x'`, `grant create on database `+d.Name+` to `+role, `alter schema public owner to `+role)
	t.Cleanup(func() {
		d.Exec(`drop owned by ` + role)
		cdctest.Administer(t, `drop owned by `+role)
		cdctest.Administer(t, `drop role `+role)
	})
	return role
}

func withRole(role string) func(*v1.Config) {
	return func(c *v1.Config) { c.Conn.User, c.Conn.Password = role, "x" }
}

// awaitPublished waits until the updates of a table are published, or are not.
func (s *server) awaitPublished(table string, updates bool) {
	s.t.Helper()
	s.eventually(`SELECT EXISTS (SELECT FROM pg_publication_tables WHERE pubname LIKE '%changes' AND schemaname || '.' || tablename = $1) = $2`, table, updates)
}

func TestTablesWithoutAnIdentityCanBeUpdated(t *testing.T) {
	t.Parallel()
	for name, super := range map[string]bool{"superuser": true, "owner": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := cdctest.New(t)
			set := func(*v1.Config) {}
			if !super {
				set = withRole(newRestrictedRole(t, d))
			}
			d.Exec(
				`create table keyless (id int)`, `create table keyed (id int primary key, v text)`,
				`create table nothing (id int primary key)`, `alter table nothing replica identity nothing`,
				`create table whole (id int)`, `alter table whole replica identity full`,
				`create table computed (id int, g int generated always as (id + 1) stored)`, `alter table computed replica identity full`,
				`create table deferred (id int primary key deferrable)`,
				`create table part (id int) partition by range (id)`, `create table part_keyless partition of part for values from (0) to (10)`, `create table part_keyed partition of part (primary key (id)) for values from (10) to (20)`,
				`create table root (id int primary key) partition by range (id)`, `create table root_1 partition of root for values from (0) to (10)`,
				`create unlogged table unlogged (id int primary key)`,
				`create schema "Other ""x"""`, `create table "Other ""x"""."T t" (id int primary key)`,
			)
			if !super {
				for _, schema := range []string{"public", `Other "x"`} {
					d.Exec(`do $$ declare t regclass; begin
						execute format('grant all on schema %I to ` + d.Name + `_role', '` + schema + `');
						for t in select c.oid from pg_class c join pg_namespace n on n.oid = relnamespace where relkind in ('r', 'p') and nspname = '` + schema + `' loop
							execute format('alter table %s owner to ` + d.Name + `_role', t); end loop; end $$`)
				}
			}
			s := serveOn(t, d, set)
			c := s.dialStream(s.init())
			computed := []string{"insert computed 1", "update computed 2", "delete computed 2"}
			if cdctest.Query[int](d, `select current_setting('server_version_num')::int`) >= 180000 {
				computed = computed[:1]
			}
			s.Exec(`insert into computed values (1)`, `update computed set id = 2`, `delete from computed`)
			for _, change := range computed {
				_, rows := c.receiveRows()
				require.Equal(t, []string{change}, rows)
			}
			s.Exec(`begin; insert into keyless values (1); update keyless set id = 2; delete from keyless; insert into nothing values (3); update nothing set id = 4; delete from nothing;
				insert into deferred values (5); update deferred set id = 6; delete from deferred;
				insert into whole values (7); update whole set id = 8; delete from whole; insert into keyed values (9); update keyed set v = 'x'; delete from keyed;
				insert into part values (0), (10); update part set id = id + 1; delete from part; insert into root values (1); update root set id = 2; delete from root;
				insert into unlogged values (1); insert into "Other ""x"""."T t" values (1); delete from "Other ""x"""."T t"; commit`)
			_, rows := c.receiveRows()
			require.Equal(t, []string{
				"insert keyless 1", "insert nothing 3", "insert deferred 5", "insert whole 7", "update whole 8", "delete whole 8", "insert keyed 9", "update keyed 9", "delete keyed 9",
				"insert part_keyless 0", "insert part_keyed 10", "update part_keyed 11", "delete part_keyed 11", "insert root_1 1", "update root_1 2", "delete root_1 2", "insert T t 1", "delete T t 1",
			}, rows)
		})
	}
}

func TestNewTablesAreStreamed(t *testing.T) {
	t.Parallel()
	s := newServer(t, []string{`create table root (id int primary key) partition by range (id)`})
	c := s.dialStream(s.init())
	// A superuser's stream has all inserts, and all changes of new partitions of a known table, from the first one on.
	s.Exec(`begin; create table later (id int primary key); insert into later values (1); create table root_1 partition of root for values from (0) to (10); insert into root values (1); update root set id = 2; commit`)
	_, rows := c.receiveRows()
	require.Equal(t, []string{"insert later 1", "insert root_1 1", "update root_1 2"}, rows)
	s.awaitPublished("public.later", true)
	s.Exec(`update later set id = 2`)
	_, rows = c.receiveRows()
	require.Equal(t, []string{"update later 2"}, rows)
	// A table that loses its identity is removed from the publication, so that it can still be updated.
	s.Exec(`alter table later drop constraint later_pkey`)
	s.awaitPublished("public.later", false)
	s.Exec(`update later set id = 3`, `insert into later values (4)`)
	_, rows = c.receiveRows()
	require.Equal(t, []string{"insert later 4"}, rows)
	s.Exec(`alter table later add primary key (id)`)
	s.awaitPublished("public.later", true)
	s.Exec(`delete from later where id = 4`)
	_, rows = c.receiveRows()
	require.Equal(t, []string{"delete later 4"}, rows)
}

func TestOnlyAllowedTablesAreReadAndStreamed(t *testing.T) {
	t.Parallel()
	s := newServer(t, []string{`create table shown (id int primary key)`, `create table hidden (id int primary key)`, `create table hidden_keyless (id int)`},
		func(c *v1.Config) { c.Tables = []string{"public.shown*"} })
	c := s.dialStream(s.init())
	s.Exec(`begin; insert into hidden values (1); insert into hidden_keyless values (1); insert into shown values (1); commit`)
	_, rows := c.receiveRows()
	require.Equal(t, []string{"insert shown 1"}, rows)
	status, answer := s.request(http.MethodPost, "/v1/snapshot/data", `{"table": "hidden", "offset": 0, "limit": 5}`)
	require.Equal(t, http.StatusNotFound, status, answer)
	require.Equal(t, `[]`, s.readSnapshot(`{"table": "shown", "offset": 0, "limit": 5}`))
}

func TestNarrowerTablesApplyToTheExistingSlot(t *testing.T) {
	t.Parallel()
	s := newServer(t, []string{`create table shown (id int primary key)`, `create table hidden (id int primary key)`})
	slot := s.init()
	s.close()
	next := serveOn(t, s.Database, func(c *v1.Config) { c.Tables = []string{"public.shown"} })
	next.awaitPublished("public.hidden", false)
	next.eventually(`SELECT NOT puballtables FROM pg_publication WHERE pubname LIKE '%inserts'`)
	s.Exec(`insert into hidden values (1)`, `insert into shown values (1)`)
	_, rows := next.dialStream(slot).receiveRows()
	require.Equal(t, []string{"insert shown 1"}, rows)
}

func TestADroppedPublicationIsCreatedAgain(t *testing.T) {
	t.Parallel()
	s := newServer(t, append(testTable, `create table keyless (id int)`), func(c *v1.Config) { c.Tables = []string{"public.*"} })
	c := s.dialStream(s.init())
	s.Exec(`drop publication delta_stream_default_inserts`)
	s.eventually(`SELECT EXISTS (SELECT FROM pg_publication_tables WHERE pubname = 'delta_stream_default_inserts' AND tablename = 'keyless')`)
	s.Exec(`begin; insert into keyless values (1); insert into test_table values (100, 'a'); commit`)
	_, rows := c.receiveRows()
	require.Equal(t, []string{"insert keyless 1", "insert test_table 100"}, rows)
}

func TestPublicationsOfOthersAreNotTouched(t *testing.T) {
	t.Parallel()
	s := newServer(t, append(testTable, `create publication delta_stream_default_changes for table test_table`, `comment on publication delta_stream_default_changes is 'mine'`))
	status, answer := s.request(http.MethodGet, "/v1/init", "")
	require.Equal(t, http.StatusInternalServerError, status)
	require.Contains(t, answer, `"error":"unable to init session"`)
	require.Contains(t, answer, "was not created by this installation")
	require.Equal(t, "mine", cdctest.Query[string](s.Database, `SELECT obj_description(oid, 'pg_publication') FROM pg_publication`))
	require.Zero(t, cdctest.Query[int](s.Database, `SELECT count(*)::int FROM pg_replication_slots WHERE database = current_database()`))
	// Another name for the installation helps.
	other := serveOn(t, s.Database, func(c *v1.Config) { c.Installation = "second" })
	other.init()
}

func TestMissingPrivilegesAreExplained(t *testing.T) {
	t.Parallel()
	d := cdctest.New(t)
	d.Exec(testTable...)
	role := newRestrictedRole(t, d)
	s := serveOn(t, d, withRole(role))
	s.Exec(`alter role ` + role + ` noreplication`)
	status, answer := s.request(http.MethodGet, "/v1/init", "")
	require.Equal(t, http.StatusInternalServerError, status)
	require.Contains(t, answer, "REPLICATION (ALTER ROLE")
	s.Exec(`alter role `+role+` replication`, `revoke create on database `+d.Name+` from `+role, `drop publication delta_stream_default_changes`)
	status, answer = s.request(http.MethodGet, "/v1/init", "")
	require.Equal(t, http.StatusInternalServerError, status)
	require.Contains(t, answer, "needs CREATE on the database")
	s.Exec(`grant create on database ` + d.Name + ` to ` + role)
	s.init()
	require.Contains(t, s.log.String(), "the role does not own them")
	status, answer = s.request(http.MethodPost, "/v1/snapshot/data", `{"table": "test_table", "offset": 0, "limit": 5}`)
	require.Equal(t, http.StatusInternalServerError, status)
	require.Contains(t, answer, "permission denied for table test_table")
	s.Exec(`alter table test_table owner to ` + role)
	require.True(t, strings.HasPrefix(s.readSnapshot(`{"table": "test_table", "offset": 0, "limit": 5}`), `[{"id":1,`))
	s.awaitPublished("public.test_table", true)
}
