//go:build unix

package server_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/cdc/server"
	"github.com/chariot-giving/delta/internal/cdctest"
	"github.com/chariot-giving/delta/internal/hostile"
)

// A pooler cannot replicate. Its own error would be about a parameter that the user did not set.
func TestAPoolerIsRefusedWithAReason(t *testing.T) {
	t.Parallel()
	config := hostile.MakeEncoded(t, cdctest.Admin(t), "UTF8")
	for name, settings := range map[string][]string{
		"refuses the parameters": nil,
		// Parameters unknown to PgBouncer; it silently drops the others.
		"passes over them": {"ignore_startup_parameters=extra_float_digits,intervalstyle,bytea_output,lc_monetary,array_nulls,transform_null_equals,quote_all_identifiers," +
			"row_security,default_transaction_isolation,default_transaction_read_only,default_transaction_deferrable,idle_in_transaction_session_timeout,lock_timeout,statement_timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			through := hostile.PgBouncer(t, config, 0, settings...)
			_, ofServer := server.New(t.Context(), server.Config{Conn: through})
			wrong := new(cdc.InvalidError)
			require.ErrorAs(t, ofServer, &wrong)
			require.Equal(t, cdc.FieldConn, wrong.Field)
			require.Contains(t, wrong.Value, "127.0.0.1:")
			require.Contains(t, wrong.Rule, "PgBouncer")
			_, ofSnapshot := cdc.CreateSnapshot(t.Context(), cdc.SnapshotConfig{Conn: through, Slot: config.Database})
			_, ofStream := cdc.Open(t.Context(), cdc.Config{Conn: through, Slot: config.Database, Publications: []string{"p"}})
			for _, err := range []error{ofSnapshot, ofStream} {
				require.ErrorAs(t, err, &wrong)
				require.Equal(t, cdc.FieldConn, wrong.Field)
			}
		})
	}
}
