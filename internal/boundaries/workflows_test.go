package boundaries

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

const repository = "../../"

func readMakefile(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(repository + "Makefile")
	require.NoError(t, err)
	return string(text)
}

// listWords returns the words of a variable of the Makefile.
func listWords(t *testing.T, variable string) []string {
	t.Helper()
	match := regexp.MustCompile(`(?m)^` + variable + ` := (.*)$`).FindStringSubmatch(readMakefile(t))
	require.NotNil(t, match, variable)
	return strings.Fields(match[1])
}

func decodeYAML(t *testing.T, file string, into any) {
	t.Helper()
	text, err := os.ReadFile(repository + file)
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(text, into), file)
}

func TestDependabotWatchesEveryModule(t *testing.T) {
	t.Parallel()
	var dependabot struct {
		Updates []struct {
			Ecosystem   string `yaml:"package-ecosystem"`
			Directory   string
			Directories []string
		}
	}
	decodeYAML(t, ".github/dependabot.yml", &dependabot)
	watched := map[string][]string{}
	for _, update := range dependabot.Updates {
		directories := update.Directories
		if update.Directory != "" {
			directories = append(directories, update.Directory)
		}
		for _, directory := range directories {
			require.DirExists(t, repository+directory)
		}
		watched[update.Ecosystem] = append(watched[update.Ecosystem], directories...)
	}
	var modules []string
	for _, folder := range append(listWords(t, "MODULES"), listWords(t, "ALL_MODULES")...) {
		if folder != "$(MODULES)" {
			modules = append(modules, path.Join("/", folder))
		}
	}
	require.ElementsMatch(t, modules, watched["gomod"])
	require.Equal(t, []string{"/tools/site"}, watched["npm"])
}

func TestWorkflowsCallTargetsOfTheMakefile(t *testing.T) {
	t.Parallel()
	makefile := readMakefile(t)
	called := map[string]bool{}
	workflows, err := filepath.Glob(repository + ".github/workflows/*.yml")
	require.NoError(t, err)
	for _, workflow := range workflows {
		text, err := os.ReadFile(workflow)
		require.NoError(t, err)
		for _, match := range regexp.MustCompile(`run: make ([a-z-]+)`).FindAllStringSubmatch(string(text), -1) {
			called[match[1]] = true
			require.Regexp(t, `(?m)^`+match[1]+`:`, makefile, workflow)
		}
	}
	// The parts of `make nightly`. `make test-versions` is `make test-postgres` of each version, which is a matrix there.
	recipe := regexp.MustCompile(`(?m)^nightly: (.*) ##.*\n((?:\t.*\n)+)`).FindStringSubmatch(makefile)
	require.NotNil(t, recipe)
	parts := strings.Fields(recipe[1])
	for _, match := range regexp.MustCompile(`\$\(MAKE\) ([a-z-]+)`).FindAllStringSubmatch(recipe[2], -1) {
		parts = append(parts, strings.Replace(match[1], "test-versions", "test-postgres", 1))
	}
	require.Greater(t, len(parts), 3)
	for _, part := range parts {
		require.True(t, called[part], "no workflow runs make %s", part)
	}
}

func TestNightlyMatricesLeaveNothingOut(t *testing.T) {
	t.Parallel()
	var nightly struct {
		Jobs map[string]struct {
			Strategy struct{ Matrix map[string][]string }
		}
	}
	decodeYAML(t, ".github/workflows/nightly.yml", &nightly)
	require.Equal(t, listWords(t, "VERSIONS"), nightly.Jobs["postgres"].Strategy.Matrix["version"])
	require.ElementsMatch(t, listSoakPackages(t), nightly.Jobs["soak"].Strategy.Matrix["package"])
}

// listSoakPackages returns the packages of the root module that have a test of `make soak`.
func listSoakPackages(t *testing.T) []string {
	t.Helper()
	found := map[string]bool{}
	err := filepath.WalkDir(repository, func(file string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && file != repository:
			return filepath.SkipDir
		case entry.IsDir() || !strings.HasSuffix(file, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(file)
		if err == nil && regexp.MustCompile(`(?m)^func TestSoak`).Match(text) {
			folder, err := filepath.Rel(repository, filepath.Dir(file))
			require.NoError(t, err)
			found["./"+filepath.ToSlash(folder)] = true
		}
		return err
	})
	require.NoError(t, err)
	var packages []string
	for name := range found {
		packages = append(packages, name)
	}
	return packages
}
