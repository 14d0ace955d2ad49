package delta_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/workflow"

	"github.com/chariot-giving/delta/delta"
)

// withOwnConnection makes a client dial its own connection, with the propagators of a program that uses them in its activities.
func (h *harness) withOwnConnection(config *delta.Config) *delta.Config {
	config.Temporal = nil
	config.TemporalOptions = func(o *client.Options) {
		o.HostPort, o.Logger = h.TemporalAddress, quiet{}
		o.ContextPropagators = append(o.ContextPropagators, tenants{})
	}
	return config
}

// Values that reach the program's activities through its connection to Temporal also reach Work from Inform.
func TestThePropagatorsOfTheConnectionReachWorkFromInform(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	found := make(chan string, 10)
	work := &controller[account]{work: func(ctx context.Context, _ *delta.Resource[account]) error {
		tenant, _ := ctx.Value(tenantKey{}).(string)
		found <- tenant
		return nil
	}}
	h.start(h.withOwnConnection(h.config(with(work))))
	// A client that only informs has no connection, and takes them from TemporalOptions.
	_, err := h.client(h.withOwnConnection(h.config())).Inform(ofTenant("acme"), account{Name: "ann"}, nil)
	require.NoError(t, err)
	require.Equal(t, "acme", receive(t, found))

	// Config.ContextPropagators replaces them, even if it is empty.
	none := h.withOwnConnection(h.config())
	none.ContextPropagators = []workflow.ContextPropagator{}
	_, err = h.client(none).Inform(ofTenant("acme"), account{Name: "bob"}, nil)
	require.NoError(t, err)
	require.Empty(t, receive(t, found))
}

func TestAPropagatorThatIsWrongIsNamedByWhereItWasGiven(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	_, err := h.client(h.withOwnConnection(h.config())).Inform(ofTenant("broken"), account{Name: "ann"}, nil)
	require.ErrorContains(t, err, "Config.TemporalOptions: ContextPropagators[0]: Inject: there is no such tenant")
	pool, err := pgxpool.New(t.Context(), "postgres://localhost/nothing-connects")
	require.NoError(t, err)
	defer pool.Close()
	for wanted, config := range map[string]*delta.Config{
		"Config.ContextPropagators[1]":                  {ContextPropagators: []workflow.ContextPropagator{tenants{}, nil}},
		"Config.TemporalOptions: ContextPropagators[0]": {TemporalOptions: func(o *client.Options) { o.ContextPropagators = []workflow.ContextPropagator{nil} }},
	} {
		_, err := delta.NewClient(pool, config)
		input := new(delta.InputError)
		require.ErrorAs(t, err, &input)
		require.Equal(t, wanted, input.Field)
	}
}

// A program that only informs needs no Temporal, so an invalid connection configuration is reported only when connecting.
func TestPropagatorsAreFoundWithoutTemporalEnvironmentConfig(t *testing.T) {
	broken := filepath.Join(t.TempDir(), "temporal.toml")
	require.NoError(t, os.WriteFile(broken, []byte("[profile"), 0o600))
	h := newHarness(t)
	found := make(chan string, 10)
	config := h.config(with(&controller[account]{work: func(ctx context.Context, _ *delta.Resource[account]) error {
		tenant, _ := ctx.Value(tenantKey{}).(string)
		found <- tenant
		return nil
	}}))
	config.ContextPropagators = []workflow.ContextPropagator{tenants{}}
	h.start(config)
	t.Setenv("TEMPORAL_CONFIG_FILE", broken)
	_, err := h.client(h.withOwnConnection(h.config())).Inform(ofTenant("acme"), account{Name: "ann"}, nil)
	require.NoError(t, err)
	require.Equal(t, "acme", receive(t, found))
	require.ErrorContains(t, h.client(h.withOwnConnection(h.config(with(&controller[account]{})))).Start(t.Context()), "the environment configuration for Temporal")
}
