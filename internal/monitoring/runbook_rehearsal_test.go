//go:build runbook && linux

package monitoring

import (
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/rules"
	"github.com/stretchr/testify/require"
)

// What an alert of the runbook reports is brought about on real servers, once, by `make runbook`: it evaluates the alert on what they expose, and writes the
// output of servers and commands into docs/runbook.md.

const runbook = "../../docs/runbook.md"

// evidence has the metrics and the output of a system in which the condition of an alert holds.
type evidence struct {
	alert string
	// lowered is a part of the rule, and what stands in its place here, where the real threshold would take hours or a large disk.
	lowered [2]string
	// before and now are expositions. Counters rise from the first to the second over half an hour.
	before, now string
	// seen has the output of servers and commands, and lines of logs.
	seen []string
}

var runbookMu sync.Mutex

// record evaluates the alert on the evidence and writes both into the runbook.
func (e evidence) record(t *testing.T) {
	t.Helper()
	samples, descriptions := e.evaluate(t)
	require.NotEmpty(t, descriptions, "%s does not fire on:\n%s", e.alert, samples)
	text := samples
	for _, one := range e.seen {
		if one = strings.TrimSpace(one); one != "" {
			text += "\n" + one + "\n"
		}
	}
	head := "$ curl …/metrics\n"
	if e.lowered[0] != "" {
		head = "# tried with " + e.lowered[1] + " in place of " + e.lowered[0] + "\n" + head
	}
	text = head + text + "\nfires: " + strings.Join(descriptions, "\nfires: ") + "\n"
	t.Log("\n" + text)

	runbookMu.Lock()
	defer runbookMu.Unlock()
	page, err := os.ReadFile(runbook)
	require.NoError(t, err)
	block := regexp.MustCompile("(?s)<!-- tried " + e.alert + " -->\n```text\n.*?```\n")
	require.Regexp(t, block, string(page), "the runbook has no place for %s", e.alert)
	written := "<!-- tried " + e.alert + " -->\n```text\n" + hideSecrets(text) + "```\n"
	require.NoError(t, os.WriteFile(runbook, []byte(block.ReplaceAllLiteralString(string(page), written)), 0o644))
}

// hideSecrets shortens what differs in each run and means nothing.
func hideSecrets(text string) string {
	text = regexp.MustCompile(`postgres://[^\s"]+`).ReplaceAllString(text, "postgres://…")
	text = regexp.MustCompile(`127\.0\.0\.1:\d+`).ReplaceAllString(text, "127.0.0.1:…")
	return regexp.MustCompile(`[ \t]+\n`).ReplaceAllString(text, "\n")
}

// evaluate returns the samples that the rule of the alert uses, and the descriptions of those that fire.
func (e evidence) evaluate(t *testing.T) (samples string, descriptions []string) {
	t.Helper()
	rule, ok := alertRules(t)[e.alert]
	require.True(t, ok, e.alert)
	parsed, err := promQL.ParseExpr(rule.Expr)
	require.NoError(t, err)
	used := map[string]bool{}
	parser.Inspect(parsed, func(node parser.Node, _ []parser.Node) error {
		if selector, ok := node.(*parser.VectorSelector); ok {
			used[selector.Name] = true
		}
		return nil
	})
	before, now := samplesOf(e.before, used), samplesOf(e.now, used)
	const minutes = 45
	load := "load 1m\n"
	for _, series := range sortedKeys(now) {
		if e.before == "" {
			load += fmt.Sprintf("  %s %sx%d\n", withInstance(series), number(now[series]), minutes)
		} else {
			load += fmt.Sprintf("  %s %s+%sx%d\n", withInstance(series), number(before[series]), number((now[series]-before[series])/minutes), minutes)
		}
		if e.before != "" {
			samples += fmt.Sprintf("%s %s, before %s\n", series, number(now[series]), number(before[series]))
		} else {
			samples += fmt.Sprintf("%s %s\n", series, number(now[series]))
		}
	}
	if len(now) == 0 {
		samples = "(none of " + strings.Join(sortedKeys(used), ", ") + ")\n"
	}
	suite, err := promqltest.NewLazyLoader(load, promqltest.LazyLoaderOpts{EnableAtModifier: true, EnableNegativeOffset: true})
	require.NoError(t, err, load)
	defer func() { require.NoError(t, suite.Close()) }()
	groups := loadGroups(t, suite, unitTests{RuleFiles: []string{e.ruleFile(t)}, EvaluationInterval: model.Duration(time.Minute)})
	for minute := range minutes {
		at := time.Unix(0, 0).UTC().Add(time.Duration(minute) * time.Minute)
		suite.WithSamplesTill(at, func(err error) {
			require.NoError(t, err)
			for _, group := range groups {
				group.Eval(suite.Context(), at)
			}
		})
	}
	return samples, describeFiring(t, groups, e.alert)
}

// ruleFile returns the file of alerts, with the threshold lowered, below deploy/prometheus.
func (e evidence) ruleFile(t *testing.T) string {
	t.Helper()
	if e.lowered[0] == "" {
		return "alerts.yaml"
	}
	text, err := os.ReadFile(deploy + "prometheus/alerts.yaml")
	require.NoError(t, err)
	rule := regexp.MustCompile(`(?s)- alert: ` + e.alert + `\n.*?\n        labels:`).FindString(string(text))
	require.Contains(t, rule, e.lowered[0])
	changed := strings.Replace(string(text), rule, strings.Replace(rule, e.lowered[0], e.lowered[1], 1), 1)
	file := filepath.Join(t.TempDir(), "alerts.yaml")
	require.NoError(t, os.WriteFile(file, []byte(changed), 0o600))
	below, err := filepath.Rel(deploy+"prometheus", mustAbs(t, deploy+"prometheus", file))
	require.NoError(t, err)
	return below
}

// mustAbs returns a path that is relative to the same folder as base.
func mustAbs(t *testing.T, base, file string) string {
	t.Helper()
	absolute, err := filepath.Abs(base)
	require.NoError(t, err)
	relative, err := filepath.Rel(absolute, file)
	require.NoError(t, err)
	return filepath.Join(base, relative)
}

func samplesOf(text string, used map[string]bool) map[string]float64 {
	all := map[string]float64{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		at := strings.LastIndexByte(line, ' ')
		if at < 0 || line[0] == '#' || !used[strings.TrimRight(line[:strings.IndexAny(line+"{", "{ ")], " ")] {
			continue
		}
		value, err := strconv.ParseFloat(line[at+1:], 64)
		if err == nil {
			all[line[:at]] = value
		}
	}
	return all
}

func withInstance(series string) string {
	const labels = `job="delta",instance="10.0.0.7:9464"`
	if strings.Contains(series, `job="`) {
		return series
	}
	if head, ok := strings.CutSuffix(series, "}"); ok {
		return head + "," + labels + "}"
	}
	return series + "{" + labels + "}"
}

func number(v float64) string {
	if math.Abs(v) < 1e9 && v == math.Trunc(v*1000)/1000 {
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	return strconv.FormatFloat(v, 'f', 3, 64)
}

func sortedKeys[V any](m map[string]V) (keys []string) {
	for key := range m {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return keys
}

// command runs the command delta, as built from this checkout, and returns what it was and what it printed.
func command(t *testing.T, environment []string, arguments ...string) string {
	t.Helper()
	run := exec.CommandContext(t.Context(), buildDelta(t), arguments...)
	run.Env = append(os.Environ(), environment...)
	out, _ := run.CombinedOutput() // doctor's exit code is 1 or 2 here
	return "$ delta " + strings.Join(arguments, " ") + "\n" + string(out)
}

var builtDelta struct {
	once sync.Once
	file string
	err  error
}

func buildDelta(t *testing.T) string {
	t.Helper()
	builtDelta.once.Do(func() {
		folder, err := os.MkdirTemp("", "runbook")
		if err != nil {
			builtDelta.err = err
			return
		}
		builtDelta.file = filepath.Join(folder, "delta")
		build := exec.Command("go", "build", "-o", builtDelta.file, "./cmd/delta")
		build.Dir = "../.."
		if out, err := build.CombinedOutput(); err != nil {
			builtDelta.err = fmt.Errorf("%w: %s", err, out)
		}
	})
	require.NoError(t, builtDelta.err)
	return builtDelta.file
}

// keep returns the first line of an output, and those below it that match, with the lines that continue them. What is left out is an ellipsis.
func keep(output, pattern string) string {
	match := regexp.MustCompile(pattern)
	var kept []string
	inMatch := false
	for i, line := range strings.Split(strings.TrimRight(output, "\n"), "\n") {
		continued := inMatch && strings.HasPrefix(line, "      ")
		if inMatch = i == 0 || match.MatchString(line) || continued; inMatch {
			kept = append(kept, line)
		} else if len(kept) > 0 && kept[len(kept)-1] != "…" {
			kept = append(kept, "…")
		}
	}
	return strings.Join(kept, "\n")
}

// logs keeps what is logged.
type logs struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// latest returns the last line that matches.
func (l *logs) latest(pattern string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	match := regexp.MustCompile(pattern)
	found := ""
	for line := range strings.Lines(l.text.String()) {
		if match.MatchString(line) {
			found = line
		}
	}
	if found == "" {
		return ""
	}
	return "log: " + strings.TrimSpace(found)
}

func await(t *testing.T, what string, condition func() bool) {
	t.Helper()
	require.Eventually(t, condition, 2*time.Minute, 100*time.Millisecond, what)
}

// serveCommand runs a server of the command until the test ends. It returns the address that it names, and its log.
func serveCommand(t *testing.T, environment []string, arguments ...string) (address string, log *logs) {
	t.Helper()
	run := exec.Command(buildDelta(t), arguments...)
	run.Env = append(os.Environ(), environment...)
	log = &logs{}
	run.Stderr = log
	require.NoError(t, run.Start())
	t.Cleanup(func() {
		_ = run.Process.Kill()
		_ = run.Wait()
	})
	named := regexp.MustCompile(`127\.0\.0\.1:\d+`)
	await(t, "the server's address", func() bool { return named.MatchString(log.latest(`127\.0\.0\.1:\d+`)) })
	return named.FindString(log.latest(`127\.0\.0\.1:\d+`)), log
}

// scrape returns what a server exposes; "" if it does not answer.
func scrape(t *testing.T, address string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/metrics", nil)
	require.NoError(t, err)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return ""
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return string(text)
}

func shell(t *testing.T, name string, arguments ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, arguments...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return "$ " + name + " " + strings.Join(arguments, " ") + "\n" + string(out)
}

// describeFiring returns the descriptions of the firing alerts of a name.
func describeFiring(t *testing.T, groups []*rules.Group, name string) (all []string) {
	t.Helper()
	for _, group := range groups {
		for _, rule := range group.Rules() {
			require.NoError(t, rule.LastError(), rule.Name())
			if alerting, ok := rule.(*rules.AlertingRule); ok && alerting.Name() == name {
				for _, alert := range alerting.ActiveAlerts() {
					if alert.State == rules.StateFiring {
						all = append(all, alert.Annotations.Get("description"))
					}
				}
			}
		}
	}
	return all
}
