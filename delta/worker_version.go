package delta

import (
	"cmp"
	"strings"
	"unicode"
	"unicode/utf8"

	deploymentpb "go.temporal.io/api/deployment/v1"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
)

// maxVersionBytes bounds each part of a version. Temporal allows some more.
const maxVersionBytes = 255

// WorkerVersion is a version of a Temporal worker deployment: a name for all workers of a program, and one build of it. The
// zero value stands for workers without a version.
type WorkerVersion struct {
	// Deployment is the name of the deployment. All clients that serve the same kinds have the same one. Valid UTF-8 without
	// '.', ':' and control characters, at most 255 bytes, and it must not start with "__".
	Deployment string
	// BuildID is the build, such as a version, a commit or the tag of an image. Valid UTF-8 without control characters, at
	// most 255 bytes, and it must not start with "__".
	BuildID string
}

// String returns the version as Temporal shows it.
func (v WorkerVersion) String() string {
	if v.isUnversioned() {
		return "workers without a version"
	}
	return v.Deployment + ":" + v.BuildID
}

func (v WorkerVersion) isUnversioned() bool { return v == WorkerVersion{} }

// validate applies Temporal's rules. A server that refuses a poll would say so only in the log.
func (v WorkerVersion) validate() error {
	const deployment, build = "Config.WorkerVersion.Deployment", "Config.WorkerVersion.BuildID"
	switch {
	case v.isUnversioned():
		return nil
	case v.Deployment == "":
		return inputError(deployment, "", "must be set together with BuildID: it names the deployment that the build is of")
	case v.BuildID == "":
		return inputError(build, "", "must be set together with Deployment: it names the build of these workers")
	case strings.ContainsAny(v.Deployment, ".:"):
		return inputError(deployment, v.Deployment, "must not contain '.' or ':'")
	}
	for _, name := range []struct{ field, value string }{{deployment, v.Deployment}, {build, v.BuildID}} {
		if len(name.value) > maxVersionBytes || !utf8.ValidString(name.value) || strings.ContainsFunc(name.value, unicode.IsControl) || strings.HasPrefix(name.value, "__") {
			return inputError(name.field, name.value, `must be valid UTF-8 without control characters, at most %d bytes, and not start with "__"`, maxVersionBytes)
		}
	}
	return nil
}

// deploymentOptions returns the options for workers of the version. There is no default behaviour, because each workflow is
// registered with its own.
func (v WorkerVersion) deploymentOptions() worker.DeploymentOptions {
	if v.isUnversioned() {
		return worker.DeploymentOptions{}
	}
	return worker.DeploymentOptions{
		UseVersioning: true,
		Version:       worker.WorkerDeploymentVersion{DeploymentName: v.Deployment, BuildID: v.BuildID},
	}
}

// workerVersionOf returns a version of Temporal's API; nil stands for workers without a version.
func workerVersionOf(v *deploymentpb.WorkerDeploymentVersion) WorkerVersion {
	return WorkerVersion{Deployment: v.GetDeploymentName(), BuildID: v.GetBuildId()}
}

func compareVersions(a, b WorkerVersion) int {
	return cmp.Or(cmp.Compare(a.Deployment, b.Deployment), cmp.Compare(a.BuildID, b.BuildID))
}

// passBehavior returns the versioning behaviour of runs of informers.
func (c Config) passBehavior() workflow.VersioningBehavior {
	if c.PinPasses {
		return workflow.VersioningBehaviorPinned
	}
	return workflow.VersioningBehaviorAutoUpgrade
}
