package stack

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// The Temporal of docker-compose.yml has the same settings as the one that this package starts.
func TestTheContainerHasTheSettingsOfTheStack(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docker-compose.yml")
	require.NoError(t, err)
	var file struct {
		Services map[string]struct {
			Image   string
			Command []string
		}
	}
	require.NoError(t, yaml.Unmarshal(text, &file))
	temporal := file.Services["temporal"]
	require.Equal(t, "temporalio/temporal:"+downloadedCLI[1:], temporal.Image)
	for _, attribute := range searchAttributes {
		require.Contains(t, temporal.Command, "--search-attribute="+attribute+"=Keyword")
	}
	for _, value := range dynamicConfig {
		require.Contains(t, temporal.Command, "--dynamic-config-value="+value)
	}
}
