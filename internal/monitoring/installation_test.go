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

// installationFamilies returns all metrics of `delta metrics`, for an installation that has a value for each.
func installationFamilies(t *testing.T) map[string]*dto.MetricFamily {
	t.Helper()
	d := cdctest.New(t)
	require.NoError(t, delta.Migrate(t.Context(), d.Pool))
	d.Exec(`INSERT INTO delta_controller (name, inform_interval) VALUES ('account', '1 hour')`,
		`INSERT INTO delta_shard (kind, shard, succeeded_at) VALUES ('account', '', now())`,
		`INSERT INTO delta_source (kind, name, epoch, runner, caught_up_at, behind_bytes, behind_messages) VALUES ('account', 'table public.account', 1, '1@host', now(), 0, 0)`,
		`INSERT INTO delta_refused (kind, shard, object_id, rule) VALUES ('account', '', 'bob', 'it has no plan')`,
		`INSERT INTO delta_touch (kind, parent, changed_at) VALUES ('account', 'company/acme', now())`,
		`INSERT INTO delta_change_consumer (name, members, member, epoch, order_xid, id) VALUES ('bills', 1, 0, 1, '3', 0)`)
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

// onlyOfInstallation has the metrics of `delta metrics` that clients do not have. Metrics of both have the same type, and no label that clients' metrics do not
// have, so that alerts and dashboards work with either.
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
	require.Equal(t, 21, shared, "docs/metrics.md says which")
	return slices.Collect(maps.Values(all))
}
