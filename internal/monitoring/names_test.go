package monitoring

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"
)

var promQL = parser.NewParser(parser.Options{})

// exposed has the labels of each name that can be queried, including those that a scrape adds.
type exposed map[string]map[string]bool

// parseExposition parses a server's metrics like Prometheus, and runs promlint on them.
func parseExposition(t *testing.T, text string) exposed {
	t.Helper()
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	require.NoError(t, err)
	require.Empty(t, problems)
	textParser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := textParser.TextToMetricFamilies(bytes.NewBufferString(text))
	require.NoError(t, err)
	all := exposed{"up": {"job": true, "instance": true}}
	for name, family := range families {
		require.NotEmpty(t, family.GetHelp(), name)
		require.NotEqual(t, dto.MetricType_UNTYPED, family.GetType(), name)
		suffixes := []string{""}
		if family.GetType() == dto.MetricType_HISTOGRAM {
			suffixes = []string{"_bucket", "_sum", "_count"}
		}
		for _, suffix := range suffixes {
			all[name+suffix] = labelsOf(family)
		}
		if family.GetType() == dto.MetricType_HISTOGRAM {
			all[name+"_bucket"]["le"] = true
		}
	}
	return all
}

func labelsOf(family *dto.MetricFamily) map[string]bool {
	names := map[string]bool{"job": true, "instance": true}
	for _, metric := range family.GetMetric() {
		for _, pair := range metric.GetLabel() {
			names[pair.GetName()] = true
		}
	}
	return names
}

// check requires that an expression parses, and uses only exposed metrics and labels.
func (e exposed) check(t *testing.T, where, expression string) {
	t.Helper()
	parsed, err := promQL.ParseExpr(expression)
	require.NoError(t, err, "%s: %s", where, expression)
	selectors := 0
	parser.Inspect(parsed, func(node parser.Node, _ []parser.Node) error {
		if selector, ok := node.(*parser.VectorSelector); ok {
			selectors++
			known, ok := e[selector.Name]
			require.True(t, ok, "%s: %s is not exposed", where, selector.Name)
			for _, matcher := range selector.LabelMatchers {
				require.True(t, matcher.Name == model.MetricNameLabel || known[matcher.Name], "%s: %s has no label %s", where, selector.Name, matcher.Name)
			}
		}
		return nil
	})
	require.Positive(t, selectors, "%s: %s asks for nothing", where, expression)
	e.checkGrouping(t, where, parsed)
}

// checkGrouping requires that an aggregation keeps only labels that its operand has, because otherwise the legend would be empty.
func (e exposed) checkGrouping(t *testing.T, where string, parsed parser.Expr) {
	t.Helper()
	parser.Inspect(parsed, func(node parser.Node, _ []parser.Node) error {
		aggregate, ok := node.(*parser.AggregateExpr)
		if !ok {
			return nil
		}
		for _, label := range aggregate.Grouping {
			known := false
			for _, selectors := range parser.ExtractSelectors(aggregate.Expr) {
				for _, matcher := range selectors {
					known = known || matcher.Name == model.MetricNameLabel && e[matcher.Value][label]
				}
			}
			require.True(t, known, "%s: nothing in %s has the label %s", where, aggregate, label)
		}
		return nil
	})
}

// alertRules returns the alerts of deploy by name.
func alertRules(t *testing.T) map[string]rulefmt.Rule {
	t.Helper()
	all := map[string]rulefmt.Rule{}
	for _, file := range ruleFiles(t) {
		groups, errs := rulefmt.ParseFile(file, false, model.LegacyValidation, promQL, promslog.NewNopLogger())
		require.Empty(t, errs)
		for _, group := range groups.Groups {
			for _, rule := range group.Rules {
				if rule.Alert != "" {
					require.NotContains(t, all, rule.Alert)
					all[rule.Alert] = rule
				}
			}
		}
	}
	return all
}

func alertNames(t *testing.T) (names []string) {
	t.Helper()
	for name := range alertRules(t) {
		names = append(names, name)
	}
	return names
}

// query is an expression of a dashboard.
type query struct{ where, expression string }

// variables are Grafana's built-in variables, which are not PromQL. All others are within strings.
var variables = strings.NewReplacer("$__rate_interval", "5m", "$__range", "1h", "$__interval", "1m")

var labelValues = regexp.MustCompile(`^label_values\((.*), *(\w+)\)$`)

// dashboardQueries returns the expressions of a dashboard's panels and variables.
func dashboardQueries(t *testing.T, file string) (all []query) {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	var dashboard struct {
		Templating struct {
			List []struct {
				Name, Type string
				Query      json.RawMessage
			}
		}
		Panels []struct {
			ID      int
			Type    string
			Title   string
			Targets []struct{ Expr string }
		}
	}
	require.NoError(t, json.Unmarshal(text, &dashboard))
	ids := map[int]bool{}
	for _, panel := range dashboard.Panels {
		require.False(t, ids[panel.ID], "two panels have the id %d", panel.ID)
		ids[panel.ID] = true
		require.True(t, panel.Type == "row" || len(panel.Targets) > 0, panel.Title)
		for _, target := range panel.Targets {
			all = append(all, query{filepath.Base(file) + ": " + panel.Title, variables.Replace(target.Expr)})
		}
	}
	for _, variable := range dashboard.Templating.List {
		if variable.Type != "query" {
			continue
		}
		var asked struct{ Query string }
		require.NoError(t, json.Unmarshal(variable.Query, &asked))
		parts := labelValues.FindStringSubmatch(asked.Query)
		require.NotNil(t, parts, asked.Query)
		all = append(all, query{filepath.Base(file) + ": $" + variable.Name, "count by (" + parts[2] + ") (" + parts[1] + ")"})
	}
	require.NotEmpty(t, all)
	return all
}

var documentedRow = regexp.MustCompile("(?m)^\\| `(\\w+)` \\|.*\\| ([^|]*) \\|$")

// documentedAlerts returns the alerts of each metric from the table of a document.
func documentedAlerts(t *testing.T, file string) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	all := map[string][]string{}
	for _, row := range documentedRow.FindAllStringSubmatch(string(text), -1) {
		all[row[1]] = regexp.MustCompile(`Delta\w+`).FindAllString(row[2], -1)
	}
	require.NotEmpty(t, all)
	return all
}

func remove(from []string, name string) []string {
	return slices.DeleteFunc(slices.Clone(from), func(s string) bool { return s == name })
}
