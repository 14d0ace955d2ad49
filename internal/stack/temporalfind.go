package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/testsuite"
	"golang.org/x/mod/semver"
)

const (
	// serverVariable names the program that serves Temporal.
	serverVariable = "DELTA_TEMPORAL_SERVER"
	// minimalTemporal is the oldest server that is started unless DELTA_TEMPORAL_SERVER names one: the first that can end the polls of a worker that
	// stops. With older ones, the first inform after a restart waited ten seconds in half of the cases, because the server had given its task to an
	// abandoned poll. The Makefile reads this line.
	minimalTemporal = "1.32.0"
	// downloadedCLI is the version of the temporal command that is downloaded if no program was found. It contains the server minimalTemporal.
	downloadedCLI = "v1.9.1"
	// ownServer is the program in tools/delta-temporal.
	ownServer = "delta-temporal"
)

// temporalProgram is a program that serves Temporal.
type temporalProgram struct {
	path, from string
	server     string // version, such as 1.32.0
}

// findTemporal finds a program that serves Temporal: the one that DELTA_TEMPORAL_SERVER names, the temporal command or delta-temporal on PATH, or the
// delta-temporal that `make` builds into .bin of the checkout around the working directory. All but the first must be recent. The path is empty if
// there is none; passedOver names those that were too old.
func findTemporal(ctx context.Context) (program temporalProgram, passedOver []string, err error) {
	if path := os.Getenv(serverVariable); path != "" {
		if !isExecutable(path) {
			return program, nil, fmt.Errorf("%s is set to %s, which is not an executable file", serverVariable, path)
		}
		if path, err = filepath.Abs(path); err != nil {
			return program, nil, err
		}
		version, err := serverVersion(ctx, path)
		if err != nil {
			return program, nil, fmt.Errorf("%s: %w", serverVariable, err)
		}
		return temporalProgram{path, "named by " + serverVariable, version}, nil, nil
	}
	for _, candidate := range []temporalProgram{
		{path: onPath("temporal"), from: "on PATH"},
		{path: onPath(ownServer), from: "on PATH"},
		{path: inCheckout(ownServer), from: "built by make"},
	} {
		if candidate.path == "" {
			continue
		}
		version, err := serverVersion(ctx, candidate.path)
		switch {
		case ctx.Err() != nil:
			return program, passedOver, context.Cause(ctx)
		case err != nil:
			passedOver = append(passedOver, err.Error())
		case semver.Compare("v"+version, "v"+minimalTemporal) < 0:
			passedOver = append(passedOver, fmt.Sprintf("%s is passed over: its server is %s, and Delta starts %s or later",
				candidate.path, version, minimalTemporal))
		default:
			candidate.server = version
			return candidate, passedOver, nil
		}
	}
	return program, passedOver, nil
}

func onPath(name string) string { return finder{path: os.Getenv("PATH")}.onPath(name) }

// inCheckout looks for a program in .bin of the working directory and its parents.
func inCheckout(name string) string {
	dir, err := os.Getwd()
	if err != nil {
		return "" // without a working directory there is no checkout around it
	}
	for {
		if path := filepath.Join(dir, ".bin", name); isExecutable(path) {
			return path
		}
		if dir == filepath.Dir(dir) {
			return ""
		}
		dir = filepath.Dir(dir)
	}
}

// TemporalCommand returns the path of the temporal command on this machine, for use as a client, in any version. It is empty if there is none.
func TemporalCommand() string {
	if path := onPath("temporal"); path != "" {
		return path
	}
	return inCheckout("temporal")
}

var serverVersionPattern = regexp.MustCompile(`\bServer (\d+\.\d+\.\d+(?:-[0-9A-Za-z.-]+)?)`)

// versionPatience is how long a program may take to print its version.
const versionPatience = 30 * time.Second

// serverVersion reads the version of the server that a program contains.
func serverVersion(ctx context.Context, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, versionPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "--version")
	cmd.Env = cleanEnv("TEMPORAL_")
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s --version: %w: %.200s", path, err, out)
	}
	match := serverVersionPattern.FindSubmatch(out)
	if match == nil {
		return "", fmt.Errorf("%s --version names no version of a server: %.200q", path, out)
	}
	return string(match[1]), nil
}

// downloadTemporal downloads the temporal command through the SDK, once.
func (s *Stack) downloadTemporal(ctx context.Context) (temporalProgram, error) {
	program := temporalProgram{from: "downloaded"}
	dir, err := DefaultDir()
	if err != nil {
		return program, err
	}
	dir = filepath.Join(dir, "binaries")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return program, err
	}
	program.path = filepath.Join(dir, "temporal-cli-"+downloadedCLI)
	if !isExecutable(program.path) {
		if err := s.fetchTemporal(ctx, dir); err != nil && !isExecutable(program.path) {
			return program, fmt.Errorf("no program that serves Temporal %s or later was found (%s, temporal or %s on PATH, .bin of a checkout) "+
				"and none could be downloaded: %w\nInstall the temporal command (https://docs.temporal.io/cli), run `make delta-temporal` in a checkout of "+
				"Delta, or set %s to a running server", minimalTemporal, serverVariable, ownServer, err, temporalVariable)
		}
	}
	program.server, err = serverVersion(ctx, program.path)
	return program, err
}

func (s *Stack) fetchTemporal(ctx context.Context, dir string) error {
	s.reportProgress("no program that serves Temporal was found: downloading the temporal command to %s", dir)
	defer s.reportWaiting("the download of the temporal command")()
	log, _, err := openLog(s.home.filePath("temporal.log"))
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	// The SDK downloads only as part of starting a server. That server is stopped at once, and it happens once on a machine.
	server, err := testsuite.StartDevServer(ctx, testsuite.DevServerOptions{
		CachedDownload: testsuite.CachedDownload{DestDir: dir, Version: downloadedCLI},
		ClientOptions:  &client.Options{Logger: silent{}},
		Stdout:         log,
		Stderr:         log,
	})
	if err != nil {
		return err
	}
	server.Client().Close()
	return errors.Join(server.Stop())
}
