package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/remedy"
)

// testTimeout is how long a test waits for an event that must come. It measures nothing.
const testTimeout = 2 * time.Minute

// page is the object of these tests.
type page struct {
	Path string `json:"path"`
	// Hold keeps Work waiting.
	Hold bool `json:"hold,omitempty"`
}

func (p page) ID() string   { return p.Path }
func (p page) Kind() string { return "page" }
func (p page) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{Parallelism: 4, InformInterval: time.Hour}
}

// pages is the controller and informer of pages. A page with the path "broken" degrades.
type pages struct {
	delta.WorkerDefaults[page]
	delta.InformerDefaults[page]
	list    []page
	err     error
	release chan struct{}
	asked   chan delta.InformOptions
}

func (p *pages) Work(ctx context.Context, r *delta.Resource[page]) error {
	if r.Object.Hold {
		select {
		case <-p.release:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if r.Object.Path == "broken" {
		return delta.ResourceDegrade(errors.New("404\nNot \x1b[31mFound"))
	}
	return nil
}

func (p *pages) Inform(_ context.Context, o *delta.InformOptions) (<-chan page, error) {
	select {
	case p.asked <- *o:
	default:
	}
	if p.err != nil {
		return nil, p.err
	}
	out := make(chan page, len(p.list))
	for _, one := range p.list {
		out <- one
	}
	close(out)
	return out, nil
}

// installation is the database and the Temporal that the command works on.
type installation struct {
	*deltatest.Env
	t *testing.T
}

func newInstallation(t *testing.T) *installation {
	t.Helper()
	return &installation{Env: deltatest.New(t), t: t}
}

// newClient returns a client that is not started.
func (i *installation) newClient(controller *pages) *delta.Client {
	i.t.Helper()
	if controller == nil {
		return i.newConfiguredClient(nil, nil)
	}
	return i.newConfiguredClient(controller, nil)
}

// newConfiguredClient returns a client that is not started, with a controller or none, and settings of kinds.
func (i *installation) newConfiguredClient(controller delta.Controller[page], kinds map[string]delta.ObjectSettings) *delta.Client {
	i.t.Helper()
	config := &delta.Config{
		Temporal: i.Temporal, TemporalNamespace: i.TemporalNamespace, WorkflowIDPrefix: i.Prefix,
		Logger: slog.New(slog.DiscardHandler), Kinds: kinds,
	}
	if controller != nil {
		config.Controllers = delta.NewControllers()
		delta.AddController(config.Controllers, controller)
	}
	c, err := delta.NewClient(i.Pool, config)
	require.NoError(i.t, err)
	return c
}

// startController runs a client with the controller until the test ends.
func (i *installation) startController(controller *pages) *delta.Client {
	i.t.Helper()
	return i.startClient(i.newClient(controller))
}

// startClient runs the client until the test ends.
func (i *installation) startClient(c *delta.Client) *delta.Client {
	i.t.Helper()
	require.NoError(i.t, c.Start(context.Background()))
	i.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_ = c.Stop(ctx)
	})
	return c
}

// inform informs pages with options, and waits until they are in a state.
func (i *installation) inform(c *delta.Client, state deltatype.ResourceState, opts *delta.InformOpts, paths ...string) {
	i.t.Helper()
	for _, path := range paths {
		_, err := c.Inform(i.t.Context(), page{Path: path}, opts)
		require.NoError(i.t, err)
	}
	for _, path := range paths {
		i.waitForResource(path, func(r *deltatype.ResourceRow) bool { return r.State == state })
	}
}

func (i *installation) waitForResource(path string, is func(*deltatype.ResourceRow) bool) *deltatype.ResourceRow {
	i.t.Helper()
	var row *deltatype.ResourceRow
	require.EventuallyWithT(i.t, func(c *assert.CollectT) {
		var err error
		row, err = i.newClient(nil).Get(i.t.Context(), "page", path)
		require.NoError(c, err)
		assert.True(c, is(row))
	}, testTimeout, 10*time.Millisecond, path)
	return row
}

// execSQL changes rows behind the clients' backs.
func (i *installation) execSQL(sql string) {
	i.t.Helper()
	_, err := i.Pool.Exec(i.t.Context(), sql)
	require.NoError(i.t, err)
}

// run runs the command on the installation.
func (i *installation) run(args ...string) result {
	i.t.Helper()
	return i.runWith(streams{}, args...)
}

// runWith runs the command on the installation with these streams, for instance a terminal. It repeats doctor until Temporal has answered: on a machine
// that stands still for a while, doctor reports that it does not.
func (i *installation) runWith(s streams, args ...string) (r result) {
	i.t.Helper()
	if args[0] != "doctor" {
		return i.runOnce(s, args...)
	}
	for end := time.Now().Add(testTimeout); ; time.Sleep(100 * time.Millisecond) {
		if r = i.runOnce(s, args...); !strings.Contains(r.stdout, remedy.ReachTemporal) || time.Now().After(end) {
			return r
		}
	}
}

func (i *installation) runOnce(s streams, args ...string) result {
	i.t.Helper()
	if (args[0] == "resources" && !slices.Contains(args, "explain")) || args[0] == "migrate" {
		return inProcess(i.t.Context(), s, append(args, "--database-url", i.DatabaseURL)...)
	}
	return inProcess(i.t.Context(), s, i.appendServerFlags(args...)...)
}

// appendServerFlags appends the flags that name the installation's database and Temporal.
func (i *installation) appendServerFlags(args ...string) []string {
	return append(args, "--database-url", i.DatabaseURL, "--temporal-address", i.TemporalAddress, "--temporal-namespace", i.TemporalNamespace)
}

// outputBuffer collects the output of the command, and may call a function at each write.
type outputBuffer struct {
	bytes.Buffer
	shown func(all string)
}

func (s *outputBuffer) Write(p []byte) (int, error) {
	n, err := s.Buffer.Write(p)
	s.shown(s.String())
	return n, err
}

// inProcess runs the command in the process of the test. An outputBuffer among the streams gets the standard error.
func inProcess(ctx context.Context, s streams, args ...string) result {
	var stdout bytes.Buffer
	stderr, ok := s.err.(*outputBuffer)
	if !ok {
		stderr = &outputBuffer{shown: func(string) {}}
	}
	s.out, s.err = &stdout, stderr
	if s.in == nil {
		s.in = strings.NewReader("")
	}
	code := run(ctx, args, s)
	return result{code, stdout.String(), stderr.String()}
}

// decode decodes the output of --output json.
func decode[T any](t *testing.T, r result) (v T) {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(r.stdout))
	decoder.DisallowUnknownFields()
	require.NoError(t, decoder.Decode(&v), "%s%s", r.stdout, r.stderr)
	require.False(t, decoder.More(), "one value")
	return v
}

// requireNarrow checks that no line is longer than 80 columns.
func requireNarrow(t *testing.T, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		require.LessOrEqual(t, len([]rune(strings.TrimRight(line, "\n"))), 80, line)
		require.NotContains(t, line, "\x1b")
	}
}

// emptySchema returns the URL of a schema without tables.
func (i *installation) emptySchema() string {
	i.t.Helper()
	name := i.Schema + "_empty"
	i.execSQL("create schema " + name)
	i.t.Cleanup(func() { _, _ = i.Pool.Exec(context.Background(), "drop schema "+name+" cascade") })
	u, err := url.Parse(i.DatabaseURL)
	require.NoError(i.t, err)
	query := u.Query()
	query.Set("search_path", name)
	u.RawQuery = query.Encode()
	return u.String()
}
