//go:build unix

package main

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/hostile"
)

// poolerURL returns the URL of the installation's schema through PgBouncer.
func (i *installation) poolerURL(settings ...string) string {
	i.t.Helper()
	config, err := pgx.ParseConfig(i.DatabaseURL)
	require.NoError(i.t, err)
	through := hostile.PgBouncer(i.t, config, 0, settings...)
	return fmt.Sprintf("postgres://%s@%s:%d/%s", through.User, through.Host, through.Port, through.Database)
}

func TestDoctorNamesAPoolerInTransactionMode(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	doctor := func(url string) map[string]checkJSON {
		t.Helper()
		return decodeChecks(t, inProcess(t.Context(), streams{}, "doctor", "-o", "json", "--database-url", url,
			"--temporal-address", i.TemporalAddress, "--temporal-namespace", i.TemporalNamespace, "--prefix", i.Prefix))
	}
	found := doctor(i.poolerURL())
	require.Equal(t, delta.CheckWarning, found["pooler"].Status, "%+v", found)
	require.Contains(t, found["pooler"].Detail, "in transaction mode")
	require.Contains(t, found["pooler"].Remedy, "the address of Postgres itself")
	require.Equal(t, delta.CheckOK, found["database"].Status)
	require.Equal(t, delta.CheckOK, found["schema"].Status, "all else is looked at, without prepared statements: %+v", found["schema"])

	require.Equal(t, delta.CheckOK, doctor(i.poolerURL("pool_mode=session"))["pooler"].Status)
	require.NotContains(t, doctor(i.DatabaseURL), "pooler", "a direct connection")
}
