package proxy

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestReadSettings(t *testing.T) {
	t.Setenv("GOFLAGS", "-mod=mod")
	t.Setenv("GOENV", "off")
	t.Setenv("GOPROXY", "https://a.example,direct")
	t.Setenv("GOPRIVATE", "*.corp.example")
	t.Setenv("GONOPROXY", "")

	settings, err := ReadSettings(t.Context())
	require.NoError(t, err)
	require.Equal(t, Settings{GOPROXY: "https://a.example,direct", GONOPROXY: "*.corp.example", GOPRIVATE: "*.corp.example"}, settings)

	t.Setenv("GONOPROXY", "none")
	settings, err = ReadSettings(t.Context())
	require.NoError(t, err)
	require.Equal(t, "none", settings.GONOPROXY)

	t.Setenv("GOPROXY", "")
	settings, err = ReadSettings(t.Context())
	require.NoError(t, err)
	require.NotEmpty(t, settings.GOPROXY, "the go command has a default")
}

func TestReadSettingsWithoutGo(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	t.Setenv("GOPROXY", "https://a.example")
	t.Setenv("GOPRIVATE", "*.corp.example")
	t.Setenv("GONOPROXY", "")
	settings, err := ReadSettings(t.Context())
	require.NoError(t, err)
	require.Equal(t, Settings{GOPROXY: "https://a.example", GONOPROXY: "*.corp.example", GOPRIVATE: "*.corp.example"}, settings)

	t.Setenv("GOPROXY", "")
	_, err = ReadSettings(t.Context())
	require.ErrorContains(t, err, "which module proxy to ask is not known: GOPROXY is not set, and `go env` does not tell: exec: \"go\"")
}
