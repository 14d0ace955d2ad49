package settings_test

import (
	"context"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc/internal/settings"
)

// Changes by the user's function take effect, and so do the settings of this package, whatever the function sets.
func TestSettingsHoldAfterBeforeConnect(t *testing.T) {
	t.Parallel()
	config, err := pgx.ParseConfig("postgres://nobody@localhost/db")
	require.NoError(t, err)
	before := func(_ context.Context, config *pgx.ConnConfig) error {
		config.Password = "token"
		config.RuntimeParams = map[string]string{"row_security": "on", "application_name": "mine", "lock_timeout": "5s"}
		return nil
	}
	own, err := settings.PrepareConfig(t.Context(), config, before)
	require.NoError(t, err)
	pooled, err := pgxpool.ParseConfig("")
	require.NoError(t, err)
	settings.PreparePool(pooled, config, before)
	connecting := pooled.ConnConfig.Copy()
	require.NoError(t, pooled.BeforeConnect(t.Context(), connecting))
	for _, c := range []*pgx.ConnConfig{own, connecting} {
		require.Equal(t, "token", c.Password)
		require.Equal(t, "off", c.RuntimeParams["row_security"])
		require.Equal(t, "UTF8", c.RuntimeParams["client_encoding"])
		require.Equal(t, "C", c.RuntimeParams["lc_monetary"])
		require.Equal(t, "mine", c.RuntimeParams["application_name"])
		require.Equal(t, "5s", c.RuntimeParams["lock_timeout"], "a timeout of the connection string is kept")
		require.Equal(t, "0", c.RuntimeParams["statement_timeout"])
	}
	require.Empty(t, config.Password, "the caller's configuration is not changed")
	require.NotContains(t, config.RuntimeParams, "row_security")

	none := errors.New("no token")
	refuses := func(context.Context, *pgx.ConnConfig) error { return none }
	_, err = settings.PrepareConfig(t.Context(), config, refuses)
	require.ErrorIs(t, err, none)
	settings.PreparePool(pooled, config, refuses)
	require.ErrorIs(t, pooled.BeforeConnect(t.Context(), connecting), none)
	settings.PreparePool(pooled, config, nil)
}
