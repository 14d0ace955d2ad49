package delta_test

import (
	"context"
	"errors"
	"flag"
	"net/url"
	"os"
	"os/exec"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/browsertest"
	"github.com/chariot-giving/delta/internal/soak"
	"github.com/chariot-giving/delta/internal/stack"
)

var screenshots = flag.Bool("screenshots", false, "write the screenshots of docs/images")

// A person finds a resource in Temporal's UI by kind and state, and reads its status in words.
func TestAResourceIsFoundInTheTemporalUI(t *testing.T) {
	t.Parallel()
	soak.Long(t)
	if _, err := exec.LookPath("chromedriver"); err != nil {
		t.Skip("there is no chromedriver on this machine: .ci/chromium installs it on Debian")
	}
	h := newHarness(t)
	s, err := stack.Start(t.Context(), stack.Options{
		Ephemeral: true, PostgresPort: stack.AnyPort, TemporalPort: stack.AnyPort, UIPort: stack.AnyPort,
	})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Stop(context.Background())) }()
	if s.UIURL == "" {
		t.Skip("TEMPORAL_ADDRESS names a Temporal whose UI is not known here")
	}
	pool, err := pgxpool.New(t.Context(), s.DatabaseURL)
	require.NoError(t, err)
	defer pool.Close()
	require.NoError(t, delta.Migrate(t.Context(), pool))
	options, err := s.ClientOptions()
	require.NoError(t, err)
	temporal, err := dialTemporal(options)
	require.NoError(t, err)
	defer temporal.Close()

	config := h.config(with(&controller[account]{work: func(_ context.Context, r *delta.Resource[account]) error {
		if r.ObjectID == "acc_Zp4Lk29vMxs" {
			return delta.ResourceDegrade(errors.New("upstream says: account is closed"))
		}
		return nil
	}}))
	config.Temporal, config.TemporalNamespace, config.WorkflowIDPrefix = temporal, "", "delta"
	c, err := delta.NewClient(pool, config)
	require.NoError(t, err)
	require.NoError(t, c.Start(t.Context()))
	defer c.Stop(context.Background()) //nolint:errcheck // the stack ends too
	for _, name := range []string{"acc_3kd81mQa7Lp", "acc_8fT2xw0VbRc", "acc_Zp4Lk29vMxs"} {
		_, _ = c.Sync(t.Context(), account{Name: name}, nil)
	}
	row, err := c.Get(t.Context(), "account", "acc_Zp4Lk29vMxs")
	require.NoError(t, err)
	require.Equal(t, deltatype.ResourceStateDegraded, row.State)

	b := browsertest.New(t)
	b.Open(s.UIURL + "/namespaces/default/workflows?query=" + url.QueryEscape("`DeltaKind`=\"account\" AND `DeltaState`=\"degraded\""))
	b.Shows("acc_Zp4Lk29vMxs")
	require.NotContains(t, b.Text(), "acc_3kd81mQa7Lp", "the list is filtered by state")
	if *screenshots {
		require.NoError(t, os.MkdirAll("../docs/images", 0o755))
		b.Picture("../docs/images/workflows.png")
	}

	run, err := temporal.DescribeWorkflow(t.Context(), row.WorkflowID, "")
	require.NoError(t, err)
	b.Open(s.UIURL + "/namespaces/default/workflows/" + url.PathEscape(row.WorkflowID) + "/" +
		run.WorkflowExecution.RunID + "/user-metadata")
	b.Shows("account acc_Zp4Lk29vMxs")
	b.Shows("State: degraded: resource degraded: upstream says: account is closed")
	b.Shows("when it is removed")
	if *screenshots {
		b.Picture("../docs/images/resource.png")
	}
}
