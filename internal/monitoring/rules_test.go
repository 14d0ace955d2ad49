package monitoring

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/rules"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

const deploy = "../../deploy/"

// unitTests is the part of the format of `promtool test rules` that our tests use. promtool itself cannot be imported, and building it needs all service
// discoveries.
type unitTests struct {
	RuleFiles          []string       `yaml:"rule_files"`
	EvaluationInterval model.Duration `yaml:"evaluation_interval"`
	Tests              []unitTest     `yaml:"tests"`
}

type unitTest struct {
	Name        string         `yaml:"name"`
	Interval    model.Duration `yaml:"interval"`
	InputSeries []struct {
		Series string `yaml:"series"`
		Values string `yaml:"values"`
	} `yaml:"input_series"`
	AlertRuleTest []struct {
		EvalTime  model.Duration `yaml:"eval_time"`
		AlertName string         `yaml:"alertname"`
		ExpAlerts []struct {
			ExpLabels map[string]string `yaml:"exp_labels"`
		} `yaml:"exp_alerts"`
	} `yaml:"alert_rule_test"`
}

func readUnitTests(t *testing.T) unitTests {
	t.Helper()
	file, err := os.Open(deploy + "prometheus/alerts_test.yaml")
	require.NoError(t, err)
	defer func() { _ = file.Close() }()
	decoder := yaml.NewDecoder(file)
	decoder.KnownFields(true)
	var tests unitTests
	require.NoError(t, decoder.Decode(&tests))
	require.NotEmpty(t, tests.Tests)
	return tests
}

func TestAlertsFireAndAreQuiet(t *testing.T) {
	t.Parallel()
	tests := readUnitTests(t)
	fired, quiet := map[string]bool{}, map[string]bool{}
	for _, one := range tests.Tests {
		require.NotEmpty(t, one.AlertRuleTest, one.Name)
		for _, expected := range one.AlertRuleTest {
			if len(expected.ExpAlerts) > 0 {
				fired[expected.AlertName] = true
			} else {
				quiet[expected.AlertName] = true
			}
		}
		t.Run(one.Name, func(t *testing.T) {
			t.Parallel()
			one.run(t, tests)
		})
	}
	for _, name := range alertNames(t) {
		require.True(t, fired[name], "no test provokes %s", name)
		require.True(t, quiet[name], "no test sees that %s is quiet", name)
	}
}

func (u unitTest) run(t *testing.T, tests unitTests) {
	load := "load " + u.Interval.String() + "\n"
	for _, series := range u.InputSeries {
		load += "  " + series.Series + " " + series.Values + "\n"
	}
	suite, err := promqltest.NewLazyLoader(load, promqltest.LazyLoaderOpts{EnableAtModifier: true, EnableNegativeOffset: true})
	require.NoError(t, err)
	defer func() { require.NoError(t, suite.Close()) }()
	groups := loadGroups(t, suite, tests)
	for _, expected := range u.AlertRuleTest {
		begin := time.Unix(0, 0).UTC()
		end := begin.Add(time.Duration(expected.EvalTime))
		for now := begin; !now.After(end); now = now.Add(time.Duration(tests.EvaluationInterval)) {
			suite.WithSamplesTill(now, func(err error) {
				require.NoError(t, err)
				for _, group := range groups {
					group.Eval(suite.Context(), now)
				}
			})
		}
		var want []map[string]string
		for _, alert := range expected.ExpAlerts {
			want = append(want, alert.ExpLabels)
		}
		require.ElementsMatch(t, want, firing(t, groups, expected.AlertName), expected.AlertName)
	}
}

func loadGroups(t *testing.T, suite *promqltest.LazyLoader, tests unitTests) (groups []*rules.Group) {
	t.Helper()
	manager := rules.NewManager(&rules.ManagerOptions{
		QueryFunc: rules.EngineQueryFunc(suite.QueryEngine(), suite.Storage()), AppendableV2: suite.Storage(), Context: t.Context(),
		NotifyFunc: func(context.Context, string, ...*rules.Alert) {}, Logger: promslog.NewNopLogger(),
	})
	var files []string
	for _, name := range tests.RuleFiles {
		files = append(files, deploy+"prometheus/"+name)
	}
	loaded, errs := manager.LoadGroups(time.Duration(tests.EvaluationInterval), labels.EmptyLabels(), "", nil, false, files...)
	require.Empty(t, errs)
	for _, group := range loaded {
		groups = append(groups, group)
		for _, rule := range group.Rules() {
			if alerting, ok := rule.(*rules.AlertingRule); ok {
				alerting.SetRestored(true)
			}
		}
	}
	require.NotEmpty(t, groups)
	return groups
}

// firing returns the labels of the firing alerts of a name.
func firing(t *testing.T, groups []*rules.Group, name string) (all []map[string]string) {
	t.Helper()
	for _, group := range groups {
		for _, rule := range group.Rules() {
			require.NoError(t, rule.LastError(), rule.Name())
			alerting, ok := rule.(*rules.AlertingRule)
			if !ok || alerting.Name() != name {
				continue
			}
			for _, alert := range alerting.ActiveAlerts() {
				if alert.State != rules.StateFiring {
					continue
				}
				all = append(all, alertLabels(alert))
				for _, annotation := range []string{"summary", "description"} {
					require.NotEmpty(t, alert.Annotations.Get(annotation), name)
					require.NotContains(t, alert.Annotations.Get(annotation), "<error", "a template that fails says so in its text")
				}
			}
		}
	}
	return all
}

func alertLabels(alert *rules.Alert) map[string]string {
	labels := alert.Labels.Map()
	delete(labels, model.AlertNameLabel)
	return labels
}

// ruleFiles returns the rule files of deploy, without their tests.
func ruleFiles(t *testing.T) (files []string) {
	t.Helper()
	found, err := filepath.Glob(deploy + "prometheus/*.yaml")
	require.NoError(t, err)
	for _, file := range found {
		if !strings.HasSuffix(file, "_test.yaml") {
			files = append(files, file)
		}
	}
	require.NotEmpty(t, files)
	return files
}
