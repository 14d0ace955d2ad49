package bridge_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/bridge"
	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// Whatever happens to rows, clients and the slot, the resources finally equal the table: each row in its newest version, and nothing else.
func TestResourcesEndAsTheTableIs(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	endAs(t, `SELECT number, plan FROM account`)
}

func TestResourcesEndAsTheQueryIs(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	const odd = `SELECT plan || '!' AS plan, number, note FROM account WHERE number % 3 <> 0`
	endAs(t, odd, func(c *bridge.TableConfig[account]) { c.Query = odd })
}

// endAs changes the table at random, and requires that the resources finally equal the rows of a query over it.
func endAs(t *testing.T, wanted string, change ...func(*bridge.TableConfig[account])) {
	const numbers, rounds, changes = 40, 6, 60
	h := newHarness(t, createAccount)
	worker := newAccounts()
	unbounded := func(c *delta.Config) {
		c.Kinds = map[string]delta.ObjectSettings{"account": {MaxDeletedShare: 1}}
	}
	c := h.startClient(h.addTable(worker, change...), unbounded)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for round := range rounds {
		for range changes {
			number := random.IntN(numbers)
			plan := fmt.Sprintf("plan %d", random.IntN(1000))
			switch random.IntN(12) {
			case 0, 1, 2:
				h.exec(fmt.Sprintf(`DELETE FROM account WHERE number = %d`, number))
			case 3:
				h.exec(fmt.Sprintf(`UPDATE account SET number = %d WHERE number = %d AND NOT EXISTS (SELECT FROM account WHERE number = %[1]d)`, random.IntN(numbers), number))
			default:
				h.exec(fmt.Sprintf(`INSERT INTO account VALUES (%d, '%s') ON CONFLICT (number) DO UPDATE SET plan = excluded.plan`, number, plan))
			}
		}
		switch round % 3 {
		case 0:
			next := h.startClient(h.addTable(worker, change...), unbounded)
			require.NoError(t, c.Stop(context.Background()))
			c = next
		case 1:
			h.exec(`TRUNCATE account`)
		case 2:
			slot := h.listSlots()[0]
			waitUntil(t, func() bool {
				h.exec(fmt.Sprintf(`SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '%s' AND active`, slot))
				_, err := h.Pool.Exec(t.Context(), `SELECT pg_drop_replication_slot($1)`, slot)
				return err == nil
			})
		}
	}
	differences := func() (all []string) {
		rows, err := h.Pool.Query(t.Context(), `
			SELECT coalesce(a.number::text, r.object_id) || ': row ' || coalesce(a.plan, 'none') || ', resource ' || coalesce(r.state::text || ' ' || (r.object ->> 'plan'), 'none')
			FROM (`+wanted+`) a FULL JOIN (SELECT * FROM delta_resource WHERE kind = 'account') r ON r.object_id = a.number::text
			WHERE (a.number IS NULL AND r.state <> 'deleted')
				OR (a.number IS NOT NULL AND (r.state IS NULL OR r.state <> 'synced' OR r.object ->> 'plan' <> a.plan))`)
		require.NoError(t, err)
		defer rows.Close()
		for rows.Next() {
			var d string
			require.NoError(t, rows.Scan(&d))
			all = append(all, d)
		}
		require.NoError(t, rows.Err())
		return all
	}
	waitUntil(t, func() bool { return len(differences()) == 0 }, shown(differences))
	// The last call of Work had the object of the row.
	all, err := c.Get(t.Context(), "account", "1")
	if err == nil && all.State == deltatype.ResourceStateSynced {
		worker.mu.Lock()
		defer worker.mu.Unlock()
		require.Contains(t, string(all.EncodedObject), worker.worked["1"].Plan)
	}
}

// shown is looked at when it is shown.
type shown func() []string

func (s shown) String() string { return fmt.Sprint(s()) }
