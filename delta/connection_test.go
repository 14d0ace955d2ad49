package delta_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// catalogued is a kind with its own informer.
type catalogued struct{ account }

func (catalogued) Kind() string { return "catalogued" }
func (catalogued) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{Parallelism: 4, InformInterval: time.Hour}
}

// newLister returns a controller that lists objects by name, and fails for those named bad.
func newLister(names ...string) *controller[catalogued] {
	return &controller[catalogued]{
		work: func(_ context.Context, r *delta.Resource[catalogued]) error {
			if r.Object.Name == "bad" {
				return delta.ResourceDegrade(errors.New("refused outside"))
			}
			return nil
		},
		inform: func(context.Context, *delta.InformOptions) (<-chan catalogued, error) {
			out := make(chan catalogued, len(names))
			for _, name := range names {
				out <- catalogued{account{Name: name}}
			}
			close(out)
			return out, nil
		},
	}
}

func TestAClientThatWasNotStartedReachesTemporal(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.start(h.config(with(newLister("a", "b"))))
	idle := h.client(h.config())

	run, err := idle.RunInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "catalogued", RunForeground: true}, nil)
	require.NoError(t, err)
	require.Equal(t, 2, run.Listed)

	row, err := idle.Sync(t.Context(), catalogued{account{Name: "c"}}, nil)
	require.NoError(t, err)
	require.Equal(t, deltatype.ResourceStateSynced, row.State)

	require.NoError(t, idle.PauseInformer(t.Context(), "catalogued"))
	status, err := idle.TemporalStatus(t.Context(), "catalogued", "nobody")
	require.NoError(t, err)
	require.True(t, status.PrefixHeld)
	require.Equal(t, h.Prefix, status.Prefix)
	require.Empty(t, status.MissingAttributes)
	kind := status.Kinds["catalogued"]
	require.True(t, kind.Schedule.Paused)
	require.Nil(t, kind.Schedule.NextRun)
	require.Len(t, kind.Workers, 1)
	require.Len(t, kind.InformWorkers, 1)
	require.Nil(t, status.Kinds["nobody"].Schedule)
	require.Empty(t, status.Kinds["nobody"].Workers)

	require.NoError(t, idle.ResumeInformer(t.Context(), "catalogued"))
	status, err = idle.TemporalStatus(t.Context(), "catalogued")
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), *status.Kinds["catalogued"].Schedule.NextRun, time.Hour+time.Minute)

	require.NoError(t, idle.Stop(t.Context()))
	require.ErrorContains(t, idle.ScheduleInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "catalogued"}, nil), "has been stopped")
}

func TestAClientThatWasNotStartedRefusesThePrefixOfAnother(t *testing.T) {
	t.Parallel()
	h, other := newHarness(t), newHarness(t)
	h.startWorker(nil)
	config := other.config()
	config.WorkflowIDPrefix = h.Prefix
	_, err := other.client(config).TemporalStatus(t.Context())
	require.ErrorIs(t, err, delta.ErrOtherInstallation)
}

func TestAClientThatWasNotStartedSaysThatTemporalIsAway(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	config := h.config()
	away, err := client.NewLazyClient(client.Options{HostPort: "127.0.0.1:1"})
	require.NoError(t, err)
	defer away.Close()
	config.Temporal = away
	c := h.client(config)
	require.ErrorContains(t, c.PauseInformer(t.Context(), "catalogued"), "reaching Temporal")
	kinds, err := c.Kinds(t.Context())
	require.NoError(t, err)
	require.Empty(t, kinds, "nothing was written")

	// The context ends once Sync waits: on a busy machine, the inform alone may take longer than a deadline.
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	synced := make(chan error, 1)
	var row *deltatype.ResourceRow
	go func() {
		var err error
		row, err = c.Sync(ctx, account{Name: "a"}, nil) // no client works it
		synced <- err
	}()
	until(t, func() bool { return c.Awaiting() == 1 })
	cancel(context.DeadlineExceeded)
	err = receive(t, synced)
	require.ErrorContains(t, err, "it is informed")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NotNil(t, row)
	require.NotNil(t, h.row("account", "a"))
}

// Stop cancels a dial in progress instead of waiting for it.
func TestStopEndsTheDiallingOfAClientThatWasNotStarted(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	begun := make(chan struct{}, 100)
	temporal, err := client.NewLazyClient(client.Options{
		HostPort: h.TemporalAddress, Namespace: h.TemporalNamespace, Logger: quiet{},
		ConnectionOptions: client.ConnectionOptions{DialOptions: []grpc.DialOption{grpc.WithChainUnaryInterceptor(
			func(ctx context.Context, _ string, _, _ any, _ *grpc.ClientConn, _ grpc.UnaryInvoker, _ ...grpc.CallOption) error {
				begun <- struct{}{}
				<-ctx.Done()
				return status.FromContextError(ctx.Err()).Err()
			})}},
	})
	require.NoError(t, err)
	defer temporal.Close()
	config := h.config()
	config.Temporal = temporal
	c := h.client(config)
	dialling := make(chan error, 1)
	go func() { dialling <- c.PauseInformer(context.Background(), "catalogued") }()
	<-begun
	require.NoError(t, c.Stop(t.Context()))
	err = <-dialling
	require.ErrorContains(t, err, "canceled", "Stop ended it, and not the time that dialling may take")
	require.NotContains(t, err.Error(), "deadline")
}

func TestStartSaysThatTemporalHasNoSuchNamespace(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	elsewhere, err := client.NewLazyClient(client.Options{HostPort: h.TemporalAddress, Namespace: "nowhere"})
	require.NoError(t, err)
	defer elsewhere.Close()
	var log strings.Builder
	config := h.config(with(&controller[account]{}))
	config.Temporal, config.Logger = elsewhere, slog.New(slog.NewTextHandler(&log, nil))
	err = h.client(config).Start(t.Context())
	require.ErrorContains(t, err, `there is no namespace "nowhere" in Temporal`)
	require.ErrorContains(t, err, "TEMPORAL_NAMESPACE")
	require.NotContains(t, log.String(), "search attributes", "that is not what is wrong")
}

// Not parallel: it sets environment variables.
func TestAClientDialsTheTemporalNamespaceOfItsConfig(t *testing.T) {
	h := newHarness(t)
	t.Setenv("TEMPORAL_ADDRESS", h.TemporalAddress)
	t.Setenv("TEMPORAL_NAMESPACE", "of-the-environment")
	config := h.config(with(&controller[account]{}))
	config.Temporal, config.TemporalNamespace = nil, "of-the-config"
	require.ErrorContains(t, h.client(config).Start(t.Context()), `there is no namespace "of-the-config" in Temporal`)
	config.TemporalNamespace = ""
	require.ErrorContains(t, h.client(config).Start(t.Context()), `there is no namespace "of-the-environment" in Temporal`)
	config.TemporalNamespace = h.TemporalNamespace
	status, err := h.client(config).TemporalStatus(t.Context())
	require.NoError(t, err)
	require.Equal(t, h.TemporalNamespace, status.Namespace)
}

func TestKindsSayHowTheyStand(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.client(h.config())
	for _, name := range []string{"a", "b"} {
		_, err := c.Inform(t.Context(), account{Name: name}, nil)
		require.NoError(t, err)
	}
	_, err := h.Pool.Exec(t.Context(), `update delta_resource
		set due_at = now() + CASE WHEN object_id = 'a' THEN interval '-1 hour' ELSE interval '1 hour' END, dispatch_at = now() + interval '1 minute'`)
	require.NoError(t, err)
	_, err = h.Pool.Exec(t.Context(), `insert into delta_controller (name, inform_interval, inform_paused) values ('catalogued', '1h', true)`)
	require.NoError(t, err)
	_, err = h.Pool.Exec(t.Context(), `insert into delta_shard (kind, shard, last_inform_time) values ('catalogued', '', '2026-01-02 03:04:05Z')`)
	require.NoError(t, err)
	kinds, err := c.Kinds(t.Context())
	require.NoError(t, err)
	require.Len(t, kinds, 2)
	require.Equal(t, map[deltatype.ResourceState]int64{deltatype.ResourceStateScheduled: 2}, kinds[0].Counts)
	require.EqualValues(t, 1, kinds[0].Late)
	require.True(t, h.row("account", "a").DueAt.Equal(*kinds[0].OldestLate))
	require.Zero(t, kinds[0].InformInterval)
	last := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	require.Equal(t, delta.KindStatus{
		Kind: "catalogued", Counts: map[deltatype.ResourceState]int64{}, InformInterval: time.Hour, LastInformTime: &last, InformerPaused: true,
	}, kinds[1])
}

func TestARunThatIsWatchedReportsHowFarItIs(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	release := make(chan struct{})
	controller := newLister("a", "b", "bad")
	quick := controller.work
	controller.work = func(ctx context.Context, r *delta.Resource[catalogued]) error {
		if r.ObjectID == "a" {
			<-release
		}
		return quick(ctx, r)
	}
	h.start(h.config(with(controller)))
	var reports []delta.InformProgress
	run, err := h.client(h.config()).WatchInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "catalogued", RunForeground: true}, nil,
		func(p delta.InformProgress) {
			reports = append(reports, p)
			if p.IsSettling && p.Unsettled == 1 {
				select {
				case <-release:
				default:
					close(release)
				}
			}
		})
	require.ErrorContains(t, err, "1 of 3 resources degraded: bad")
	require.Equal(t, 3, run.Listed)
	require.NotEmpty(t, run.WorkflowID)
	require.Equal(t, run.RunID, reports[0].RunID)
	require.Zero(t, reports[0].Listed)
	require.True(t, reports[len(reports)-1].IsSettling)
}

// Each check of a watch reads one page of the listing, and skips pages that have settled.
func TestAWatchCountsUnsettledResourcesPageByPage(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	const pass = "11111111-1111-1111-1111-111111111111"
	c := h.client(h.config())
	var objects []delta.Object
	for _, o := range newMirrors(10) {
		objects = append(objects, o)
	}
	_, err := c.InformMany(t.Context(), objects, nil)
	require.NoError(t, err)
	h.exec("INSERT INTO delta_listing (pass, object_id) SELECT $1, object_id FROM delta_resource", pass)
	h.exec("INSERT INTO delta_listing (pass, object_id) VALUES ($1, 'm000-gone')", pass)
	settle := func(names string) {
		h.exec("UPDATE delta_resource SET state = 'synced', synced_generation = 1 WHERE object_id = ANY (string_to_array($1, ' '))", names)
	}
	look := delta.WatchListing(h.Pool, "mirror", pass, 4)
	looks := func(times, want int) {
		t.Helper()
		for range times {
			listed, _, err := look(t.Context())
			require.NoError(t, err)
			require.Equal(t, 11, listed)
		}
		_, left, err := look(t.Context())
		require.NoError(t, err)
		require.Equal(t, want, left)
	}
	// m000, m000-gone, m001, m002 | m003 to m006 | m007 to m009
	settle("m003")
	looks(0, 10) // in the first page, the deleted resource counts as settled
	looks(0, 9)
	looks(0, 9)
	settle("m000 m001 m002")
	looks(2, 6)
	settle("m009")
	h.exec("UPDATE delta_resource SET paused = TRUE WHERE object_id = 'm004'")
	looks(1, 4)
	h.exec("UPDATE delta_resource SET state = 'failed' WHERE object_id = 'm000'")
	looks(5, 4) // the settled page is not read again
	settle("m004 m005 m006 m007 m008")
	looks(1, 0)
	looks(3, 0)
}
