package delta

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	taskqueuepb "go.temporal.io/api/taskqueue/v1"
	"go.temporal.io/api/workflowservice/v1"

	"github.com/chariot-giving/delta/internal/remedy"
)

// QueueRouting says which workers get the tasks of a task queue, if workers have versions ([Config].WorkerVersion).
type QueueRouting struct {
	// Current is the version whose workers get the tasks. A zero version stands for workers without one, here and below.
	Current WorkerVersion
	// RampPercent is the percentage of workflows whose tasks go to workers of the version Ramping instead.
	RampPercent float32
	Ramping     WorkerVersion
	// Polling has the versions of the workers that have polled within the last 75 seconds, in order.
	Polling []WorkerVersion
}

// addPolling adds a version to those that poll.
func (r *QueueRouting) addPolling(v WorkerVersion) {
	if at, found := slices.BinarySearchFunc(r.Polling, v, compareVersions); !found {
		r.Polling = slices.Insert(r.Polling, at, v)
	}
}

// getsTasks reports whether workers of a version get tasks.
func (r QueueRouting) getsTasks(v WorkerVersion) bool {
	return v == r.Current || (r.RampPercent > 0 && v == r.Ramping)
}

// findGap returns why tasks wait although workers poll, and what to do about it; both are empty if no tasks wait for that.
// Without any worker they wait too, which is another fault.
func (r QueueRouting) findGap(namespace string) (why, todo string) {
	if len(r.Polling) == 0 {
		return "", ""
	}
	polls := func(v WorkerVersion) bool {
		_, found := slices.BinarySearchFunc(r.Polling, v, compareVersions)
		return found
	}
	switch last := r.Polling[len(r.Polling)-1]; {
	case !polls(r.Current) && r.Current.isUnversioned():
		why = fmt.Sprintf("no version is current, so tasks wait for workers without one, and only workers of %s poll", describeVersions(r.Polling))
		todo = remedy.MakeCurrent(namespace, last.Deployment, last.BuildID)
	case !polls(r.Current) && last.isUnversioned():
		why = fmt.Sprintf("the version %s is current, and only workers without a version poll", r.Current)
		todo = remedy.MakeUnversionedCurrent(namespace, r.Current.Deployment)
	case !polls(r.Current):
		why = fmt.Sprintf("the version %s is current, and only workers of %s poll", r.Current, describeVersions(r.Polling))
		todo = "start a client of that build. Or " + remedy.MakeCurrent(namespace, last.Deployment, last.BuildID)
	case r.RampPercent > 0 && !polls(r.Ramping):
		why = fmt.Sprintf("%g %% of the workflows are routed to %s, and none of these polls", r.RampPercent, describeTarget(r.Ramping))
		todo = remedy.EndRamp(namespace, r.rampedDeployment(), r.Ramping.BuildID)
	}
	return why, todo
}

// rampedDeployment returns the name of the deployment that ramps: to a version of it or, from one, to workers without one.
func (r QueueRouting) rampedDeployment() string {
	if r.Ramping.isUnversioned() {
		return r.Current.Deployment
	}
	return r.Ramping.Deployment
}

func describeTarget(v WorkerVersion) string {
	if v.isUnversioned() {
		return v.String()
	}
	return "the version " + v.String()
}

func describeVersions(all []WorkerVersion) string {
	texts := make([]string, len(all))
	for i, v := range all {
		texts[i] = v.String()
	}
	return strings.Join(texts, ", ")
}

// queuePollers are the workers of a task queue that have polled it lately.
type queuePollers struct {
	identities []string
	routing    QueueRouting
}

// readPollers returns the workers of a task queue, and which of them get its tasks. A worker whose slots for attempts are
// all taken still polls for workflow tasks.
func (e *engine) readPollers(ctx context.Context, queue string) (found queuePollers, err error) {
	there := map[string]bool{}
	for _, sort := range []enumspb.TaskQueueType{enumspb.TASK_QUEUE_TYPE_WORKFLOW, enumspb.TASK_QUEUE_TYPE_ACTIVITY} {
		described, err := retryUnansweredRead(ctx, func() (*workflowservice.DescribeTaskQueueResponse, error) {
			return e.temporal.DescribeTaskQueue(ctx, queue, sort)
		})
		if err != nil {
			return found, fmt.Errorf("describing the task queue %s: %w", queue, err)
		}
		for _, p := range described.GetPollers() {
			if time.Since(p.GetLastAccessTime().AsTime()) < pollerGrace {
				there[p.GetIdentity()] = true
				found.routing.addPolling(versionOfPoller(p))
			}
		}
		if sort == enumspb.TASK_QUEUE_TYPE_WORKFLOW {
			info := described.GetVersioningInfo()
			found.routing.Current, found.routing.Ramping = workerVersionOf(info.GetCurrentDeploymentVersion()), workerVersionOf(info.GetRampingDeploymentVersion())
			found.routing.RampPercent = info.GetRampingVersionPercentage()
		}
	}
	found.identities = slices.Sorted(maps.Keys(there))
	return found, nil
}

// versionOfPoller returns the version of a worker. A worker may name its build without being routed by it.
func versionOfPoller(p *taskqueuepb.PollerInfo) WorkerVersion {
	options := p.GetDeploymentOptions()
	if options.GetWorkerVersioningMode() != enumspb.WORKER_VERSIONING_MODE_VERSIONED {
		return WorkerVersion{}
	}
	return WorkerVersion{Deployment: options.GetDeploymentName(), BuildID: options.GetBuildId()}
}

// watchRouting logs whether the client's versioned workers get tasks: at the start, when that changes, and at each
// maintenance while tasks wait for workers that do not poll. Nothing fails then, so nothing else would say so.
func (e *engine) watchRouting(ctx context.Context) {
	tick := time.NewTicker(e.client.config.MaintenanceJobInterval)
	defer tick.Stop()
	for said := ""; ; {
		said = e.logRouting(ctx, said)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// logRouting checks the routing of the client's task queues once. It gets the finding of the
// check before, and returns its own.
func (e *engine) logRouting(ctx context.Context, said string) string {
	version, log := e.client.config.WorkerVersion, e.client.config.Logger
	var without []string
	var current WorkerVersion
	for _, w := range e.workers {
		found, err := e.readPollers(ctx, w.queue)
		if err != nil {
			if ctx.Err() == nil {
				log.Info("which version of the workers gets tasks could not be found out; it is tried again", "task_queue", w.queue, "error", err)
			}
			return said
		}
		found.routing.addPolling(version) // it polls, even if Temporal has not noted that yet
		if why, todo := found.routing.findGap(e.temporalNamespace()); why != "" {
			log.Warn("tasks wait, because none of the workers that poll gets them", "task_queue", w.queue, "version", version.String(), "reason", why, "remedy", todo)
			return why
		}
		if !found.routing.getsTasks(version) {
			without, current = append(without, w.queue), found.routing.Current
		}
	}
	switch {
	case len(without) > 0 && said != current.String():
		log.Info("this client's workers get no new tasks, because another version is current", "version", version.String(), "current", current.String(),
			"task_queues", len(without), "remedy", remedy.MakeCurrent(e.temporalNamespace(), version.Deployment, version.BuildID))
		return current.String()
	case len(without) == 0 && said != version.String():
		log.Info("this client's workers get tasks", "version", version.String())
		return version.String()
	}
	return said
}
