package bridge_test

import (
	"context"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/soak"
	"github.com/chariot-giving/delta/internal/testproxy"
)

// throughProxy starts a client that connects to Postgres, and optionally to Temporal, through a proxy.
func (h *harness) throughProxy(controllers *delta.Controllers, temporalToo bool) (*delta.Client, *testproxy.Proxy, *testproxy.Proxy) {
	h.t.Helper()
	config, err := pgxpool.ParseConfig(h.DatabaseURL)
	require.NoError(h.t, err)
	postgres := testproxy.New(h.t, net.JoinHostPort(config.ConnConfig.Host, strconv.Itoa(int(config.ConnConfig.Port))))
	config.ConnConfig.DialFunc = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, postgres.Address)
	}
	config.ConnConfig.RuntimeParams["wal_sender_timeout"] = "0" // the server itself never notices that nothing comes
	pool, err := pgxpool.NewWithConfig(h.t.Context(), config)
	require.NoError(h.t, err)
	reach, temporal := h.Temporal, (*testproxy.Proxy)(nil)
	if temporalToo {
		temporal = testproxy.New(h.t, h.TemporalAddress)
		reach, err = client.Dial(client.Options{HostPort: temporal.Address, Namespace: h.TemporalNamespace, Logger: delta.TemporalLogger(h.Logger), ConnectionOptions: client.ConnectionOptions{GetSystemInfoTimeout: time.Minute}})
		require.NoError(h.t, err)
		h.t.Cleanup(reach.Close)
	}
	c, err := delta.NewClient(pool, &delta.Config{
		Controllers: controllers, Temporal: reach, TemporalNamespace: h.TemporalNamespace, WorkflowIDPrefix: h.Prefix, Logger: h.Logger,
	})
	require.NoError(h.t, err)
	require.NoError(h.t, c.Start(context.Background()))
	h.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = c.Stop(ctx) // it is cut off
	})
	return c, postgres, temporal
}

// Another client takes over the table if the running one vanishes and Postgres has not noticed, so that it still keeps the slot for a dead connection.
func TestAnotherClientGoesOnWithTheTable(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	for name, temporalToo := range map[string]bool{"of one that is gone": true, "of one that does not reach Postgres": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, createAccount, `INSERT INTO account VALUES (1, 'free')`)
			_, postgres, temporal := h.throughProxy(h.addTable(newAccounts()), temporalToo)
			h.readAll(1)
			worker := newAccounts()
			c := h.startClient(h.addTable(worker))
			epoch := func() (n int) {
				require.NoError(t, h.Pool.QueryRow(t.Context(), `SELECT epoch FROM delta_source`).Scan(&n))
				return n
			}
			before := epoch()
			postgres.Silence()
			if temporal != nil {
				temporal.Silence()
			}
			h.exec(`INSERT INTO account VALUES (2, 'paid')`, `DELETE FROM account WHERE number = 1`)
			h.requireSynced(c, worker, account{Number: 2, Plan: "paid"})
			h.requireDeleted(c, worker, "1")
			require.Greater(t, epoch(), before)
		})
	}
}

func TestAClientThatStopsLeavesTheTableToAnotherOne(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t, createAccount, `INSERT INTO account VALUES (1, 'free')`)
	first := h.startClient(h.addTable(newAccounts()))
	h.readAll(1)
	worker := newAccounts()
	c := h.startClient(h.addTable(worker))
	require.NoError(t, first.Stop(t.Context()))
	h.exec(`INSERT INTO account VALUES (2, 'paid')`)
	h.requireSynced(c, worker, account{Number: 2, Plan: "paid"})
	sources, err := c.Sources(t.Context())
	require.NoError(t, err)
	require.Zero(t, sources[0].Failures, "a stop is no failure: %s", sources[0].Error)
}
