package bridge_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/bridge"
	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

func TestATableIsFollowed(t *testing.T) {
	t.Parallel()
	h := newHarness(t, createAccount, `INSERT INTO account SELECT n, 'free' FROM generate_series(1, 30) n`)
	worker := newAccounts()
	c := h.startClient(h.addTable(worker))
	for n := range int64(30) {
		h.requireSynced(c, worker, account{Number: n + 1, Plan: "free"})
	}
	h.readAll(1)
	note := "first"
	h.exec(
		`INSERT INTO account VALUES (31, 'paid', 'first')`,
		`UPDATE account SET plan = 'paid' WHERE number = 1`,
		`UPDATE account SET number = 102 WHERE number = 2`,
		`DELETE FROM account WHERE number = 3`,
	)
	h.requireSynced(c, worker, account{Number: 31, Plan: "paid", Note: &note})
	h.requireSynced(c, worker, account{Number: 1, Plan: "paid"})
	h.requireSynced(c, worker, account{Number: 102, Plan: "free"})
	h.requireDeleted(c, worker, "2")
	h.requireDeleted(c, worker, "3")
	h.exec(`INSERT INTO account VALUES (3, 'back')`)
	h.requireSynced(c, worker, account{Number: 3, Plan: "back"})

	large := strings.Repeat("0123456789abcdef", 4000) // stored beside the table: an update that leaves it alone does not send it
	h.exec(`ALTER TABLE account ALTER note SET STORAGE EXTERNAL`, fmt.Sprintf(`INSERT INTO account VALUES (40, 'free', '%s')`, large), `UPDATE account SET plan = 'paid' WHERE number = 40`)
	h.requireSynced(c, worker, account{Number: 40, Plan: "paid", Note: &large})

	sources, err := c.Sources(t.Context())
	require.NoError(t, err)
	require.Len(t, sources, 1)
	require.Equal(t, "table "+h.Schema+".account", sources[0].Name)
	require.Empty(t, sources[0].Error)
	require.False(t, sources[0].IsSilent)
	var lsn, confirmed string
	waitUntil(t, func() bool {
		require.NoError(t, h.Pool.QueryRow(t.Context(), `SELECT s.position::json ->> 'lsn', r.confirmed_flush_lsn::text FROM delta_source s, pg_replication_slots r
			WHERE r.slot_name = $1`, h.listSlots()[0]).Scan(&lsn, &confirmed))
		return lsn == confirmed
	}, "the confirmed position is the written one")
}

func TestATruncateIsWithheldUntilItIsApproved(t *testing.T) {
	t.Parallel()
	h := newHarness(t, createAccount, `INSERT INTO account SELECT n, 'free' FROM generate_series(1, 20) n`)
	worker := newAccounts()
	c := h.startSynced(worker, 20)
	h.exec(`TRUNCATE account`)
	var withheld []delta.Withheld
	waitUntil(t, func() (is bool) {
		var err error
		withheld, err = c.Withheld(t.Context())
		require.NoError(t, err)
		return len(withheld) == 1
	})
	require.EqualValues(t, 20, withheld[0].Missing)
	require.Equal(t, deltatype.ResourceStateSynced, h.getRow(c, "account", "7").State)

	h.exec(`INSERT INTO account VALUES (7, 'new')`)
	h.requireSynced(c, worker, account{Number: 7, Plan: "new"})
	_, err := c.ApproveWithheld(t.Context(), "account", "", 20)
	require.NoError(t, err)
	for n := range int64(20) {
		if n+1 != 7 {
			h.requireDeleted(c, worker, account{Number: n + 1}.ID())
		}
	}
	require.Equal(t, deltatype.ResourceStateSynced, h.getRow(c, "account", "7").State)
	waitUntil(t, func() bool {
		withheld, err = c.Withheld(t.Context())
		require.NoError(t, err)
		return len(withheld) == 0
	})
}

// Changes that were lost are found by reading the table: new, changed and deleted rows, also of waiting resources.
func TestAfterALostSlotTheTableIsReadAgain(t *testing.T) {
	t.Parallel()
	h := newHarness(t, createAccount, `INSERT INTO account SELECT n, 'free' FROM generate_series(1, 30) n`)
	worker := newAccounts()
	c := h.startClient(h.addTable(worker))
	h.readAll(1)
	for n := range int64(30) {
		h.requireSynced(c, worker, account{Number: n + 1, Plan: "free"})
	}
	require.NoError(t, c.PauseKind(t.Context(), "account"))
	h.exec(`UPDATE account SET plan = 'waits' WHERE number = 5`)
	waitUntil(t, func() bool { return h.getRow(c, "account", "5").State == deltatype.ResourceStateScheduled })

	// The slot is dropped before the transaction can be read from it.
	tx, err := h.Pool.Begin(t.Context())
	require.NoError(t, err)
	for _, s := range []string{`DELETE FROM account WHERE number IN (4, 5)`, `INSERT INTO account VALUES (50, 'new')`, `UPDATE account SET plan = 'paid' WHERE number = 6`} {
		_, err := tx.Exec(t.Context(), s)
		require.NoError(t, err)
	}
	slot := h.listSlots()[0]
	waitUntil(t, func() bool {
		h.exec(fmt.Sprintf(`SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '%s' AND active`, slot))
		_, err := h.Pool.Exec(t.Context(), `SELECT pg_drop_replication_slot($1)`, slot)
		return err == nil
	})
	require.NoError(t, tx.Commit(t.Context()))

	h.readAll(2)
	require.NoError(t, c.ResumeKind(t.Context(), "account"))
	h.requireSynced(c, worker, account{Number: 50, Plan: "new"})
	h.requireSynced(c, worker, account{Number: 6, Plan: "paid"})
	h.requireDeleted(c, worker, "4")
	h.requireDeleted(c, worker, "5")
	h.exec(`INSERT INTO account VALUES (4, 'back')`)
	h.requireSynced(c, worker, account{Number: 4, Plan: "back"})
}

func TestARowThatCannotBeTakenStopsNoOther(t *testing.T) {
	t.Parallel()
	h := newHarness(t, `CREATE TABLE account (number bigint PRIMARY KEY, plan text, note text)`, `INSERT INTO account VALUES (1, NULL), (2, 'free')`)
	worker := newAccounts()
	c := h.startClient(h.addTable(worker))
	h.requireSynced(c, worker, account{Number: 2, Plan: "free"})
	h.exec(`INSERT INTO account VALUES (3, NULL), (4, 'paid')`)
	h.requireSynced(c, worker, account{Number: 4, Plan: "paid"})
	refused := func() (ids []string) {
		all, err := c.Refused(t.Context(), "account")
		require.NoError(t, err)
		for _, one := range all {
			require.Contains(t, one.Rule, `field Plan: column "plan" is NULL`)
			ids = append(ids, one.ObjectID)
		}
		return ids
	}
	waitUntil(t, func() bool { return len(refused()) == 2 })
	require.Equal(t, []string{"1", "3"}, refused())
	h.exec(`UPDATE account SET plan = 'paid' WHERE number = 1`, `DELETE FROM account WHERE number = 3`)
	h.requireSynced(c, worker, account{Number: 1, Plan: "paid"})
	waitUntil(t, func() bool { return len(refused()) == 0 })
}

func TestChangesOfTheTablesColumnsAreFollowed(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t, createAccount, `INSERT INTO account SELECT n, 'free' FROM generate_series(1, 3) n`)
	worker := newAccounts()
	c := h.startClient(h.addTable(worker))
	h.readAll(1)
	h.requireSynced(c, worker, account{Number: 3, Plan: "free"})

	h.exec(`ALTER TABLE account ADD tier text NOT NULL DEFAULT 'gold'`) // no row is written by that
	for n := range int64(3) {
		h.requireSynced(c, worker, account{Number: n + 1, Plan: "free", Tier: "gold"})
	}
	h.exec(`ALTER TABLE account ALTER number TYPE numeric`, `INSERT INTO account VALUES (4, 'free')`)
	h.requireSynced(c, worker, account{Number: 4, Plan: "free", Tier: "gold"})

	// If a column that the program needs is missing, no row is taken until it is back, and nothing is lost.
	h.exec(`ALTER TABLE account RENAME plan TO plans`, `INSERT INTO account VALUES (5, 'late')`)
	failure := func() string {
		sources, err := c.Sources(t.Context())
		require.NoError(t, err)
		return sources[0].Error
	}
	waitUntil(t, func() bool { return strings.Contains(failure(), `no column "plan", which the field Plan is read from`) }, "the source does not name its fault")
	h.exec(`ALTER TABLE account RENAME plans TO plan`)
	h.requireSynced(c, worker, account{Number: 5, Plan: "late", Tier: "gold"})
	waitUntil(t, func() bool { return failure() == "" }, "a source that goes on is shown as failing")
}

func TestATableThatIsMadeAnewIsFollowed(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t, createAccount, `INSERT INTO account SELECT n, 'free' FROM generate_series(1, 3) n`)
	worker := newAccounts()
	c := h.startClient(h.addTable(worker))
	h.readAll(1)
	h.requireSynced(c, worker, account{Number: 3, Plan: "free"})
	h.exec(`DROP TABLE account`, createAccount, `INSERT INTO account VALUES (1, 'paid'), (2, 'paid'), (4, 'new')`)
	h.requireSynced(c, worker, account{Number: 4, Plan: "new"})
	h.requireSynced(c, worker, account{Number: 1, Plan: "paid"})
	h.requireDeleted(c, worker, "3")
	h.exec(`UPDATE account SET plan = 'newer' WHERE number = 4`)
	h.requireSynced(c, worker, account{Number: 4, Plan: "newer"})
}

// Map chooses the rows that are objects, and may change.
func TestRowsAreMappedByAFunction(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t, `CREATE TABLE account (number bigint PRIMARY KEY, plan text NOT NULL, deleted_at timestamptz)`,
		`INSERT INTO account VALUES (1, 'free', NULL), (2, 'free', now())`)
	worker := newAccounts()
	byVersion := func(version int) func(*bridge.TableConfig[account]) {
		return func(config *bridge.TableConfig[account]) {
			config.Version = version
			config.Map = func(row bridge.Row) (a account, err error) {
				if _, isDeleted := row.Text("deleted_at"); isDeleted {
					return a, bridge.ErrNotObject
				}
				if err := row.Scan("number", &a.Number); err != nil {
					return a, err
				}
				a.Plan, _ = row.Text("plan")
				a.Plan = fmt.Sprintf("%s, by version %d", a.Plan, version)
				return a, nil
			}
		}
	}
	c := h.startClient(h.addTable(worker, byVersion(1)))
	h.readAll(1)
	h.requireSynced(c, worker, account{Number: 1, Plan: "free, by version 1"})
	require.Nil(t, h.getRow(c, "account", "2"))
	h.exec(`UPDATE account SET deleted_at = now() WHERE number = 1`, `UPDATE account SET deleted_at = NULL WHERE number = 2`)
	h.requireSynced(c, worker, account{Number: 2, Plan: "free, by version 1"})
	h.requireDeleted(c, worker, "1")
	require.NoError(t, c.Stop(t.Context()))

	c = h.startClient(h.addTable(worker, byVersion(2)))
	h.requireSynced(c, worker, account{Number: 2, Plan: "free, by version 2"})
}

// A row without a known object may belong to any resource, so no resource is taken for gone.
func TestNothingIsDeletedWhereRowsAreOfUnknownObjects(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t, `CREATE TABLE account (number bigint PRIMARY KEY, plan text, note text)`, `ALTER TABLE account REPLICA IDENTITY FULL`,
		`INSERT INTO account SELECT n, 'free' FROM generate_series(1, 20) n`)
	worker := newAccounts()
	c := h.startSynced(worker, 20)
	require.NoError(t, c.Stop(t.Context()))
	h.exec(`UPDATE account SET plan = NULL WHERE number = 7`)
	c = h.startClient(h.addTable(worker, func(config *bridge.TableConfig[account]) { config.Version = 2 }))
	waitUntil(t, func() bool {
		var n int
		require.NoError(t, h.Pool.QueryRow(context.Background(), `SELECT count(*) FROM delta_inform WHERE error LIKE '%cannot be mapped%'`).Scan(&n))
		return n == 1
	}, "the listing says why it is not complete")
	h.exec(`UPDATE account SET plan = 'paid' WHERE number = 8`)
	h.requireSynced(c, worker, account{Number: 8, Plan: "paid"})
	require.Equal(t, deltatype.ResourceStateSynced, h.getRow(c, "account", "7").State)
}

// Rows that a new Map leaves out are deletions like any other: too many are withheld.
func TestAMapThatTakesNothingDeletesNothing(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t, createAccount, `INSERT INTO account SELECT n, 'free' FROM generate_series(1, 20) n`)
	worker := newAccounts()
	c := h.startSynced(worker, 20)
	require.NoError(t, c.Stop(t.Context()))
	c = h.startClient(h.addTable(worker, func(config *bridge.TableConfig[account]) {
		config.Version = 2
		config.Map = func(bridge.Row) (account, error) { return account{}, bridge.ErrNotObject }
	}))
	waitUntil(t, func() bool {
		withheld, err := c.Withheld(t.Context())
		require.NoError(t, err)
		return len(withheld) == 1 && withheld[0].Missing == 20
	})
	require.Equal(t, deltatype.ResourceStateSynced, h.getRow(c, "account", "7").State)
}
