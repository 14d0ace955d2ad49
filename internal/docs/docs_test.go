// Package docs has tests that check the documents against the code.
package docs

import (
	"bufio"
	"context"
	"flag"
	"go/ast"
	"go/doc/comment"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/internal/soak"
	"github.com/chariot-giving/delta/internal/stack"
)

var update = flag.Bool("update", false, "write the examples into the documents")

const root = "../.."

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, file))
	require.NoError(t, err)
	return string(b)
}

func documents(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(root + "/*.md")
	require.NoError(t, err)
	more, err := filepath.Glob(root + "/docs/*.md")
	require.NoError(t, err)
	for i, f := range append(files, more...) {
		rel, err := filepath.Rel(root, f)
		require.NoError(t, err)
		if i < len(files) {
			files[i] = rel
		} else {
			more[i-len(files)] = rel
		}
	}
	return append(files, more...)
}

// A comment that names a Go file is followed by the text of that file, or, if it also names functions, by their declarations, or by the body of an example.
var included = regexp.MustCompile("(?s)<!-- (\\S+\\.go)((?: \\w+)*) -->\n```go\n(.*?)```")

// declared returns the text of functions of a file, or of an example its body.
func declared(t *testing.T, file string, names []string) string {
	t.Helper()
	source := read(t, file)
	set := token.NewFileSet()
	parsed, err := parser.ParseFile(set, file, source, parser.ParseComments)
	require.NoError(t, err)
	var texts []string
	for _, name := range names {
		before := len(texts)
		for _, d := range parsed.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Name.Name != name {
				continue
			}
			from, to := f.Pos(), f.End()
			if strings.HasPrefix(name, "Example") {
				from, to = f.Body.Lbrace+2, f.Body.Rbrace
			}
			text := source[set.Position(from).Offset:set.Position(to).Offset]
			if strings.HasPrefix(name, "Example") {
				text = strings.ReplaceAll("\n"+text, "\n\t", "\n")[1:]
			}
			texts = append(texts, strings.TrimSpace(text)+"\n")
		}
		require.Greater(t, len(texts), before, "%s has no function %s", file, name)
	}
	return strings.Join(texts, "\n")
}

func TestExamplesInDocumentsAreTheFilesThatCompile(t *testing.T) {
	found := 0
	for _, doc := range documents(t) {
		text := read(t, doc)
		for _, m := range included.FindAllStringSubmatch(text, -1) {
			found++
			var want string
			if names := strings.Fields(m[2]); len(names) > 0 {
				want = declared(t, m[1], names)
			} else {
				want = read(t, m[1])
			}
			if *update {
				text = strings.Replace(text, m[0], "<!-- "+m[1]+m[2]+" -->\n```go\n"+want+"```", 1)
				continue
			}
			require.Equal(t, want, m[3], "%s: go test ./internal/docs -update", doc)
		}
		if *update {
			require.NoError(t, os.WriteFile(filepath.Join(root, doc), []byte(text), 0o644))
		}
	}
	require.Positive(t, found)
}

var fenced = regexp.MustCompile("(?s)```.*?```")

var link = regexp.MustCompile(`\]\(([^)#]+)(#[^)]*)?\)`)

func TestLinksLeadSomewhere(t *testing.T) {
	for _, doc := range documents(t) {
		prose := fenced.ReplaceAllString(read(t, doc), "")
		for _, m := range link.FindAllStringSubmatch(prose, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			_, err := os.Stat(filepath.Join(root, filepath.Dir(doc), m[1]))
			require.NoError(t, err, "%s links to %s", doc, m[1])
		}
	}
}

var address = regexp.MustCompile(`[\w.+-]+@[\w-]+\.[a-z]+`)

// Ids are in logs and in Temporal, and readers copy examples.
func TestExamplesHaveNoEMailAddresses(t *testing.T) {
	files := append(documents(t), "delta/example_test.go", "examples/quickstart/main.go")
	commands, err := filepath.Glob(root + "/cmd/delta/resources*.go")
	require.NoError(t, err)
	require.NotEmpty(t, commands)
	for _, command := range commands {
		files = append(files, "cmd/delta/"+filepath.Base(command))
	}
	for _, file := range files {
		require.Empty(t, address.FindAllString(read(t, file), -1), file)
	}
}

func TestMakeTargetsInDocumentsExist(t *testing.T) {
	targets := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^([a-z-]+):`).FindAllStringSubmatch(read(t, "Makefile"), -1) {
		targets[m[1]] = true
	}
	for _, doc := range documents(t) {
		for _, m := range regexp.MustCompile("(?m)(?:`|^)make ([a-z-]+)").FindAllStringSubmatch(read(t, doc), -1) {
			require.True(t, targets[m[1]], "%s names make %s", doc, m[1])
		}
	}
}

// The module internal/deployment validates the whole file.
func TestComposeHasThePortsAndCredentialsOfTheEmbeddedStack(t *testing.T) {
	var compose struct {
		Services map[string]struct {
			Command     any
			Environment map[string]string
			Ports       []string
		}
	}
	require.NoError(t, yaml.Unmarshal([]byte(read(t, "docker-compose.yml")), &compose))
	postgres := compose.Services["postgres"]
	require.Contains(t, postgres.Command, "wal_level=logical")
	require.Equal(t, []string{"127.0.0.1:" + strconv.Itoa(stack.DefaultPostgresPort) + ":5432"}, postgres.Ports)
	require.Equal(t, map[string]string{"POSTGRES_USER": "delta", "POSTGRES_PASSWORD": "password", "POSTGRES_DB": "delta"}, postgres.Environment)
	require.Equal(t, []string{"127.0.0.1:" + strconv.Itoa(stack.DefaultTemporalPort) + ":7233"}, compose.Services["temporal"].Ports)
	require.Equal(t, []string{"127.0.0.1:" + strconv.Itoa(stack.DefaultUIPort) + ":8080"}, compose.Services["temporal-ui"].Ports)
}

func TestTheQuickstartRunsAsWritten(t *testing.T) {
	soak.Long(t)
	env := deltatest.New(t)
	t.Cleanup(func() {
		// The program uses the default prefix, like a reader's, on a server that tests share.
		schedules := env.Temporal.ScheduleClient()
		for _, id := range []string{"delta/installation:do-not-resume-or-delete", "delta/inform:user"} {
			_ = schedules.GetHandle(context.Background(), id).Delete(context.Background())
		}
		for _, id := range []string{"usr_3kd81mQa7Lp", "usr_8fT2xw0VbRc", "usr_c5Nq7Jd1eYk"} {
			_ = env.Temporal.TerminateWorkflow(context.Background(), "delta/user/"+id, "", "the test is over")
		}
	})

	binary := filepath.Join(t.TempDir(), "quickstart")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "./examples/quickstart")
	build.Dir = root
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)

	cmd := exec.CommandContext(t.Context(), binary)
	cmd.Env = append(os.Environ(), "DELTA_DATABASE_URL="+env.DatabaseURL, "TEMPORAL_ADDRESS="+env.TemporalAddress)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	cmd.Stderr = os.Stderr
	require.NoError(t, cmd.Start())
	timer := time.AfterFunc(5*time.Minute, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()

	synced := map[string]bool{}
	for lines := bufio.NewScanner(stdout); len(synced) < 3 && lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "{") {
			t.Log(lines.Text()) // a line of Delta's log, such as that Temporal was busy
			continue
		}
		synced[lines.Text()] = true
	}
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	require.NoError(t, cmd.Wait(), "Ctrl-C ends it in order")
	require.Equal(t, map[string]bool{
		"synced usr_3kd81mQa7Lp (Ann), attempt 1": true,
		"synced usr_8fT2xw0VbRc (Bob), attempt 1": true,
		"synced usr_c5Nq7Jd1eYk (Eve), attempt 1": true,
	}, synced)
}

// A file of this repository in a map, with the name of what to look at in it.
var mapped = regexp.MustCompile("`([a-z][\\w/-]*/[\\w/.-]+\\.(?:go|sql))`(?: \\(`(\\w+)`)?")

func TestMapsNameFilesAndFunctionsThatExist(t *testing.T) {
	named := 0
	for _, doc := range documents(t) {
		if doc == "CHANGELOG.md" {
			continue // it names files as they were
		}
		for _, m := range mapped.FindAllStringSubmatch(read(t, doc), -1) {
			named++
			if !assert.FileExists(t, filepath.Join(root, m[1]), "%s names it", doc) || m[2] == "" {
				continue
			}
			source, err := os.ReadFile(filepath.Join(root, m[1]))
			require.NoError(t, err)
			assert.Regexp(t, `(?m)^(func|type|var|const|-- name:)[^\n]*\b`+m[2]+`\b`, string(source), "%s: %s of %s", doc, m[2], m[1])
		}
	}
	require.Greater(t, named, 50)
}

// The packages that users import.
var frontPages = []string{"delta", "delta/deltatest", "delta/console", "cdc", "messagedb", "bridge", "sinks"}

// The documentation of a package begins with code, and that code is part of an example, which compiles.
func TestFrontPagesBeginWithCodeThatCompiles(t *testing.T) {
	for _, dir := range frontPages {
		parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, dir, "doc.go"), nil, parser.ParseComments|parser.PackageClauseOnly)
		require.NoError(t, err)
		blocks := new(comment.Parser).Parse(parsed.Doc.Text()).Content
		first := slices.IndexFunc(blocks, isCode)
		require.True(t, first == 1 || first == 2, "%s: code comes after a paragraph or two", dir)

		examples, err := filepath.Glob(filepath.Join(root, dir, "*example*_test.go"))
		require.NoError(t, err)
		for _, block := range blocks[first:] {
			code, ok := block.(*comment.Code)
			if !ok {
				if _, isHeading := block.(*comment.Heading); isHeading {
					break
				}
				continue
			}
			if !strings.Contains(code.Text, "(") || strings.Contains(code.Text, "►") {
				continue // a drawing
			}
			assert.True(t, slices.ContainsFunc(examples, func(file string) bool {
				source, err := os.ReadFile(file)
				require.NoError(t, err)
				return hasLines(string(source), code.Text)
			}), "%s: no example has these lines, in this order:\n%s", dir, code.Text)
		}
	}
}

func isCode(block comment.Block) bool {
	_, ok := block.(*comment.Code)
	return ok
}

// hasLines reports whether a source has all lines of a text in their order, with others between them, indented or aligned in any way.
func hasLines(source, text string) bool {
	lines := strings.Split(source, "\n")
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		at := slices.IndexFunc(lines, func(l string) bool { return slices.Equal(strings.Fields(l), words) })
		if at < 0 {
			return false
		}
		lines = lines[at+1:]
	}
	return true
}
