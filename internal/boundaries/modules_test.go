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
	"golang.org/x/mod/modfile"
)

// `make verify` checks every module of the repository. Each is named after its folder, and replaces the modules of the repository that it requires.
func TestModulesFollowTheRules(t *testing.T) {
	t.Parallel()
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	require.NoError(t, err)
	var listed []string
	for _, name := range []string{"MODULES", "ALL_MODULES"} {
		match := regexp.MustCompile(`(?m)^` + name + ` := (.*)$`).FindSubmatch(makefile)
		require.NotNil(t, match, name)
		listed = append(listed, strings.Fields(strings.ReplaceAll(string(match[1]), "$(MODULES)", ""))...)
	}
	var found []string
	err = filepath.WalkDir(root, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && file != root {
			return filepath.SkipDir // .git, .bin
		}
		if entry.Name() != "go.mod" {
			return nil
		}
		folder, err := filepath.Rel(root, filepath.Dir(file))
		require.NoError(t, err)
		folder = filepath.ToSlash(folder)
		found = append(found, folder)
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		mod, err := modfile.Parse(file, text, nil)
		require.NoError(t, err)
		require.Equal(t, path.Join(module, folder), mod.Module.Mod.Path)
		var ours, replaced []string
		for _, required := range mod.Require {
			if required.Mod.Path == module || strings.HasPrefix(required.Mod.Path, module+"/") {
				ours = append(ours, required.Mod.Path)
			}
		}
		for _, replace := range mod.Replace {
			replaced = append(replaced, replace.Old.Path)
			require.Equal(t, filepath.Join(root, strings.TrimPrefix(replace.Old.Path, module)), filepath.Join(filepath.Dir(file), replace.New.Path), folder)
		}
		require.ElementsMatch(t, ours, replaced, folder)
		return nil
	})
	require.NoError(t, err)
	require.ElementsMatch(t, listed, found)
}

// A module with code of ours is also tested and linted, and a module that only pins programs is checked too.
func TestModulesAreTestedAndLinted(t *testing.T) {
	t.Parallel()
	makefile, err := os.ReadFile("../../Makefile")
	require.NoError(t, err)
	for target, prerequisite := range map[string]string{
		"test-modules": "$(OTHERS:%=test/%)", "lint": "$(OTHERS:%=lint/%)", "verify": "$(ALL_MODULES:%=tidy/%)",
	} {
		rule := regexp.MustCompile(`(?m)^` + target + `:(.*?)(?:##|$)`).FindSubmatch(makefile)
		require.NotNil(t, rule, target)
		require.Contains(t, strings.Fields(string(rule[1])), prerequisite, target)
	}
	require.Contains(t, string(makefile), "\nOTHERS := $(filter-out .,$(MODULES))\n")
}
