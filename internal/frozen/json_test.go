package frozen

import (
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/internal/soak"
)

// JSON whose types are not exported, or not promised: what the command prints with --json, what the servers answer, what is in histories and in columns. The
// tags of exported types are in the files of their packages.
func TestFieldsOfJSONAreTheRecordedOnes(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	watchFiles(t)
	var lines []string
	for _, folder := range append([]string{"sinks/cmd/delta-sink"}, Modules...) {
		for _, p := range list(t, folder) {
			path, _ := p.folder()
			if strings.HasPrefix(path, "examples/") || strings.HasPrefix(path, "internal/") {
				continue
			}
			for _, name := range p.GoFiles {
				file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
				require.NoError(t, err)
				for _, declared := range file.Decls {
					lines = append(lines, jsonFields(t, path, declared, p.isPublic())...)
				}
			}
		}
	}
	require.NotEmpty(t, lines)
	Check(t, recorded+"json.txt", lines)
}

// jsonFields returns the fields with a JSON name of the types that a declaration has, also of those within functions.
func jsonFields(t *testing.T, path string, declared ast.Decl, public bool) (lines []string) {
	ast.Inspect(declared, func(node ast.Node) bool {
		spec, ok := node.(*ast.TypeSpec)
		if !ok || (public && spec.Name.IsExported()) {
			return true
		}
		ast.Inspect(spec.Type, func(node ast.Node) bool {
			if field, ok := node.(*ast.Field); ok && field.Tag != nil {
				if line := jsonField(t, field); line != "" {
					lines = append(lines, path+" "+spec.Name.Name+" "+line)
				}
			}
			return true
		})
		return true
	})
	return lines
}

func jsonField(t *testing.T, field *ast.Field) string {
	tag, err := strconv.Unquote(field.Tag.Value)
	require.NoError(t, err)
	name := reflect.StructTag(tag).Get("json")
	if name == "" || name == "-" {
		return ""
	}
	var kind strings.Builder
	if _, ok := field.Type.(*ast.StructType); ok {
		kind.WriteString("struct")
	} else {
		require.NoError(t, printer.Fprint(&kind, token.NewFileSet(), field.Type))
	}
	return strconv.Quote(name) + " " + strings.Join(strings.Fields(kind.String()), " ")
}
