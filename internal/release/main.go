// Command release prepares and checks a release of Delta's modules: docs/compatibility.md has the rules.
//
//	go run ./internal/release prepare v1.2.0
//	go run ./internal/release check v1.2.0
//	go run ./internal/release base v1.2.0    the release before, or nothing
package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/semver"

	"github.com/chariot-giving/delta/internal/frozen"
)

const module = "github.com/chariot-giving/delta"

// original is the last version of Delta on River, which had the same module path. The latest version must not be that one.
const original = "v0.4.0"

func main() {
	err := errors.New("usage: release prepare|check|base VERSION, such as v1.2.0, in the root of the repository")
	if len(os.Args) == 3 {
		r := release{os.Args[2], ".", os.Stdout}
		switch os.Args[1] {
		case "prepare":
			err = r.prepare()
		case "check":
			err = r.check()
		case "base":
			err = r.printBase()
		}
	}
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

// release is a version of all modules, in a checkout.
type release struct {
	version, root string
	out           io.Writer
}

// prepare writes the version into the requirements that the modules of this repository have on each other, and prints what a person does next.
func (r release) prepare() error {
	if err := r.checkVersion(); err != nil {
		return err
	}
	err := r.visitModules(func(_, file string, mod *modfile.File) error {
		for _, path := range requiredModules(mod) {
			if err := mod.AddRequire(path, r.version); err != nil {
				return err
			}
		}
		text, err := mod.Format()
		if err != nil {
			return err
		}
		return os.WriteFile(file, text, 0o644)
	})
	if err != nil {
		return err
	}
	tags := strings.Join(r.tags(), " ")
	_, _ = fmt.Fprintf(r.out, "Give the entries of CHANGELOG.md the heading ## [%s], then:\n\n  git commit -am 'Release %s'\n  for tag in %s; do git tag -a -m \"$tag\" \"$tag\"; done\n",
		strings.TrimPrefix(r.version, "v"), r.version, tags)
	_, _ = fmt.Fprintf(r.out, "  go run ./internal/release check %s\n  git push --atomic origin HEAD %s\n", r.version, tags)
	return nil
}

// check reports everything that is wrong with a release that is tagged.
func (r release) check() error {
	problems := []error{r.checkVersion(), r.checkTags(), r.checkRequirements(), r.checkChangelog()}
	base, err := r.findBase()
	switch {
	case err != nil:
		problems = append(problems, err)
	case base == "":
		_, _ = fmt.Fprintf(r.out, "%s is the first release: no promises to compare with\n", r.version)
	default:
		_, _ = fmt.Fprintf(r.out, "%s is compared with %s\n", r.version, base)
		problems = append(problems, r.checkPromises(base), r.checkHistory(base))
	}
	return errors.Join(problems...)
}

func (r release) checkVersion() error {
	switch {
	case semver.Canonical(r.version) != r.version || r.version == "":
		return fmt.Errorf("version %q: it is not of the form v1.2.0 or v1.2.0-rc.1", r.version)
	case semver.Compare(r.version, original) <= 0:
		return fmt.Errorf("version %s: it is not above %s, the last version of Delta on River under the same module path", r.version, original)
	case semver.Compare(semver.Major(r.version), "v1") > 0:
		return fmt.Errorf("version %s: a module of this major version has a path that ends with /%s", r.version, semver.Major(r.version))
	}
	return nil
}

// tags returns the tags of a release: that of the root, and one for each nested module.
func (r release) tags() []string {
	var all []string
	for _, folder := range frozen.Modules {
		all = append(all, strings.TrimPrefix(folder+"/"+r.version, "./"))
	}
	return all
}

func (r release) checkTags() error {
	var problems []error
	commit := ""
	for i, tag := range r.tags() {
		at, err := r.git("rev-parse", "--verify", "--quiet", tag+"^{commit}")
		switch {
		case err != nil:
			problems = append(problems, fmt.Errorf("there is no tag %s", tag))
		case i == 0:
			commit = at
		case commit != "" && at != commit:
			problems = append(problems, fmt.Errorf("the tag %s is of another commit than %s", tag, r.version))
		}
	}
	return errors.Join(problems...)
}

// checkRequirements reports modules that require another version of each other. Those who import a module get what it requires, without its replace.
func (r release) checkRequirements() error {
	var problems []error
	err := r.visitModules(func(folder, _ string, mod *modfile.File) error {
		for _, required := range mod.Require {
			if isOurs(required.Mod.Path) && required.Mod.Version != r.version {
				problems = append(problems, fmt.Errorf("%s/go.mod requires %s %s, and not %s", folder, required.Mod.Path, required.Mod.Version, r.version))
			}
		}
		return nil
	})
	return errors.Join(append(problems, err)...)
}

func (r release) checkChangelog() error {
	text, err := os.ReadFile(filepath.Join(r.root, "CHANGELOG.md"))
	if err != nil {
		return err
	}
	if heading := "\n## [" + strings.TrimPrefix(r.version, "v") + "]"; !strings.Contains(string(text), heading) && semver.Prerelease(r.version) == "" {
		return fmt.Errorf("CHANGELOG.md has no heading%s", strings.ReplaceAll(heading, "\n", " "))
	}
	return nil
}

func isOurs(path string) bool { return path == module || strings.HasPrefix(path, module+"/") }

func requiredModules(mod *modfile.File) (paths []string) {
	for _, required := range mod.Require {
		if isOurs(required.Mod.Path) {
			paths = append(paths, required.Mod.Path)
		}
	}
	return paths
}

// visitModules calls visit for each go.mod below the root.
func (r release) visitModules(visit func(folder, file string, mod *modfile.File) error) error {
	return filepath.WalkDir(r.root, func(file string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && file != r.root:
			return fs.SkipDir
		case entry.Name() != "go.mod":
			return nil
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		mod, err := modfile.Parse(file, text, nil)
		if err != nil {
			return err
		}
		folder, err := filepath.Rel(r.root, filepath.Dir(file))
		if err != nil {
			return err
		}
		return visit(filepath.ToSlash(folder), file, mod)
	})
}

func (r release) git(arguments ...string) (string, error) {
	command := exec.Command("git", arguments...)
	command.Dir = r.root
	out, err := command.Output()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		return "", fmt.Errorf("git %s: %w: %s", strings.Join(arguments, " "), err, exit.Stderr)
	}
	return strings.TrimSpace(string(out)), err
}
