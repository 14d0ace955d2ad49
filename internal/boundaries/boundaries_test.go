// Package boundaries checks which package of this module may import which. It is all tests.
package boundaries

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/chariot-giving/delta"

// layers are the packages in the direction of imports: each may import those to its left, never back. deltatest, cmd and examples
// stand to the right of all. delta/internal/kit is the interface of delta for deltatest.
var layers = []string{"delta/deltatype", "db", "activities", "delta/internal/kit", "workflows", "delta"}

// leaves import nothing of this module but their own folder and shared packages.
var leaves = []string{"migrations", "messagedb", "cdc"}

// joining packages may import only the packages listed here. They are public.
var joining = map[string][]string{
	"bridge":                 {"delta", "delta/deltatype", "messagedb", "cdc"},
	"sinks/category":         {"messagedb", "sinks", "sinks/internal/claimed"},
	"sinks/changelog":        {"delta", "sinks", "sinks/internal/claimed"},
	"sinks/internal/claimed": {"sinks"},
	"delta/console":          {"delta", "delta/deltatype", "messagedb", "cdc"},
}

// shared import nothing of this module, so everything may import them, leaves too.
var shared = []string{"internal/exposition", "internal/backoff", "internal/pooler", "internal/wording", "internal/difference", "sinks/internal/jsonobject"}

// testOnly packages are for tests, and for the few packages that run the same servers. Packages that users link into their programs must not import
// them.
var testOnly = []string{"delta/deltatest", "internal/stack", "internal/testdb", "internal/flock", "internal/freeport", "internal/frozen", "internal/cdctest", "internal/codectest", "internal/browsertest", "internal/soak", "internal/testport", "internal/testprogram", "internal/testproxy", "internal/hostile", "sinks/internal/sinktest"}

// mayImportTestOnly has the prefixes of those few packages.
var mayImportTestOnly = []string{"cmd", "internal/release", "examples", "internal/bench", "delta/deltatest", "internal/stack", "internal/testdb", "internal/cdctest", "internal/testport", "internal/hostile"}

// pkg is the output of go list for a package. Imports and Deps do not include those of its tests.
type pkg struct {
	ImportPath string
	Standard   bool
	Imports    []string
	Deps       []string
}

func TestImportsGoInOneDirection(t *testing.T) {
	t.Parallel()
	pkgs := list(t)
	for _, layer := range layers {
		require.True(t, slices.ContainsFunc(pkgs, func(p pkg) bool { return p.ImportPath == module+"/"+layer }),
			"there is no package %s: this test checks nothing", layer)
	}
	require.Empty(t, violations(pkgs))
}

func TestDeltatypeImportsTheStandardLibraryOnly(t *testing.T) {
	t.Parallel()
	pkgs := list(t)
	standard := map[string]bool{}
	for _, p := range pkgs {
		standard[p.ImportPath] = p.Standard
	}
	for _, p := range pkgs {
		if p.ImportPath != module+"/delta/deltatype" {
			continue
		}
		require.NotEmpty(t, p.Deps)
		for _, dep := range p.Deps {
			require.True(t, standard[dep], "deltatype depends on %s", dep)
		}
	}
}

func TestWorkflowsLeaveInputAndOutputToActivities(t *testing.T) {
	t.Parallel()
	for _, p := range list(t) {
		if p.ImportPath != module+"/workflows" {
			continue
		}
		for _, imported := range p.Imports {
			outside := strings.HasPrefix(imported, "github.com/jackc/") || slices.Contains([]string{
				"database/sql", "net", "net/http", "os", "io", "sync", "math/rand", "math/rand/v2", module + "/db",
			}, imported)
			require.False(t, outside, "workflows imports %s", imported)
		}
	}
}

// The rules can fail.
func TestEachRuleFindsWhatBreaksIt(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ from, to, found string }{
		{"db", "delta", "db must not import delta"},
		{"db", "activities", "db must not import activities"},
		{"activities", "workflows", "activities must not import workflows"},
		{"delta/deltatype", "db", "delta/deltatype must not import db"},
		{"workflows", "cmd/delta", "workflows must not import cmd/delta"},
		{"delta", "examples/modules", "delta must not import examples/modules"},
		{"migrations", "db", "migrations is a leaf: it must not import db"},
		{"cdc", "migrations", "cdc is a leaf: it must not import migrations"},
		{"cdc", "internal/cdctest", "cdc is a leaf: it must not import internal/cdctest"},
		{"cdc/wal", "delta/deltatype", "cdc/wal is a leaf: it must not import delta/deltatype"},
		{"delta", "delta/deltatest", "delta must not import delta/deltatest, which is for tests"},
		{"migrations", "internal/stack", "migrations is a leaf: it must not import internal/stack"},
		{"workflows", "internal/stack", "workflows must not import internal/stack, which is for tests"},
		{"internal/stack", "delta", "internal/stack must not import delta"},
		{"delta/internal/kit", "delta", "delta/internal/kit must not import delta"},
		{"activities", "delta/internal/kit", "activities must not import delta/internal/kit"},
		{"internal/testport", "delta", "internal/testport must not import delta"},
		{"internal/exposition", "cdc", "internal/exposition is shared by all: it must not import cdc"},
		{"internal/other", "db", "internal/other must not import db"},
		{"bridge", "db", "bridge joins public packages: it must not import db"},
		{"bridge", "activities", "bridge joins public packages: it must not import activities"},
		{"delta", "bridge", "delta must not import bridge"},
		{"cdc", "bridge", "cdc is a leaf: it must not import bridge"},
		{"messagedb", "bridge", "messagedb is a leaf: it must not import bridge"},
		{"sinks", "delta", "sinks must not import delta"},
		{"sinks/changelog", "db", "sinks/changelog joins public packages: it must not import db"},
		{"sinks/category", "delta", "sinks/category joins public packages: it must not import delta"},
		{"messagedb", "sinks/category", "messagedb is a leaf: it must not import sinks/category"},
		{"sinks", "sinks/category", "sinks must not import sinks/category"},
		{"bridge", "sinks", "bridge joins public packages: it must not import sinks"},
		{"delta", "delta/console", "delta must not import delta/console"},
		{"delta/console", "db", "delta/console joins public packages: it must not import db"},
		{"delta", "sinks/changelog", "delta must not import sinks/changelog"},
	} {
		found := violations([]pkg{{ImportPath: module + "/" + c.from, Imports: []string{"fmt", module + "/" + c.to}}})
		require.Contains(t, found, c.found)
	}
	for _, c := range []struct{ from, to string }{
		{"delta", "workflows"},
		{"delta", "delta/deltatype"},
		{"delta", "migrations"},
		{"cmd/delta", "internal/stack"},
		{"cmd/delta", "delta"},
		{"examples/modules", "delta/deltatest"},
		{"delta/deltatest", "internal/stack"},
		{"delta/deltatest", "delta"},
		{"delta/deltatest", "activities"},
		{"internal/bench", "delta/deltatest"},
		{"internal/stack", "internal/flock"},
		{"internal/testdb", "internal/stack"},
		{"examples/modules", "examples/modules/proxy"},
		{"cdc/wal", "cdc"},
		{"cdc/server", "internal/exposition"},
		{"cdc/server/v1", "internal/backoff"},
		{"delta", "internal/exposition"},
		{"internal/cdctest", "delta/deltatest"},
		{"bridge", "delta"},
		{"bridge", "cdc"},
		{"bridge", "messagedb"},
		{"bridge", "internal/backoff"},
		{"sinks", "cdc"},
		{"delta/console", "delta"},
		{"delta/console", "cdc"},
		{"delta/console", "messagedb"},
		{"delta/console", "internal/wording"},
		{"internal/localconsole", "delta/console"},
		{"examples/modules", "internal/localconsole"},
		{"sinks/changelog", "delta"},
		{"sinks/changelog", "sinks"},
		{"examples/modules", "bridge"},
	} {
		require.Empty(t, violations([]pkg{{ImportPath: module + "/" + c.from, Imports: []string{module + "/" + c.to}}}), "%v", c)
	}
}

// violations finds imports that the rules do not allow.
func violations(pkgs []pkg) (found []string) {
	for _, p := range pkgs {
		from, ours := ownPath(p.ImportPath)
		if !ours {
			continue
		}
		for _, imported := range p.Imports {
			to, ours := ownPath(imported)
			switch {
			case !ours:
			case slices.ContainsFunc(leaves, func(leaf string) bool { return within(from)(leaf) && within(to)(leaf) }):
			case slices.Contains(shared, from):
				found = append(found, fmt.Sprintf("%s is shared by all: it must not import %s", from, to))
			case slices.Contains(shared, to):
			case slices.ContainsFunc(leaves, within(from)):
				found = append(found, fmt.Sprintf("%s is a leaf: it must not import %s", from, to))
			case joining[from] != nil && !slices.Contains(joining[from], to):
				found = append(found, fmt.Sprintf("%s joins public packages: it must not import %s", from, to))
			case slices.Contains(testOnly, to) && !slices.ContainsFunc(mayImportTestOnly, within(from)):
				found = append(found, fmt.Sprintf("%s must not import %s, which is for tests", from, to))
			case rank(to) > rank(from), rank(to) == rank(from) && slices.Contains(layers, from):
				found = append(found, fmt.Sprintf("%s must not import %s", from, to))
			}
		}
	}
	return found
}

// rank returns the place of a package in the order of layers. Packages for tests and packages that no rule names stand beside the layers: all may
// import them, as far as the other rules allow, and they import no layer. A new package that imports one must be named here.
func rank(path string) int {
	if i := slices.Index(layers, path); i >= 0 {
		return i + 1
	}
	if joining[path] != nil {
		return len(layers) + 1
	}
	if slices.ContainsFunc([]string{"cmd", "examples", "internal/bench", "internal/cdctest", "internal/localconsole", "internal/release", "internal/stack/withcluster", "delta/deltatest"}, within(path)) {
		return len(layers) + 1
	}
	if slices.Contains(testOnly, path) {
		return 0
	}
	return -1
}

// within returns a function that reports whether path is a folder or in it.
func within(path string) func(folder string) bool {
	return func(folder string) bool { return path == folder || strings.HasPrefix(path, folder+"/") }
}

func ownPath(path string) (string, bool) {
	return strings.CutPrefix(path, module+"/")
}

// list reads all packages of the module and their dependencies from the go command.
func list(t *testing.T) []pkg {
	t.Helper()
	// Walk the files, so that go test does not use its cached result after they have changed.
	require.NoError(t, filepath.WalkDir("../..", func(path string, entry fs.DirEntry, err error) error {
		if entry != nil && entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && path != "../.." {
			return fs.SkipDir
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a temporary file
		}
		return err
	}))
	command := exec.CommandContext(t.Context(), "go", "list", "-deps", "-json=ImportPath,Standard,Imports,Deps", module+"/...")
	out, err := command.Output()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		t.Fatalf("go list: %v\n%s", err, exit.Stderr)
	}
	require.NoError(t, err)
	decoder := json.NewDecoder(strings.NewReader(string(out)))
	var pkgs []pkg
	for {
		var p pkg
		err := decoder.Decode(&p)
		if errors.Is(err, io.EOF) {
			return pkgs
		}
		require.NoError(t, err)
		pkgs = append(pkgs, p)
	}
}
