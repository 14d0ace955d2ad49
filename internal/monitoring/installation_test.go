//go:build linux

package monitoring

import (
	"bytes"
	"maps"
	"slices"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/cdctest"
)

type account struct {
	Name string `json:"name"`
}

func (a account) ID() string { return a.Name }
func (account) Kind() string { return "account" }

// installationFamilies are all metrics of `delta metrics`, of an installation of which everything is known.
func installationFamilies(t *testing.T) map[string]*dto.MetricFamily {
	t.Helper()
	d := cdctest.New(t)
	require.NoError(t, delta.Migrate(t.Context(), d.Pool))
	d.Exec(`INSERT INTO delta_controller (name, inform_interval) VALUES ('account', '1 hour')`,
		`INSERT INTO delta_shard (kind, shard, succeeded_at) VALUES ('account', '', now())`,
		`INSERT INTO delta_source (kind, name, epoch, runner) VALUES ('account', 'table public.account', 1, '1@host')`)
	client, err := delta.NewClient(d.Pool, &delta.Config{})
	require.NoError(t, err)
	_, err = client.Inform(t.Context(), account{Name: "ann"}, nil)
	require.NoError(t, err)
	var text bytes.Buffer
	require.NoError(t, client.WriteMetrics(t.Context(), &text))
	parseExposition(t, text.String()) // promlint
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(&text)
	require.NoError(t, err)
	return families
}

// onlyOfInstallation are the metrics of `delta metrics` that clients do not have. Those that both have are of one type, and have no label that those of
// clients have not: so alerts and dashboards work with either.
func onlyOfInstallation(t *testing.T, ofClients []*dto.MetricFamily) []*dto.MetricFamily {
	t.Helper()
	all := installationFamilies(t)
	shared := 0
	for _, family := range ofClients {
		own, ok := all[family.GetName()]
		if !ok {
			continue
		}
		shared++
		require.Equal(t, family.GetType(), own.GetType(), family.GetName())
		known := labelsOf(family)
		for label := range labelsOf(own) {
			require.True(t, known[label], "%s of clients has no label %s", family.GetName(), label)
		}
		delete(all, family.GetName())
	}
	require.Equal(t, 8, shared, "docs/metrics.md names them")
	return slices.Collect(maps.Values(all))
}
