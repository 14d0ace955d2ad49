//go:build kubernetes

package deployment

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes/scheme"
)

const chart = root + "deploy/helm/delta"

// everything are values with which the chart has all its parts.
var everything = map[string]any{
	"image":            map[string]any{"tag": "1.2.0"},
	"imagePullSecrets": []any{map[string]any{"name": "registry"}},
	"temporal":         map[string]any{"apiKeySecretName": "cloud", "extraEnv": []any{map[string]any{"name": "TEMPORAL_TLS_SERVER_NAME", "value": "temporal"}}},
	"migrate":          map[string]any{"secretName": "owner", "secretKey": "owner-url"},
	"console": map[string]any{
		"allowCommands": true, "temporalUI": "http://localhost:8233/namespaces/default", "streamURL": "http://localhost:8080/",
		"ingress": map[string]any{"enabled": true, "className": "nginx"},
	},
	"metrics":        map[string]any{"serviceMonitor": map[string]any{"enabled": true, "labels": map[string]any{"release": "prometheus"}}},
	"stream":         map[string]any{"enabled": true, "extraArgs": []any{"--slot-heartbeat=10s"}},
	"sinks":          map[string]any{"enabled": true, "replicas": 2, "filesSecretName": "sinks", "envSecretNames": []any{"nats"}},
	"networkPolicy":  map[string]any{"metricsFrom": []any{map[string]any{"namespaceSelector": map[string]any{}}}},
	"podAnnotations": map[string]any{"team": "billing"},
	"nodeSelector":   map[string]any{"kubernetes.io/arch": "arm64"},
	"tolerations":    []any{map[string]any{"key": "spot", "operator": "Exists"}},
	"affinity":       map[string]any{"podAntiAffinity": map[string]any{}},
}

func renderChart(t *testing.T, values map[string]any) []runtime.Object {
	t.Helper()
	loaded, err := loader.Load(chart)
	require.NoError(t, err)
	all, err := util.ToRenderValues(loaded, values, common.ReleaseOptions{Name: "ours", Namespace: "delta", IsInstall: true}, common.DefaultCapabilities)
	require.NoError(t, err)
	rendered, err := engine.Engine{Strict: true}.Render(loaded, all)
	require.NoError(t, err)
	var objects []runtime.Object
	for name, text := range rendered {
		if filepath.Ext(name) == ".yaml" {
			objects = append(objects, decodeManifests(t, name, text)...)
		}
	}
	return objects
}

// strict refuses fields that a type of Kubernetes does not have, and fields that are there twice.
var strict = serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()

func decodeManifests(t *testing.T, where, text string) (objects []runtime.Object) {
	t.Helper()
	for i, document := range strings.Split("\n"+text, "\n---") {
		if strings.TrimSpace(document) == "" || strings.Contains(document, "kind: ServiceMonitor") { // Of the operator of Prometheus.
			continue
		}
		object, kind, err := strict.Decode([]byte(document), nil, nil)
		require.NoError(t, err, "%s, document %d:\n%s", where, i, document)
		require.True(t, scheme.Scheme.IsVersionRegistered(kind.GroupVersion()))
		objects = append(objects, object)
	}
	return objects
}

func TestHelmFindsNothingToSay(t *testing.T) {
	t.Parallel()
	for name, values := range map[string]map[string]any{"defaults": {}, "everything": everything} {
		for _, message := range lint.RunAll(chart, values, "delta").Messages {
			require.Less(t, message.Severity, support.WarningSev, "%s: %s", name, message)
		}
	}
}

func TestTheChartHasWhatItsValuesAskFor(t *testing.T) {
	t.Parallel()
	require.Equal(t, []string{
		"Deployment ours-console", "Deployment ours-metrics", "Job ours-migrate", "NetworkPolicy ours-console", "NetworkPolicy ours-metrics",
		"Service ours-console", "Service ours-metrics",
	}, nameObjects(t, renderChart(t, nil)))
	require.Equal(t, []string{
		"ConfigMap ours-sinks", "Deployment ours-console", "Deployment ours-metrics", "Deployment ours-sinks", "Deployment ours-stream",
		"Ingress ours-console", "Job ours-migrate", "NetworkPolicy ours-console", "NetworkPolicy ours-metrics", "NetworkPolicy ours-sinks",
		"NetworkPolicy ours-stream", "PodDisruptionBudget ours-sinks", "Service ours-console", "Service ours-metrics", "Service ours-sinks",
		"Service ours-stream",
	}, nameObjects(t, renderChart(t, everything)))
}

func nameObjects(t *testing.T, objects []runtime.Object) (names []string) {
	t.Helper()
	for _, object := range objects {
		names = append(names, object.GetObjectKind().GroupVersionKind().Kind+" "+object.(metav1.Object).GetName())
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func TestTheChartFitsTogether(t *testing.T) {
	t.Parallel()
	for _, values := range []map[string]any{nil, everything} {
		objects := renderChart(t, values)
		requireFit(t, objects)
		for _, object := range objects {
			name, pod := findPod(object)
			if pod == nil {
				continue
			}
			requireArguments(t, name, pod.Spec.Containers[0].Args)
			for key, value := range object.(metav1.Object).GetLabels() {
				require.NotEmpty(t, value, "%s: %s", name, key)
			}
		}
	}
}

func TestManifestsOfAClientFitTogether(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(root + "deploy/kubernetes/client.yaml")
	require.NoError(t, err)
	objects := decodeManifests(t, "client.yaml", string(text))
	requireFit(t, objects)
	require.Equal(t, []string{"Deployment invoices", "HorizontalPodAutoscaler invoices", "NetworkPolicy invoices", "PodDisruptionBudget invoices"},
		nameObjects(t, objects))
	adapter := readFile(t, "deploy/kubernetes/prometheus-adapter.yaml")
	for _, object := range objects {
		switch object := object.(type) {
		case *autoscalingv2.HorizontalPodAutoscaler:
			require.Equal(t, "invoices", object.Spec.ScaleTargetRef.Name)
			require.Contains(t, adapter, "as: "+object.Spec.Metrics[0].External.Metric.Name)
		case *appsv1.Deployment:
			require.Nil(t, object.Spec.Replicas, "the autoscaler decides")
			container := object.Spec.Template.Spec.Containers[0]
			require.Equal(t, "/livez", container.LivenessProbe.HTTPGet.Path)
			require.Equal(t, "/readyz", container.ReadinessProbe.HTTPGet.Path)
			require.EqualValues(t, 25, *object.Spec.Template.Spec.TerminationGracePeriodSeconds, "docs/operations.md: five seconds more than Stop")
		}
	}
}

// findPod returns the pod that an object makes, if it makes any.
func findPod(object runtime.Object) (string, *corev1.PodTemplateSpec) {
	switch object := object.(type) {
	case *appsv1.Deployment:
		return object.Name, &object.Spec.Template
	case *batchv1.Job:
		return object.Name, &object.Spec.Template
	}
	return "", nil
}

// requireFit sees that pods are restricted, that selectors choose pods that are there, and that ports, volumes and probes have the names of
// others.
func requireFit(t *testing.T, objects []runtime.Object) {
	t.Helper()
	pods := map[string]*corev1.PodTemplateSpec{}
	for _, object := range objects {
		if name, pod := findPod(object); pod != nil {
			pods[name] = pod
			requireRestricted(t, name, pod.Spec)
			requireProbes(t, name, pod.Spec)
		}
	}
	require.NotEmpty(t, pods)
	requireSelected := func(where string, selector *metav1.LabelSelector, ports ...string) {
		t.Helper()
		match, err := metav1.LabelSelectorAsSelector(selector)
		require.NoError(t, err)
		var chosen []string
		for name, pod := range pods {
			if match.Matches(labels.Set(pod.Labels)) {
				chosen = append(chosen, name)
				for _, port := range ports {
					require.Contains(t, namePorts(pod.Spec), port, where)
				}
			}
		}
		require.Len(t, chosen, 1, "%s: %s of %s", where, match, slices.Collect(maps.Keys(pods)))
	}
	for _, object := range objects {
		where := fmt.Sprintf("%T %s", object, object.(metav1.Object).GetName())
		switch object := object.(type) {
		case *appsv1.Deployment:
			requireSelected(where, object.Spec.Selector)
		case *corev1.Service:
			requireSelected(where, &metav1.LabelSelector{MatchLabels: object.Spec.Selector}, object.Spec.Ports[0].TargetPort.StrVal)
		case *policyv1.PodDisruptionBudget:
			requireSelected(where, object.Spec.Selector)
		case *networkingv1.NetworkPolicy:
			requireSelected(where, &object.Spec.PodSelector, object.Spec.Ingress[0].Ports[0].Port.StrVal)
		case *networkingv1.Ingress:
			backend := object.Spec.Rules[0].HTTP.Paths[0].Backend.Service
			require.True(t, slices.ContainsFunc(objects, func(other runtime.Object) bool {
				service, ok := other.(*corev1.Service)
				return ok && service.Name == backend.Name && service.Spec.Ports[0].Name == backend.Port.Name
			}), where)
		}
	}
}

func namePorts(pod corev1.PodSpec) (names []string) {
	for _, port := range pod.Containers[0].Ports {
		names = append(names, port.Name)
	}
	return names
}

// requireRestricted is the profile "restricted" of Kubernetes' pod security standards, and a file system that cannot be written.
func requireRestricted(t *testing.T, name string, pod corev1.PodSpec) {
	t.Helper()
	require.True(t, *pod.SecurityContext.RunAsNonRoot, name)
	require.Equal(t, corev1.SeccompProfileTypeRuntimeDefault, pod.SecurityContext.SeccompProfile.Type, name)
	require.False(t, *pod.AutomountServiceAccountToken, name)
	require.Len(t, pod.Containers, 1, name)
	container := pod.Containers[0]
	require.True(t, *container.SecurityContext.ReadOnlyRootFilesystem, name)
	require.False(t, *container.SecurityContext.AllowPrivilegeEscalation, name)
	require.Equal(t, []corev1.Capability{"ALL"}, container.SecurityContext.Capabilities.Drop, name)
	volumes := map[string]bool{}
	for _, volume := range pod.Volumes {
		volumes[volume.Name] = true
	}
	for _, mount := range container.VolumeMounts {
		require.True(t, volumes[mount.Name], "%s: %s", name, mount.Name)
	}
	require.Len(t, container.VolumeMounts, len(pod.Volumes), name)
}

func requireProbes(t *testing.T, name string, pod corev1.PodSpec) {
	t.Helper()
	if pod.RestartPolicy == corev1.RestartPolicyNever {
		return // A job ends.
	}
	for _, probe := range []*corev1.Probe{pod.Containers[0].LivenessProbe, pod.Containers[0].ReadinessProbe} {
		require.NotNil(t, probe, name)
		if probe.TCPSocket != nil {
			require.Contains(t, namePorts(pod), probe.TCPSocket.Port.StrVal, name)
		} else {
			require.Contains(t, namePorts(pod), probe.HTTPGet.Port.StrVal, name)
		}
	}
}
