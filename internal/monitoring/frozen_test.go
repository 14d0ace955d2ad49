//go:build linux

package monitoring

import (
	"maps"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/internal/frozen"
)

// Alerts and dashboards of users name metrics and labels.
func TestMetricsAreTheRecordedOnes(t *testing.T) {
	t.Parallel()
	families := clientFamilies(t)
	families = append(families, onlyOfInstallation(t, families)...)
	parser := expfmt.NewTextParser(model.LegacyValidation)
	streams, err := parser.TextToMetricFamilies(strings.NewReader(wholeExposition(t)))
	require.NoError(t, err)
	var lines []string
	for _, family := range append(families, slices.Collect(maps.Values(streams))...) {
		line := family.GetName() + " " + strings.ToLower(family.GetType().String())
		lines = append(lines, line)
		for label := range labelsOf(family) {
			if label != "job" && label != "instance" {
				lines = append(lines, line+" label "+label)
			}
		}
		if family.GetType() == dto.MetricType_HISTOGRAM {
			require.NotEmpty(t, family.GetMetric()[0].GetHistogram().GetBucket(), family.GetName())
		}
	}
	frozen.Check(t, "../../api/metrics.txt", lines)
}
