package stack

import (
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// The Temporal of docker-compose.yml has the same settings as the one that this package starts.
func TestTheContainerHasTheSettingsOfTheStack(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../deploy/compose/temporal-dynamicconfig.yaml")
	require.NoError(t, err)
	var settings map[string][]struct{ Value any }
	require.NoError(t, yaml.Unmarshal(text, &settings))
	var values []string
	for key, constrained := range settings {
		require.Len(t, constrained, 1, key)
		values = append(values, fmt.Sprintf("%s=%v", key, constrained[0].Value))
	}
	require.ElementsMatch(t, dynamicConfig, values)
	script, err := os.ReadFile("../../deploy/compose/temporal-namespace.sh")
	require.NoError(t, err)
	for _, attribute := range searchAttributes {
		require.Contains(t, string(script), "--name "+attribute+" --type Keyword")
	}
}
