package bridge_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/bridge"
	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// byQuery makes the objects the rows of a query.
func byQuery(sql string) func(*bridge.TableConfig[account]) {
	return func(c *bridge.TableConfig[account]) { c.Query = sql }
}

// createContract creates tables in which only the key has the name of a field.
const (
	createContract = `CREATE TABLE account (number bigint PRIMARY KEY, plan_code text NOT NULL, remark text, closed boolean NOT NULL DEFAULT false)`
	createPlan     = `CREATE TABLE plan (code text PRIMARY KEY, label text NOT NULL)`
	openContracts  = `SELECT p.label AS plan, a.number, a.remark AS note FROM account a JOIN plan p ON p.code = a.plan_code WHERE NOT a.closed -- the others are no objects`
)

func TestAQueryOverATableIsFollowed(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t, createContract, createPlan, `INSERT INTO plan VALUES ('f', 'free'), ('p', 'paid')`,
		`INSERT INTO account SELECT n, 'f', NULL, n > 20 FROM generate_series(1, 30) n`)
	worker := newAccounts()
	c := h.startClient(h.addTable(worker, byQuery(openContracts)))
	h.readAll(1)
	for n := range int64(20) {
		h.requireSynced(c, worker, account{Number: n + 1, Plan: "free"})
	}
	note := "first"
	h.exec(
		`INSERT INTO account VALUES (31, 'p', 'first', false), (32, 'p', NULL, true), (33, 'no such plan', NULL, false)`,
		`UPDATE account SET plan_code = 'p' WHERE number = 1`,
		`UPDATE account SET number = 102 WHERE number = 2`,
		`DELETE FROM account WHERE number = 3`,
		`UPDATE account SET closed = true WHERE number = 4`,
		`UPDATE account SET closed = false WHERE number = 21`,
	)
	h.requireSynced(c, worker, account{Number: 31, Plan: "paid", Note: &note})
	h.requireSynced(c, worker, account{Number: 1, Plan: "paid"})
	h.requireSynced(c, worker, account{Number: 102, Plan: "free"})
	h.requireDeleted(c, worker, "2")
	h.requireDeleted(c, worker, "3")
	h.requireDeleted(c, worker, "4")
	h.requireSynced(c, worker, account{Number: 21, Plan: "free"})
	for _, none := range []string{"22", "32", "33"} {
		require.Nil(t, h.getRow(c, "account", none), "a row that the query does not give is no object")
	}
	h.exec(`UPDATE account SET closed = false WHERE number = 4`)
	h.requireSynced(c, worker, account{Number: 4, Plan: "free"})

	// More than one page of keys, of one transaction, and a text that is large.
	large := strings.Repeat("0123456789abcdef", 4000)
	h.exec(`UPDATE account SET remark = '`+large+`' WHERE number = 5`, `INSERT INTO account SELECT n, 'p' FROM generate_series(1001, 3500) n`)
	h.requireSynced(c, worker, account{Number: 5, Plan: "free", Note: &large})
	waitUntil(t, func() bool {
		var n int
		require.NoError(t, h.Pool.QueryRow(t.Context(), `SELECT count(*) FROM delta_resource WHERE kind = 'account' AND state = 'synced' AND object ->> 'plan' = 'paid'`).Scan(&n))
		return n == 2502
	})
}

// A changed query, as after a deployment, makes the client read the table again.
func TestAChangedQueryHasTheTableReadAgain(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t, createContract, createPlan, `INSERT INTO plan VALUES ('f', 'free')`, `INSERT INTO account SELECT n, 'f' FROM generate_series(1, 20) n`)
	worker := newAccounts()
	c := h.startClient(h.addTable(worker, byQuery(openContracts)))
	h.readAll(1)
	h.requireSynced(c, worker, account{Number: 20, Plan: "free"})
	require.NoError(t, c.Stop(t.Context()))
	c = h.startClient(h.addTable(worker, byQuery(`SELECT number, upper(plan_code) AS plan, remark AS note FROM account WHERE number <> 20`)))
	h.readAll(2)
	h.requireSynced(c, worker, account{Number: 19, Plan: "F"})
	h.requireDeleted(c, worker, "20")
}

// Rows that a changed query no longer returns are deletions like any other: too many are withheld.
func TestAQueryThatGivesNothingDeletesNothing(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t, createAccount, `INSERT INTO account SELECT n, 'free' FROM generate_series(1, 20) n`)
	worker := newAccounts()
	c := h.startSynced(worker, 20)
	require.NoError(t, c.Stop(t.Context()))
	c = h.startClient(h.addTable(worker, byQuery(`SELECT * FROM account WHERE false`)))
	waitUntil(t, func() bool {
		withheld, err := c.Withheld(t.Context())
		require.NoError(t, err)
		return len(withheld) == 1 && withheld[0].Missing == 20
	})
	require.Equal(t, deltatype.ResourceStateSynced, h.getRow(c, "account", "7").State)
}

// seat has a key of two columns, with the separator in their texts.
type seat struct {
	Hall   string `json:"hall"`
	Number int32  `json:"number"`
	Taken  bool   `json:"taken"`
}

func (s seat) ID() string { return bridge.KeyID(s.Hall, strconv.Itoa(int(s.Number))) }
func (seat) Kind() string { return "seat" }

type seats struct{ delta.WorkerDefaults[seat] }

func (seats) Work(context.Context, *delta.Resource[seat]) error { return nil }

func TestAQueryIsReadByAKeyOfSeveralColumns(t *testing.T) {
	t.Parallel()
	h := newHarness(t, `CREATE TABLE seat (hall varchar(20), number integer, guest text, PRIMARY KEY (number, hall))`,
		`INSERT INTO seat VALUES ('a,b', 1), ('a', 1), ('a', 2), ('{"}', 1), (E'\\', 1)`)
	controllers := delta.NewControllers()
	bridge.Table(controllers, seats{}, bridge.TableConfig[seat]{
		Table: "seat", Schema: h.Schema, Query: `SELECT guest IS NOT NULL AS taken, number, hall FROM seat`, Map: func(row bridge.Row) (s seat, err error) {
			s.Hall, _ = row.Text("hall")
			return s, errors.Join(row.Scan("number", &s.Number), row.Scan("taken", &s.Taken))
		},
	})
	c := h.startClient(controllers)
	is := func(id string, state deltatype.ResourceState, contains string) {
		t.Helper()
		waitUntil(t, func() bool {
			row := h.getRow(c, "seat", id)
			return row != nil && row.State == state && strings.Contains(strings.ReplaceAll(string(row.EncodedObject), " ", ""), contains)
		}, id)
	}
	for _, id := range []string{`a\,b,1`, `a,1`, `a,2`, `{"},1`, `\\,1`} {
		is(id, deltatype.ResourceStateSynced, `"taken":false`)
	}
	h.exec(`UPDATE seat SET guest = 'she' WHERE number = 1`, `UPDATE seat SET hall = 'c' WHERE number = 2`, `DELETE FROM seat WHERE hall = 'a,b'`)
	for _, id := range []string{`a,1`, `{"},1`, `\\,1`} {
		is(id, deltatype.ResourceStateSynced, `"taken":true`)
	}
	is(`c,2`, deltatype.ResourceStateSynced, `"taken":false`)
	is(`a,2`, deltatype.ResourceStateDeleted, "")
	is(`a\,b,1`, deltatype.ResourceStateDeleted, "")
}

func TestAKeyThatChangesIsFollowed(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t, createContract, `INSERT INTO account SELECT n, 'f' FROM generate_series(1, 20) n`)
	worker := newAccounts()
	c := h.startClient(h.addTable(worker, byQuery(`SELECT number, plan_code AS plan, remark AS note FROM account`)))
	h.readAll(1)
	h.requireSynced(c, worker, account{Number: 20, Plan: "f"})
	h.exec(`ALTER TABLE account ALTER remark SET DEFAULT 'none', DROP CONSTRAINT account_pkey, ADD UNIQUE (number), REPLICA IDENTITY FULL`,
		`UPDATE account SET plan_code = 'p' WHERE number = 1`)
	waitUntil(t, func() bool {
		sources, err := c.Sources(t.Context())
		require.NoError(t, err)
		return strings.Contains(sources[0].Error, "no primary key, nor an index that is its replica identity")
	})
	h.exec(`ALTER TABLE account ALTER number TYPE integer, ADD PRIMARY KEY (number), REPLICA IDENTITY DEFAULT`, `DELETE FROM account WHERE number = 2`)
	h.requireSynced(c, worker, account{Number: 1, Plan: "p"})
	h.requireDeleted(c, worker, "2")
}

// If a query returns several rows for an object, the object is refused until there is one row.
func TestSeveralRowsOfAKeyAreRefused(t *testing.T) {
	t.Parallel()
	h := newHarness(t, createContract, createPlan, `INSERT INTO plan VALUES ('f', 'free')`, `INSERT INTO account SELECT n, 'f' FROM generate_series(1, 3) n`,
		`CREATE TABLE note (number bigint, note text)`, `INSERT INTO note VALUES (1, 'one'), (2, 'one'), (2, 'another')`)
	worker := newAccounts()
	c := h.startClient(h.addTable(worker, byQuery(`SELECT a.number, 'free' AS plan, n.note FROM account a LEFT JOIN note n USING (number)`)))
	note := "one"
	h.requireSynced(c, worker, account{Number: 1, Plan: "free", Note: &note})
	h.requireSynced(c, worker, account{Number: 3, Plan: "free"})
	waitUntil(t, func() bool {
		all, err := c.Refused(t.Context(), "account")
		require.NoError(t, err)
		return len(all) == 1 && all[0].ObjectID == "2" && strings.Contains(all[0].Rule, "several rows of the same key")
	})
	h.exec(`DELETE FROM note WHERE note = 'another'`, `UPDATE account SET remark = 'touched' WHERE number = 2`)
	h.requireSynced(c, worker, account{Number: 2, Plan: "free", Note: &note})
	waitUntil(t, func() bool {
		all, err := c.Refused(t.Context(), "account")
		require.NoError(t, err)
		return len(all) == 0
	})
}

func TestAQueryThatCannotBeReadIsNamed(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t, createContract, `INSERT INTO account VALUES (1, 'f')`, `CREATE VIEW wanted AS SELECT number, plan_code AS plan, remark AS note FROM account`)
	worker := newAccounts()
	c := h.startClient(h.addTable(worker, byQuery(`SELECT * FROM wanted`)))
	h.readAll(1)
	h.requireSynced(c, worker, account{Number: 1, Plan: "f"})
	for _, bad := range []struct{ view, says string }{
		{"", `relation "wanted" does not exist`},
		{`SELECT plan_code AS plan FROM account`, `does not give the column "number", which is of the table's key`},
		{`SELECT number::text, plan_code AS plan FROM account`, `gives the column "number", which is of the table's key, as another type than the table's bigint`},
		{`SELECT number, plan_code, remark AS note FROM account`, `has no column "plan", which the field Plan is read from`},
	} {
		h.exec(`DROP VIEW IF EXISTS wanted`)
		if bad.view != "" {
			h.exec(`CREATE VIEW wanted AS ` + bad.view)
		}
		waitUntil(t, func() bool {
			sources, err := c.Sources(t.Context())
			require.NoError(t, err)
			return strings.Contains(sources[0].Error, bad.says) && strings.Contains(sources[0].Error, "TableConfig.Query over table "+h.Schema+".account")
		}, bad.says)
	}
	h.exec(`INSERT INTO account VALUES (2, 'late')`, `DROP VIEW wanted`, `CREATE VIEW wanted AS SELECT number, plan_code AS plan, remark AS note FROM account`)
	h.requireSynced(c, worker, account{Number: 2, Plan: "late"})
}
