package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/internal/frozen"
)

// repository is a small copy of this one: each module that is released, promises, a migration and a history.
type repository struct {
	t    *testing.T
	root string
}

func newRepository(t *testing.T) repository {
	t.Helper()
	r := repository{t, t.TempDir()}
	r.git("init", "--quiet", "--initial-branch=main")
	r.git("config", "user.name", "test")
	r.git("config", "user.email", "test@localhost")
	for _, folder := range frozen.Modules {
		text := "module " + strings.TrimSuffix(module+"/"+folder, "/.") + "\n"
		if folder != "." {
			text += "\nrequire " + module + " v0.0.0\n\nreplace " + module + " => ../\n"
		}
		r.write(folder+"/go.mod", text)
	}
	r.write("CHANGELOG.md", "# Changelog\n\n## [1.0.0]\n\n## [1.0.1]\n\n## [1.1.0]\n")
	r.write("api/delta.txt", "func A()\nfunc B()\n")
	r.write("api/schema.txt", "column delta_resource.kind text\nindex delta_resource_idx\n")
	r.write("api/json.txt", "cmd/delta oldName \"kind\" string\n")
	r.write("migrations/1.sql", "CREATE TABLE a ();\n")
	r.write("workflows/testdata/synced.json", "{}\n")
	r.commit()
	r.git("tag", original)
	return r
}

func (r repository) git(arguments ...string) {
	r.t.Helper()
	_, err := release{root: r.root}.git(arguments...)
	require.NoError(r.t, err)
}

func (r repository) write(file, text string) {
	r.t.Helper()
	require.NoError(r.t, os.MkdirAll(filepath.Dir(filepath.Join(r.root, file)), 0o755))
	require.NoError(r.t, os.WriteFile(filepath.Join(r.root, file), []byte(text), 0o644))
}

func (r repository) commit() {
	r.t.Helper()
	r.git("add", "--all")
	r.git("commit", "--quiet", "--allow-empty", "--message", "change")
}

func (r repository) at(version string) release { return release{version, r.root, r.t.Output()} }

// release makes a release as docs/compatibility.md says.
func (r repository) release(version string) release {
	r.t.Helper()
	made := r.at(version)
	require.NoError(r.t, made.prepare())
	r.commit()
	for _, tag := range made.tags() {
		r.git("tag", tag)
	}
	return made
}

func TestAReleaseAsPreparedIsInOrder(t *testing.T) {
	t.Parallel()
	r := newRepository(t)
	first := r.release("v1.0.0")
	require.NoError(t, first.check())
	base, err := first.findBase()
	require.NoError(t, err)
	require.Empty(t, base, "the original promises nothing")

	r.write("api/delta.txt", "func A()\nfunc B()\nfunc C()\n")
	r.write("api/schema.txt", "column delta_resource.kind text\nindex another\n")
	r.write("api/json.txt", "cmd/delta newName \"kind\" string\n")
	r.write("migrations/2.sql", "CREATE TABLE b ();\n")
	r.write("workflows/testdata/failed.json", "{}\n")
	require.NoError(t, r.release("v1.1.0").check())
	base, err = first.findBase()
	require.NoError(t, err)
	require.Empty(t, base, "what comes later does not count")
	require.NoError(t, r.release("v1.1.1-rc.1").check(), "a candidate needs no entry in the changelog")
}

func TestABrokenPromiseStopsARelease(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, file, text, version, want string }{
		{"a function is gone", "api/delta.txt", "func A()\n", "v1.1.0", "api/delta.txt: gone since v1.0.0: func B()"},
		{"a column has another type", "api/schema.txt", "column delta_resource.kind int\n", "v1.1.0", "column delta_resource.kind text"},
		{"a field of JSON is gone", "api/json.txt", "", "v1.1.0", `cmd/delta "kind" string`},
		{"a patch has something new", "api/delta.txt", "func A()\nfunc B()\nfunc C()\n", "v1.0.1", "no patch but a minor version: func C()"},
		{"a released migration", "migrations/1.sql", "CREATE TABLE other ();\n", "v1.1.0", "migrations/1.sql was released with v1.0.0"},
		{"a recorded history", "workflows/testdata/synced.json", "[]\n", "v1.1.0", "workflows/testdata/synced.json was released"},
		{"the changelog", "CHANGELOG.md", "# Changelog\n", "v1.1.0", "CHANGELOG.md has no heading ## [1.1.0]"},
		{"another path", "x", "", "v2.0.0", "ends with /v2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRepository(t)
			r.release("v1.0.0")
			r.write(c.file, c.text)
			made := r.at(c.version)
			if made.checkVersion() == nil {
				r.release(c.version)
			}
			require.ErrorContains(t, made.check(), c.want)
		})
	}
}

func TestTagsOfTheModulesBelongTogether(t *testing.T) {
	t.Parallel()
	r := newRepository(t)
	made := r.at("v1.0.0")
	r.git("tag", "v1.0.0")
	err := made.check()
	require.ErrorContains(t, err, "there is no tag deltaotel/v1.0.0")
	require.ErrorContains(t, err, "deltaotel/go.mod requires "+module+" v0.0.0, and not v1.0.0")
	r.commit()
	r.git("tag", "deltaotel/v1.0.0")
	require.ErrorContains(t, made.check(), "the tag deltaotel/v1.0.0 is of another commit")
}

func TestVersionsAreAboveTheOriginal(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]string{
		"v0.4.0": "not above v0.4.0", "v0.3.9": "not above v0.4.0", "v0.4.0-rc.1": "not above v0.4.0", "1.0.0": "not of the form", "v1.0": "not of the form", "v1.0.0+b": "not of the form", "": "not of the form",
	} {
		require.ErrorContains(t, release{version: version}.checkVersion(), want, version)
	}
	for _, version := range []string{"v0.4.1", "v1.0.0-rc.1", "v1.0.0"} {
		require.NoError(t, release{version: version}.checkVersion())
	}
}
