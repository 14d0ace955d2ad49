package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
	"github.com/chariot-giving/delta/internal/stack"
)

// decodeChecks returns the checks of delta doctor by check and kind.
func decodeChecks(t *testing.T, r result) map[string]checkJSON {
	t.Helper()
	out := decode[diagnosisJSON](t, r)
	require.Equal(t, map[int]delta.CheckState{0: delta.CheckOK, 1: delta.CheckWarning, 2: delta.CheckFailure}[r.code], out.Status)
	found := map[string]checkJSON{}
	for _, f := range out.Checks {
		found[f.subject()] = f
		if f.Status == delta.CheckFailure || f.Status == delta.CheckWarning {
			require.NotEmpty(t, f.Remedy, "%+v", f)
		}
	}
	return found
}

func TestDoctorFindsNothing(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	i.startController(&pages{})
	var healthy result
	require.Eventually(t, func() bool {
		healthy = i.run("doctor", "-o", "json")
		return healthy.code == exitOK
	}, testTimeout, 100*time.Millisecond)
	found := decodeChecks(t, healthy)
	for _, check := range []string{"database", "schema", "temporal", "server settings", "prefix", "search attributes", "informer page", "workers page", "late"} {
		require.Equal(t, delta.CheckOK, found[check].Status, "%s: %+v", check, found[check])
	}
	require.Contains(t, found["workers page"].Detail, "1 on "+i.Prefix+"/page")
	var r result
	require.Eventually(t, func() bool { // a slow server is a warning, so try again
		r = i.runWith(streams{width: 80}, "doctor")
		return r.code == exitOK
	}, testTimeout, 100*time.Millisecond)
	requireNarrow(t, r.stdout)
	require.Contains(t, r.stdout, "9 ok, 0 warnings, 0 failures")
}

func TestDoctorWithoutTemporal(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	i.inform(i.newClient(nil), deltatype.ResourceStateScheduled, nil, "a")
	i.execSQL(`update delta_resource set due_at = now() - interval '1 hour', dispatch_at = now() + interval '10 minutes'`) // leased, but nobody works on it
	args := []string{"doctor", "--database-url", i.DatabaseURL, "--temporal-address", "127.0.0.1:1"}
	r := inProcess(t.Context(), streams{width: 80}, args...)
	require.Equal(t, exitDoctorFailures, r.code)
	require.Empty(t, r.stderr)
	requireNarrow(t, r.stdout)
	require.Contains(t, r.stdout, "fail  temporal")
	found := decodeChecks(t, inProcess(t.Context(), streams{}, append(args, "-o", "json")...))
	require.Contains(t, found["temporal"].Detail, "127.0.0.1:1 cannot be reached")
	require.Contains(t, found["temporal"].Remedy, "TEMPORAL_ADDRESS")
	require.Equal(t, delta.CheckOK, found["schema"].Status)
	require.Equal(t, delta.CheckSkipped, found["server settings"].Status)
	require.Equal(t, delta.CheckSkipped, found["workers"].Status)
	require.Equal(t, delta.CheckWarning, found["late page"].Status)
	require.Contains(t, found["late page"].Detail, "1 resource late, the first by 1h")
}

func TestDoctorWithoutDatabaseOrSchema(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	// diagnose repeats doctor until its answer fits or a time is over: on a machine that stands still for a while, it reports servers as away.
	diagnose := func(fits func(found map[string]checkJSON) bool, args ...string) (found map[string]checkJSON) {
		for end := time.Now().Add(testTimeout); ; time.Sleep(100 * time.Millisecond) {
			found = decodeChecks(t, inProcess(t.Context(), streams{}, append([]string{"doctor", "-o", "json", "--temporal-address", i.TemporalAddress}, args...)...))
			if fits(found) || time.Now().After(end) {
				return found
			}
		}
	}
	found := diagnose(func(found map[string]checkJSON) bool { return found["temporal"].Status == delta.CheckOK },
		"--database-url", "postgres://u:secret@127.0.0.1:1/x", "--temporal-namespace", i.TemporalNamespace)
	require.Equal(t, delta.CheckFailure, found["database"].Status)
	require.NotContains(t, found["database"].Detail, "secret")
	require.Equal(t, delta.CheckOK, found["temporal"].Status, "it is asked all the same")

	found = diagnose(func(found map[string]checkJSON) bool { return found["database"].Status == delta.CheckOK },
		"--database-url", i.emptySchema(), "--temporal-namespace", i.TemporalNamespace)
	require.Equal(t, delta.CheckOK, found["database"].Status)
	require.Equal(t, checkJSON{Check: "schema", Status: delta.CheckFailure, Detail: "Delta's schema is missing", Remedy: "apply it: delta migrate up"}, found["schema"])
	require.Equal(t, delta.CheckSkipped, found["late"].Status)

	const unknown = `no namespace "nowhere"`
	found = diagnose(func(found map[string]checkJSON) bool { return strings.Contains(found["temporal"].Detail, unknown) },
		"--database-url", i.DatabaseURL, "--temporal-namespace", "nowhere")
	require.Contains(t, found["temporal"].Detail, unknown)

	r := inProcess(t.Context(), streams{}, "doctor", "--database-url", "postgres://:x:y")
	require.Equal(t, exitUsage, r.code)
	require.Contains(t, r.stderr, "--database-url: must be as postgres://")
}

func TestDoctorFindsWhatIsMissing(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)

	// Before any client.
	found := decodeChecks(t, i.run("doctor", "-o", "json", "--prefix", i.Prefix))
	require.Equal(t, delta.CheckWarning, found["prefix"].Status)
	require.Equal(t, delta.CheckWarning, found["kinds"].Status)

	// After a client has stopped, the schedule is paused and then deleted.
	c := i.newClient(&pages{})
	require.NoError(t, c.Start(t.Context()))
	i.inform(c, deltatype.ResourceStateSynced, nil, "a")
	require.NoError(t, c.Stop(t.Context()))
	schedule := i.Temporal.ScheduleClient().GetHandle(t.Context(), i.Prefix+"/inform:page")
	require.NoError(t, schedule.Pause(t.Context(), client.SchedulePauseOptions{}))
	found = decodeChecks(t, i.run("doctor", "-o", "json"))
	require.Equal(t, delta.CheckOK, found["prefix"].Status, "found without --prefix: %+v", found["prefix"])
	require.Contains(t, found["informer page"].Detail, "by an operator")
	require.NoError(t, schedule.Delete(t.Context()))
	require.Equal(t, exitOK, i.run("pause", "kind", "page").code)
	found = decodeChecks(t, i.run("doctor", "-o", "json"))
	require.Contains(t, found["informer page"].Detail, "missing in Temporal")
	require.Equal(t, delta.CheckWarning, found["kind page"].Status)

	// No worker has the kind.
	i.execSQL(`insert into delta_controller (name, inform_interval) values ('idle', '-1s')`)
	i.execSQL(`update delta_resource set kind = 'idle', state = 'scheduled', due_at = now() - interval '1 hour', dispatch_at = now()`)
	found = decodeChecks(t, i.run("doctor", "-o", "json"))
	require.Equal(t, delta.CheckFailure, found["workers idle"].Status)
	require.Contains(t, found["workers idle"].Detail, "nobody polls "+i.Prefix+"/idle, and resources are late")
	requireNarrow(t, i.runWith(streams{width: 80}, "doctor").stdout)

	// Another installation's prefix.
	other := newInstallation(t)
	found = decodeChecks(t, other.run("doctor", "-o", "json", "--prefix", i.Prefix))
	require.Equal(t, delta.CheckFailure, found["prefix"].Status)
	require.Contains(t, found["prefix"].Detail, "belongs to another Delta installation")
}

func TestDoctorFindsAnInformerThatFails(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	i := newInstallation(t)
	i.startController(&pages{err: errors.New("upstream is down")})
	require.Eventually(t, func() bool {
		found := decodeChecks(t, i.run("doctor", "-o", "json"))
		return found["informer page"].Status == delta.CheckWarning
	}, testTimeout, 100*time.Millisecond)
	require.Contains(t, i.run("doctor").stdout, "delta informs page")
	require.Contains(t, i.run("informs", "page").stderr, "upstream is down")
	r := i.run("inform", "page")
	require.Equal(t, exitFailure, r.code)
	require.Contains(t, r.stderr, "upstream is down")
}

func TestRefusedObjectsAreShown(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	i.startController(&pages{list: []page{{Path: "bad\x00id"}, {Path: "good"}}})
	r := i.run("inform", "page")
	require.Equal(t, exitOK, r.code)
	require.Contains(t, r.stderr, "1 object refused. All others were taken: delta kinds page shows which were not, and why")
	out := decode[informJSON](t, i.run("inform", "page", "-o", "json"))
	require.Equal(t, 1, out.Refused)

	refused := decodeChecks(t, i.run("doctor", "-o", "json"))["refused page"]
	require.Equal(t, delta.CheckWarning, refused.Status)
	require.Contains(t, refused.Detail, "1 object refused, as \"bad\uFFFDid\" since ")
	require.Contains(t, refused.Detail, "must have no control characters")
	require.Contains(t, refused.Remedy, "delta kinds page")

	kinds := decode[kindsJSON](t, i.run("kinds", "-o", "json"))
	require.EqualValues(t, 1, kinds.Kinds[0].Refused)
	require.Equal(t, "bad\uFFFDid", kinds.Refused[0].ID)
	require.Contains(t, kinds.Refused[0].Rule, "must have no control characters")
	r = i.runWith(streams{width: 80}, "kinds")
	requireNarrow(t, r.stdout)
	require.Contains(t, r.stdout, "REFUSED KIND")
}

func TestDoctorNamesServerSettingsThatAreOff(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	server, err := stack.StartTemporal(t.Context(), stack.Options{
		Ephemeral: true, TemporalPort: stack.AnyPort, UIPort: stack.AnyPort,
		TemporalSettings: []string{"frontend.enableCancelWorkerPollsOnShutdown=false", "system.enableEagerWorkflowStart=false"},
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Stop(context.Background())) })
	found := decodeChecks(t, inProcess(t.Context(), streams{}, "doctor", "-o", "json",
		"--database-url", i.DatabaseURL, "--temporal-address", server.TemporalAddress, "--temporal-namespace", server.TemporalNamespace))
	settings := found["server settings"]
	require.Equal(t, delta.CheckWarning, settings.Status)
	require.Contains(t, settings.Detail, "polls of a worker that stops are not ended")
	require.Contains(t, settings.Detail, "do not start eagerly")
	require.Contains(t, settings.Remedy, "frontend.enableCancelWorkerPollsOnShutdown (server 1.32 or later) and system.enableEagerWorkflowStart")
}
