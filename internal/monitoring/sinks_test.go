//go:build linux

package monitoring

import (
	"context"
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/sinks"
)

// endless is a source that waits.
type endless struct{}

func (endless) Next(ctx context.Context, _ int) ([]sinks.Message, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}
func (endless) Confirm(context.Context, any) error { return nil }

var sinkRow = regexp.MustCompile("(?m)^\\| `(delta_sink_\\w+)` \\| (\\w+) \\| ([^|]*) \\| [^|]+ \\|$")

// What the dashboard of sinks and the table of docs/sinks.md name is what relays expose, and all of it.
func TestSinksAreMonitoredByWhatTheyExpose(t *testing.T) {
	t.Parallel()
	relay, err := sinks.NewRelay(sinks.Config{
		Source: endless{}, Sink: sinks.SinkFunc(func(context.Context, []sinks.Message) []error { return []error{errors.New("away")} }),
	})
	require.NoError(t, err)
	var text strings.Builder
	require.NoError(t, sinks.WriteMetrics(&text, map[string]*sinks.Relay{"orders": relay, "waits": nil}))
	all := parseExposition(t, text.String())
	delete(all, "up")

	document, err := os.ReadFile("../../docs/sinks.md")
	require.NoError(t, err)
	documented := map[string]bool{}
	for _, row := range sinkRow.FindAllStringSubmatch(string(document), -1) {
		name, kind, labels := row[1], row[2], strings.Split(row[3], ", ")
		require.Contains(t, text.String(), "# TYPE "+name+" "+kind+"\n")
		for _, label := range labels {
			require.True(t, all[name][label], "%s has no label %s", name, label)
		}
		documented[name] = true
	}
	shown := map[string]bool{}
	for _, query := range dashboardQueries(t, deploy+"grafana/sinks.json") {
		for name := range all {
			shown[name] = shown[name] || regexp.MustCompile(`\b`+name+`\b`).MatchString(query.expression)
		}
		all.check(t, query.where, query.expression)
	}
	for name := range all {
		require.True(t, documented[name], "docs/sinks.md has no %s", name)
		require.True(t, shown[name], "the dashboard does not show %s", name)
	}
}
