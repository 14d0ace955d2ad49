package frozen

import (
	"encoding/json"
	"errors"
	"go/importer"
	"go/token"
	"go/types"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/internal/soak"
)

const (
	module     = "github.com/chariot-giving/delta"
	repository = "../../"
	recorded   = repository + "api/"
)

// unpromised packages can be imported, and change with any release, as their package comments say.
var unpromised = []string{"db", "workflows", "activities"}

// listed is the output of go list for a package.
type listed struct {
	ImportPath, Name, Dir, Export string
	GoFiles                       []string
}

// folder returns where a package of this repository is in it.
func (l listed) folder() (string, bool) {
	folder, ours := strings.CutPrefix(l.ImportPath, module+"/")
	return folder, ours
}

// isPublic reports whether the exported names of a package are promised.
func (l listed) isPublic() bool {
	folder, ours := l.folder()
	return ours && l.Name != "main" && !slices.Contains(unpromised, folder) &&
		!slices.Contains(strings.Split(folder, "/"), "internal") && !strings.HasPrefix(folder, "examples/")
}

// list asks the go command for the packages of a module, with their compiled types if deps is set.
func list(t *testing.T, folder string, arguments ...string) (all []listed) {
	t.Helper()
	command := exec.CommandContext(t.Context(), "go", append([]string{"list", "-json=ImportPath,Name,Dir,Export,GoFiles"}, append(arguments, "./...")...)...)
	command.Dir = repository + folder
	out, err := command.Output()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		t.Fatalf("go list: %v\n%s", err, exit.Stderr)
	}
	require.NoError(t, err)
	decoder := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var one listed
		err := decoder.Decode(&one)
		if errors.Is(err, io.EOF) {
			return all
		}
		require.NoError(t, err)
		all = append(all, one)
	}
}

// watchFiles has go test forget its cached result when a file of the repository changes.
func watchFiles(t *testing.T) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(repository, func(path string, entry fs.DirEntry, err error) error {
		if entry != nil && entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && path != repository {
			return fs.SkipDir
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a temporary file
		}
		return err
	}))
}

// Every exported name of every package that users import, with its type: api has a file for each package.
func TestTheExportedAPIIsTheRecordedOne(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	watchFiles(t)
	var files []string
	for _, folder := range Modules {
		packages := list(t, folder, "-export", "-deps")
		exports := map[string]string{}
		for _, p := range packages {
			exports[p.ImportPath] = p.Export
		}
		compiled := importer.ForCompiler(token.NewFileSet(), "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })
		for _, p := range packages {
			path, _ := p.folder()
			if !p.isPublic() || folder == "." != !slices.ContainsFunc(Modules[1:], func(m string) bool { return m == path || strings.HasPrefix(path, m+"/") }) {
				continue
			}
			loaded, err := compiled.Import(p.ImportPath)
			require.NoError(t, err)
			file := recorded + path + ".txt"
			files = append(files, file)
			if *freeze {
				require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
			}
			t.Run(path, func(t *testing.T) { Check(t, file, describePackage(loaded)) })
		}
	}
	require.Contains(t, files, recorded+"delta.txt")
	require.ElementsMatch(t, files, recordedPackages(t), "a package of api is not there any more, or is no package")
}

// others are the files of api that are not about a package.
var others = []string{"command", "json", "metrics", "schema", "temporal"}

func recordedPackages(t *testing.T) (files []string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(recorded, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && !slices.Contains(others, strings.TrimSuffix(strings.TrimPrefix(filepath.ToSlash(path), recorded), ".txt")) {
			files = append(files, filepath.ToSlash(path))
		}
		return err
	}))
	return files
}

// describePackage returns a line for each exported name of a package, each exported field and each exported method.
func describePackage(p *types.Package) (lines []string) {
	d := describer{p}
	for _, name := range p.Scope().Names() {
		object := p.Scope().Lookup(name)
		if !object.Exported() {
			continue
		}
		switch o := object.(type) {
		case *types.Const:
			lines = append(lines, "const "+name+" "+d.typeOf(o.Type())+" = "+o.Val().ExactString())
		case *types.Var:
			lines = append(lines, "var "+name+" "+d.typeOf(o.Type()))
		case *types.Func:
			lines = append(lines, "func "+name+d.signature(o.Signature()))
		case *types.TypeName:
			lines = append(lines, d.typeName(o)...)
		}
	}
	return lines
}
