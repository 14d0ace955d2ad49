package monitoring

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Each alert leads to a section of the runbook with its meaning, the places to look at and the remedy, and with the output of a system in which it fired.
func TestEveryAlertHasASectionOfTheRunbook(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/runbook.md")
	require.NoError(t, err)
	sections := map[string]string{}
	for _, section := range strings.Split(string(page), "\n### ")[1:] {
		name, text, _ := strings.Cut(section, "\n")
		sections[name], _, _ = strings.Cut(text, "\n## ")
	}
	for name, rule := range alertRules(t) {
		text, ok := sections[name]
		require.True(t, ok, "docs/runbook.md has no section ### %s", name)
		require.Equal(t, "https://github.com/chariot-giving/delta/blob/main/docs/runbook.md#"+strings.ToLower(name), rule.Annotations["runbook_url"], name)
		for _, part := range []string{"- **Means**: ", "- **Look**: ", "- **Do**: "} {
			require.Contains(t, text, part, name)
		}
		tried := regexp.MustCompile("(?s)<!-- tried " + name + " -->\n```text\n(.+?)```\n").FindStringSubmatch(text)
		require.NotNil(t, tried, "%s was not tried: make runbook", name)
		require.Contains(t, tried[1], "\nfires: ", name)
		delete(sections, name)
	}
	require.Empty(t, sections, "sections of alerts that do not exist")
}
