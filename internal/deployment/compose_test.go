package deployment

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

const root = "../../"

func readFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(root + name)
	require.NoError(t, err)
	return string(text)
}

// loadCompose validates docker-compose.yml against the specification, and returns its services of some profiles: "*" is all.
func loadCompose(t *testing.T, profiles ...string) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{root + "docker-compose.yml"}, cli.WithProfiles(profiles), cli.WithName("delta"), cli.WithResolvedPaths(true))
	require.NoError(t, err)
	project, err := options.LoadProject(t.Context())
	require.NoError(t, err)
	return project
}

// findJobs returns the services that end: others wait until they have succeeded.
func findJobs(project *types.Project) (jobs []string) {
	for _, service := range project.Services {
		for name, dependency := range service.DependsOn {
			if dependency.Condition == types.ServiceConditionCompletedSuccessfully && !slices.Contains(jobs, name) {
				jobs = append(jobs, name)
			}
		}
	}
	return jobs
}

// `docker compose up --wait` fails when a service ends, unless another service waits for its success. It waits for the others to be healthy.
func TestEachProfileCanBeWaitedFor(t *testing.T) {
	t.Parallel()
	mayEnd := []string{"temporal-schema", "temporal-namespace", "migrate"}
	for profile, services := range map[string][]string{
		"":           {"postgres", "temporal", "temporal-namespace", "temporal-schema", "temporal-ui"},
		"example":    {"client", "console", "migrate", "postgres", "temporal", "temporal-namespace", "temporal-schema", "temporal-ui"},
		"monitoring": {"grafana", "metrics", "migrate", "postgres", "prometheus", "stream", "temporal", "temporal-namespace", "temporal-schema", "temporal-ui"},
	} {
		project := loadCompose(t, profile)
		require.ElementsMatch(t, services, project.ServiceNames(), profile)
		jobs := findJobs(project)
		for name, service := range project.Services {
			if slices.Contains(mayEnd, name) {
				require.Contains(t, jobs, name, profile)
				require.Empty(t, service.Restart, name)
				continue
			}
			require.NotContains(t, jobs, name, profile)
			require.Equal(t, "unless-stopped", service.Restart, name)
			if name != "client" { // It serves nothing.
				require.NotNil(t, service.HealthCheck, name)
			}
		}
	}
}

func TestComposeMountsFilesThatExist(t *testing.T) {
	t.Parallel()
	folder, err := filepath.Abs(root)
	require.NoError(t, err)
	mounted := 0
	for name, service := range loadCompose(t, "*").Services {
		for _, volume := range service.Volumes {
			if volume.Type == types.VolumeTypeBind {
				mounted++
				require.True(t, strings.HasPrefix(volume.Source, folder), volume.Source)
				require.True(t, volume.ReadOnly, volume.Source)
				_, err := os.Stat(volume.Source)
				require.NoError(t, err, name)
			}
		}
		if service.Build != nil {
			require.Regexp(t, `(?m)^FROM .* AS `+service.Build.Target+`$`, readFile(t, "Dockerfile"), name)
		}
	}
	require.Equal(t, 8, mounted)
}

// Passwords and tokens are in the file, so nothing may listen for other machines.
func TestComposePublishesOnThisMachineOnly(t *testing.T) {
	t.Parallel()
	published := map[string]string{}
	for name, service := range loadCompose(t, "*").Services {
		for _, port := range service.Ports {
			require.Equal(t, "127.0.0.1", port.HostIP, name)
			require.NotContains(t, published, port.Published)
			published[port.Published] = name
		}
	}
	require.Len(t, published, 7)
}

// What is tested is the server that tools/delta-temporal embeds.
func TestComposeHasTheTestedTemporal(t *testing.T) {
	t.Parallel()
	required := readFile(t, "tools/delta-temporal/go.mod")
	services := loadCompose(t, "*").Services
	for module, names := range map[string][]string{
		`go\.temporal\.io/server`:             {"temporal", "temporal-schema", "temporal-namespace"},
		`github\.com/temporalio/ui-server/v2`: {"temporal-ui"},
	} {
		version := regexp.MustCompile(module + ` v(\S+)`).FindStringSubmatch(required)
		require.NotNil(t, version, module)
		for _, name := range names {
			_, tag, _ := strings.Cut(services[name].Image, ":")
			require.Equal(t, version[1], tag, name)
		}
	}
}

func TestComposeGivesArgumentsThatTheCommandKnows(t *testing.T) {
	t.Parallel()
	checked := 0
	for name, service := range loadCompose(t, "*").Services {
		if service.Image != "delta:compose" {
			continue
		}
		checked++
		requireArguments(t, name, service.Command)
		if service.HealthCheck != nil {
			require.Equal(t, types.HealthCheckTest{"CMD", "/usr/local/bin/delta"}, service.HealthCheck.Test[:2], name)
			requireArguments(t, name, service.HealthCheck.Test[2:])
		}
	}
	require.Equal(t, 4, checked)
}

func TestPrometheusCollectsFromTheServices(t *testing.T) {
	t.Parallel()
	var config struct {
		RuleFiles     []string `yaml:"rule_files"`
		ScrapeConfigs []struct {
			JobName       string `yaml:"job_name"`
			Authorization struct{ Credentials string }
			StaticConfigs []struct{ Targets []string } `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
	}
	require.NoError(t, yaml.Unmarshal([]byte(readFile(t, "deploy/compose/prometheus.yml")), &config))
	require.Equal(t, []string{"alerts.yaml"}, config.RuleFiles)
	require.Len(t, config.ScrapeConfigs, 2)
	services := loadCompose(t, "monitoring").Services
	for _, scrape := range config.ScrapeConfigs {
		name, port, _ := strings.Cut(scrape.StaticConfigs[0].Targets[0], ":")
		require.Contains(t, services[name].Command, "0.0.0.0:"+port)
		if token := services[name].Environment["DELTA_STREAM_TOKEN"]; token != nil {
			require.Equal(t, "delta-stream", scrape.JobName, "an alert goes by it")
			require.Equal(t, *token, scrape.Authorization.Credentials)
		}
	}
}
