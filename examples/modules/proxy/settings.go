package proxy

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"
)

// Settings has settings of the go command, as `go env` prints them.
type Settings struct {
	// GOPROXY is the list of proxies.
	GOPROXY string
	// GONOPROXY has patterns of module paths that are never looked up at a proxy.
	GONOPROXY string
	// GOPRIVATE is the default of GONOPROXY.
	GOPRIVATE string
}

const goEnvTimeout = 10 * time.Second

// ReadSettings reads the settings from the go command, which knows its defaults and the settings of `go env -w`. Without a go command, it reads the
// environment.
func ReadSettings(ctx context.Context) (Settings, error) {
	settings, err := goEnv(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return Settings{}, err
		}
		settings = Settings{
			GOPROXY:   os.Getenv("GOPROXY"),
			GONOPROXY: os.Getenv("GONOPROXY"),
			GOPRIVATE: os.Getenv("GOPRIVATE"),
		}
		if settings.GOPROXY == "" {
			return Settings{}, fmt.Errorf("which module proxy to ask is not known: GOPROXY is not set, and %w", err)
		}
	}
	settings.GONOPROXY = cmp.Or(settings.GONOPROXY, settings.GOPRIVATE)
	return settings, nil
}

func goEnv(ctx context.Context) (settings Settings, err error) {
	ctx, cancel := context.WithTimeout(ctx, goEnvTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "env", "-json", "GOPROXY", "GONOPROXY", "GOPRIVATE")
	// A go.mod in this directory must not make the command download another version of itself just to print settings.
	cmd.Env = append(os.Environ(), "GOTOOLCHAIN=local")
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil {
		if exit := new(exec.ExitError); errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(exit.Stderr))
		}
		return settings, fmt.Errorf("`go env` does not tell: %w", err)
	}
	if err := json.Unmarshal(out, &settings); err != nil {
		return settings, fmt.Errorf("`go env` does not tell: reading its answer: %w", err)
	}
	return settings, nil
}
