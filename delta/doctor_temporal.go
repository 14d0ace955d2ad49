package delta

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	namespacepb "go.temporal.io/api/namespace/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"

	"github.com/chariot-giving/delta/internal/remedy"
	"github.com/chariot-giving/delta/internal/wording"
)

const checkServerSettings = "server settings"

// checkTemporal runs the checks that ask Temporal. It returns the status of the kinds in Temporal; nil if that could not be
// read.
func (d *doctor) checkTemporal(ctx context.Context, hasDatabase, hasSchema bool, kinds []KindStatus) *TemporalStatus {
	f := &d.found
	server, err := d.askTemporal(ctx)
	if err != nil {
		f.addCheck("temporal", CheckFailure, errorDetail(err), remedy.ReachTemporal)
		f.addCheck(checkServerSettings, CheckSkipped, "needs Temporal", "")
	} else {
		f.addCheck("temporal", CheckOK, fmt.Sprintf("server %s at %s, namespace %s", server.version, server.address, server.namespace), "")
		f.checkServerSettings(server)
	}
	switch {
	case !hasDatabase:
		f.skipChecks("the database")
		return nil
	case err != nil:
		f.skipChecks("Temporal")
		return nil
	case !hasSchema:
		f.skipChecks("the schema")
		return nil
	}
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = k.Kind
	}
	status, err := d.client.TemporalStatus(ctx, names...)
	if !f.checkPrefix(status, err) {
		return nil
	}
	f.checkAttributes(status)
	if len(kinds) == 0 {
		f.addCheck("kinds", CheckWarning, "there are none yet", "start a client with controllers")
	}
	for _, k := range kinds {
		if k.Paused {
			f.addKindCheck("kind", k.Kind, CheckWarning, "paused: its resources are not worked on", remedy.ResumeKind(k.Kind))
		}
		there := status.Kinds[k.Kind]
		if there.Error != nil {
			f.addKindCheck("kind", k.Kind, CheckWarning, "Temporal could not be asked about it: "+errorDetail(there.Error), remedy.ReachTemporal)
			continue
		}
		f.checkInformerSchedule(k, there, d.now)
		f.checkFullListing(k, there, d.now)
		f.checkWorkers(k, there, status.Namespace)
	}
	return status
}

// temporalServer describes a server of Temporal, in its own words.
type temporalServer struct {
	version, address, namespace string
	// capabilities are those of the namespace; nil if the user may not describe the namespace, which may still work
	// otherwise.
	capabilities *namespacepb.NamespaceInfo_Capabilities
}

// askTemporal asks the server about itself and the namespace. Unlike other calls to Temporal it needs no database.
func (d *doctor) askTemporal(ctx context.Context) (server temporalServer, err error) {
	c, there := d.client, d.client.config.Temporal
	server.namespace = c.config.TemporalNamespace
	setDefault(&server.namespace, client.DefaultNamespace)
	name := "Temporal"
	if there == nil {
		options, err := c.connectionOptions()
		if err != nil {
			return server, err
		}
		server.address, server.namespace = options.HostPort, options.Namespace
		name += " at " + options.HostPort
		if there, err = client.NewLazyClient(options); err != nil {
			return server, fmt.Errorf("the configuration for Temporal: %w", err)
		}
		defer there.Close()
	}
	var answered peer.Peer
	info, err := askWithTimeout(ctx, c.timing.temporalTimeout, func(ctx context.Context) (*workflowservice.GetSystemInfoResponse, error) {
		return there.WorkflowService().GetSystemInfo(ctx, &workflowservice.GetSystemInfoRequest{}, grpc.Peer(&answered))
	})
	if err != nil {
		return server, errors.New(describeUnreachable(name, err))
	}
	server.version = info.GetServerVersion()
	if server.address == "" && answered.Addr != nil { // the address of the caller's connection is unknown
		server.address = answered.Addr.String()
	}
	described, err := askWithTimeout(ctx, c.timing.temporalTimeout, func(ctx context.Context) (*workflowservice.DescribeNamespaceResponse, error) {
		return there.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: server.namespace})
	})
	if missing := new(serviceerror.NamespaceNotFound); errors.As(err, &missing) {
		return server, fmt.Errorf("there is no namespace %q in Temporal at %s: give --temporal-namespace or set TEMPORAL_NAMESPACE", server.namespace, server.address)
	}
	server.capabilities = described.GetNamespaceInfo().GetCapabilities()
	return server, nil
}

// askWithTimeout is retryUnansweredRead for calls to which the SDK sets no timeout.
func askWithTimeout[T any](ctx context.Context, timeout time.Duration, ask func(context.Context) (T, error)) (T, error) {
	return retryUnansweredRead(ctx, func() (T, error) {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		return ask(ctx)
	})
}

// checkServerSettings checks the dynamic configuration that docs/operations.md recommends.
func (f *findings) checkServerSettings(server temporalServer) {
	if server.capabilities == nil {
		f.addCheck(checkServerSettings, CheckSkipped, "needs the right to describe the namespace", "")
		return
	}
	var off, remedies []string
	if !server.capabilities.GetWorkerPollCompleteOnShutdown() {
		off = append(off, "polls of a worker that stops are not ended, so after a restart the first sync of a kind may wait for ten seconds")
		remedies = append(remedies, "frontend.enableCancelWorkerPollsOnShutdown (server 1.32 or later)")
	}
	if !server.capabilities.GetEagerWorkflowStart() {
		off = append(off, "workflows do not start eagerly, so new resources take longer, and more of Temporal")
		remedies = append(remedies, "system.enableEagerWorkflowStart")
	}
	if len(off) == 0 {
		f.addCheck(checkServerSettings, CheckOK, "polls end when a worker stops, and workflows start eagerly", "")
		return
	}
	f.addCheck(checkServerSettings, CheckWarning, strings.Join(off, "; "),
		"set to true in the server's dynamic configuration: "+strings.Join(remedies, " and "))
}

// skipChecks reports the checks that need the database and Temporal as skipped.
func (f *findings) skipChecks(why string) {
	for _, check := range []string{"prefix", "search attributes", "informers", "workers"} {
		f.addCheck(check, CheckSkipped, "needs "+why, "")
	}
}

// checkPrefix reports whether the prefix in Temporal may belong to this installation.
func (f *findings) checkPrefix(status *TemporalStatus, err error) bool {
	const check = "prefix"
	var input *InputError
	switch {
	case errors.Is(err, ErrOtherInstallation):
		f.addCheck(check, CheckFailure, errorDetail(err), remedy.MatchInstallation)
		return false
	case errors.Is(err, ErrRestoredDatabase):
		f.addCheck(check, CheckFailure, errorDetail(err), remedy.DecideRestored)
		return false
	case errors.As(err, &input):
		f.addCheck(check, CheckFailure, errorDetail(err), "leave the prefix out: Config.WorkflowIDPrefix, or --prefix. A console that was started before the first client has to be started again")
		return false
	case err != nil:
		f.addCheck(check, CheckFailure, errorDetail(err), remedy.ReachTemporal)
		return false
	case !status.PrefixHeld:
		f.addCheck(check, CheckWarning, fmt.Sprintf("%s is not marked as this installation's in Temporal", status.Prefix),
			"start a client: it marks the prefix, and dispatches everything again if Temporal was wiped or moved")
	default:
		f.addCheck(check, CheckOK, status.Prefix+" is this installation's", "")
	}
	return true
}

func (f *findings) checkAttributes(status *TemporalStatus) {
	const check = "search attributes"
	switch {
	case status.AttributesError != nil:
		f.addCheck(check, CheckWarning, "they cannot be read: "+status.AttributesError.Error(),
			"only the filters of Temporal's UI need them: DeltaKind, DeltaNamespace and DeltaState, of type Keyword")
	case len(status.MissingAttributes) > 0:
		command := "create them: temporal operator search-attribute create --namespace " + status.Namespace
		for _, name := range status.MissingAttributes {
			command += " --name " + name + " --type Keyword"
		}
		f.addCheck(check, CheckWarning, "missing: "+strings.Join(status.MissingAttributes, ", ")+"; Temporal's UI cannot filter by them", command)
	default:
		f.addCheck(check, CheckOK, "DeltaKind, DeltaNamespace and DeltaState are there", "")
	}
}

const checkInformer = "informer"

// checkInformerSchedule checks a kind's schedule, and the lag of its informer.
func (f *findings) checkInformerSchedule(k KindStatus, t KindInTemporal, now time.Time) {
	add := func(state CheckState, detail, remedy string) {
		f.addKindCheck(checkInformer, k.Kind, state, detail, remedy)
	}
	every := "every " + wording.Interval(k.InformInterval)
	if k.InformSchedule != nil {
		every = "by calendar"
	}
	switch {
	case k.InformInterval == 0 && k.InformSchedule == nil:
		add(CheckWarning, "no client that runs informers has started with this kind", "start a client that has its controller, without Config.DisableInformers")
	case k.ListsNothing:
		add(CheckOK, "its controller has none", "")
	case k.InformInterval < 0:
		add(CheckOK, "never runs by itself, as it is set", "")
	default:
		f.checkSchedule(checkInformer, k, every, t.Schedule, now)
	}
}

// checkFullListing checks the separate schedule of a kind's full listings.
func (f *findings) checkFullListing(k KindStatus, t KindInTemporal, now time.Time) {
	if k.FullListingInterval > 0 && !k.ListsNothing {
		f.checkSchedule("full listing", k, "every "+wording.Interval(k.FullListingInterval), t.FullSchedule, now)
	}
}

// checkSchedule checks a schedule that must exist in Temporal.
func (f *findings) checkSchedule(check string, k KindStatus, every string, there *InformSchedule, now time.Time) {
	add := func(state CheckState, detail, todo string) { f.addKindCheck(check, k.Kind, state, detail, todo) }
	switch {
	case there == nil:
		add(CheckWarning, "its schedule is missing in Temporal", "start a client that has its controller: it makes the schedule within a minute")
	case k.InformerPaused:
		add(CheckWarning, every+", paused", remedy.ResumeInformer(k.Kind))
	case there.Paused:
		add(CheckWarning, every+", paused in Temporal by an operator", remedy.ResumeInformer(k.Kind))
	case there.LastRunFailed:
		add(CheckWarning, fmt.Sprintf("%s, but the run of %s failed", every, wording.When(there.LastRun, now)), remedy.SeePasses(k.Kind))
	case check == checkInformer && k.Lag > 0:
		add(CheckWarning, fmt.Sprintf("%s, but no pass has succeeded for %s", every, wording.Duration(k.Lag)), remedy.SeePasses(k.Kind))
	default:
		add(CheckOK, fmt.Sprintf("%s, next %s", every, wording.When(there.NextRun, now)), "")
	}
}

func (f *findings) checkWorkers(k KindStatus, t KindInTemporal, namespace string) {
	add := func(state CheckState, detail, remedy string) {
		f.addKindCheck("workers", k.Kind, state, detail, remedy)
	}
	switch {
	case len(t.Workers) == 0 && k.Late > 0:
		add(CheckFailure, "nobody polls "+t.TaskQueue+", and resources are late", remedy.StartPolling)
	case len(t.Workers) == 0:
		add(CheckWarning, "nobody polls "+t.TaskQueue, remedy.StartPolling)
	case len(t.InformWorkers) == 0:
		add(CheckWarning, "nobody polls "+t.InformTaskQueue, remedy.StartPolling)
	default:
		f.checkRouting(k, t, namespace)
	}
}

// checkRouting checks that the workers which poll are those that get the tasks.
func (f *findings) checkRouting(k KindStatus, t KindInTemporal, namespace string) {
	const check = "workers"
	state := CheckWarning
	if k.Late > 0 {
		state = CheckFailure
	}
	if why, todo := t.Routing.findGap(namespace); why != "" {
		f.addKindCheck(check, k.Kind, state, why+" "+t.TaskQueue, todo)
		return
	}
	if why, todo := t.InformRouting.findGap(namespace); why != "" {
		f.addKindCheck(check, k.Kind, CheckWarning, why+" "+t.InformTaskQueue, todo)
		return
	}
	found := fmt.Sprintf("%d on %s", len(t.Workers), t.TaskQueue)
	if !t.Routing.Current.isUnversioned() {
		found += ", the current version is " + t.Routing.Current.String()
	}
	if t.Routing.RampPercent > 0 {
		found += fmt.Sprintf(", %g %% of the workflows are routed to %s", t.Routing.RampPercent, describeTarget(t.Routing.Ramping))
	}
	f.addKindCheck(check, k.Kind, CheckOK, found, "")
}
