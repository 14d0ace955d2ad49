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
)

// patience is how long a test waits for what must come; nothing is measured with it.
const patience = 2 * time.Minute

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

// pages works and lists them. Those whose path is "broken" degrade.
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

// installation is a database and a Temporal that the command works on.
type installation struct {
	*deltatest.Env
	t *testing.T
}

func newInstallation(t *testing.T) *installation {
	t.Helper()
	return &installation{Env: deltatest.New(t), t: t}
}

// client makes one that is not started.
func (i *installation) client(controller *pages) *delta.Client {
	i.t.Helper()
	if controller == nil {
		return i.configured(nil, nil)
	}
	return i.configured(controller, nil)
}

// configured makes a client that is not started, of a controller, or none, and settings of kinds.
func (i *installation) configured(controller delta.Controller[page], kinds map[string]delta.ObjectSettings) *delta.Client {
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

// start has a client run until the test ends.
func (i *installation) start(controller *pages) *delta.Client {
	i.t.Helper()
	return i.begin(i.client(controller))
}

// begin has a client run until the test ends.
func (i *installation) begin(c *delta.Client) *delta.Client {
	i.t.Helper()
	require.NoError(i.t, c.Start(context.Background()))
	i.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_ = c.Stop(ctx)
	})
	return c
}

// inform gives the client pages, with options, and waits until they are in a state.
func (i *installation) inform(c *delta.Client, state deltatype.ResourceState, opts *delta.InformOpts, paths ...string) {
	i.t.Helper()
	for _, path := range paths {
		_, err := c.Inform(i.t.Context(), page{Path: path}, opts)
		require.NoError(i.t, err)
	}
	for _, path := range paths {
		i.eventually(path, func(r *deltatype.ResourceRow) bool { return r.State == state })
	}
}

func (i *installation) eventually(path string, is func(*deltatype.ResourceRow) bool) *deltatype.ResourceRow {
	i.t.Helper()
	var row *deltatype.ResourceRow
	require.EventuallyWithT(i.t, func(c *assert.CollectT) {
		var err error
		row, err = i.client(nil).Get(i.t.Context(), "page", path)
		require.NoError(c, err)
		assert.True(c, is(row))
	}, patience, 10*time.Millisecond, path)
	return row
}

// set changes rows without a client.
func (i *installation) set(sql string) {
	i.t.Helper()
	_, err := i.Pool.Exec(i.t.Context(), sql)
	require.NoError(i.t, err)
}

// run runs the command on the installation.
func (i *installation) run(args ...string) result {
	i.t.Helper()
	return i.runWith(streams{}, args...)
}

// runWith is run with a terminal, or what else the streams say.
func (i *installation) runWith(s streams, args ...string) result {
	i.t.Helper()
	if (args[0] == "resources" && !slices.Contains(args, "explain")) || args[0] == "migrate" {
		return inProcess(i.t.Context(), s, append(args, "--database-url", i.DatabaseURL)...)
	}
	return inProcess(i.t.Context(), s, i.onBoth(args...)...)
}

// onBoth adds to a command the flags that name the installation's database and its Temporal.
func (i *installation) onBoth(args ...string) []string {
	return append(args, "--database-url", i.DatabaseURL, "--temporal-address", i.TemporalAddress, "--temporal-namespace", i.TemporalNamespace)
}

// screen collects the output of the command, and may call a function at each write.
type screen struct {
	bytes.Buffer
	shown func(all string)
}

func (s *screen) Write(p []byte) (int, error) {
	n, err := s.Buffer.Write(p)
	s.shown(s.String())
	return n, err
}

// inProcess runs the command without a process of its own. Where the streams have a screen, that is its standard error.
func inProcess(ctx context.Context, s streams, args ...string) result {
	var stdout bytes.Buffer
	stderr, ok := s.err.(*screen)
	if !ok {
		stderr = &screen{shown: func(string) {}}
	}
	s.out, s.err = &stdout, stderr
	if s.in == nil {
		s.in = strings.NewReader("")
	}
	code := run(ctx, args, s)
	return result{code, stdout.String(), stderr.String()}
}

// decode reads what --output json printed.
func decode[T any](t *testing.T, r result) (v T) {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(r.stdout))
	decoder.DisallowUnknownFields()
	require.NoError(t, decoder.Decode(&v), "%s%s", r.stdout, r.stderr)
	require.False(t, decoder.More(), "one value")
	return v
}

// requireNarrow sees that a person with 80 columns can read it.
func requireNarrow(t *testing.T, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		require.LessOrEqual(t, len([]rune(strings.TrimRight(line, "\n"))), 80, line)
		require.NotContains(t, line, "\x1b")
	}
}

// emptySchema is the URL of a schema without tables.
func (i *installation) emptySchema() string {
	i.t.Helper()
	name := i.Schema + "_empty"
	i.set("create schema " + name)
	i.t.Cleanup(func() { _, _ = i.Pool.Exec(context.Background(), "drop schema "+name+" cascade") })
	u, err := url.Parse(i.DatabaseURL)
	require.NoError(i.t, err)
	query := u.Query()
	query.Set("search_path", name)
	u.RawQuery = query.Encode()
	return u.String()
}
