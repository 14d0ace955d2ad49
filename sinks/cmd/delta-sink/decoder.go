package main

import (
	"cmp"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// fileError has all problems of a file, a line for each.
type fileError struct {
	file     string
	problems []problem
}

// problem is about a field, such as relays[0].sink.webhook.url, at a line of the file. Either may be unknown.
type problem struct {
	line        int
	field, text string
}

func (e *fileError) Error() string {
	lines := make([]string, len(e.problems))
	for i, p := range e.problems {
		lines[i] = e.file + ":"
		if p.line > 0 {
			lines[i] += strconv.Itoa(p.line) + ":"
		}
		if p.field != "" {
			lines[i] += " " + p.field + ":"
		}
		lines[i] += " " + p.text
	}
	return strings.Join(lines, "\n")
}

// secret is a text that no error and no log may show. It may also be in a separate file: {file: PATH}.
type secret string

// decoder reads nodes of YAML into structs with yaml tags, and notes the line of each field. The package's own decoder reports the lines of
// unknown fields only, and the rules that follow need the lines of all.
type decoder struct {
	lines    map[string]int
	problems []problem
}

// addProblem adds a problem of a field, at the line of the field or of the section around it.
func (d *decoder) addProblem(field, format string, args ...any) {
	line, at := 0, field
	for line == 0 && at != "" {
		line = d.lines[at]
		at = at[:max(0, strings.LastIndexAny(at, ".["))]
	}
	if line == 0 {
		line = d.lines[""]
	}
	d.problems = append(d.problems, problem{line, field, fmt.Sprintf(format, args...)})
}

// toError returns all problems, in the order of the file, nil if there are none.
func (d *decoder) toError(file string) error {
	if len(d.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(d.problems, func(a, b problem) int { return cmp.Compare(a.line, b.line) })
	return &fileError{file, d.problems}
}

var (
	durationType = reflect.TypeFor[time.Duration]()
	secretType   = reflect.TypeFor[secret]()
)

func (d *decoder) decodeNode(node *yaml.Node, into reflect.Value, field string) {
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	if _, known := d.lines[field]; !known {
		d.lines[field] = node.Line
	}
	if into.Kind() == reflect.Pointer {
		into.Set(reflect.New(into.Type().Elem()))
		into = into.Elem()
	}
	if into.Kind() == reflect.Struct && node.Tag == "!!null" {
		return // a section without fields: its required fields are missing
	}
	switch {
	case into.Type() == secretType && node.Kind == yaml.MappingNode:
		into.SetString(d.readSecret(node, field))
	case into.Type() == durationType:
		if text, ok := d.decodeText(node, field); ok {
			duration, err := time.ParseDuration(text)
			if err != nil || duration < 0 {
				d.addProblem(field, "must be a duration, such as 100ms, 30s or 5m, and is %q", text)
			}
			into.SetInt(int64(duration))
		}
	case into.Kind() == reflect.String:
		if text, ok := d.decodeText(node, field); ok {
			into.SetString(text)
		}
	case into.Kind() == reflect.Bool:
		var value bool
		if node.Kind != yaml.ScalarNode || node.Decode(&value) != nil {
			d.addProblem(field, "must be true or false")
		}
		into.SetBool(value)
	case into.Kind() == reflect.Int:
		var value int
		if node.Kind != yaml.ScalarNode || node.Tag != "!!int" || node.Decode(&value) != nil {
			d.addProblem(field, "must be a whole number")
		}
		into.SetInt(int64(value))
	case into.Kind() == reflect.Slice:
		d.decodeList(node, into, field)
	case into.Kind() == reflect.Map:
		d.decodeMap(node, into, field)
	default:
		d.decodeSection(node, into, field)
	}
}

func (d *decoder) decodeList(node *yaml.Node, into reflect.Value, field string) {
	if node.Kind != yaml.SequenceNode {
		d.addProblem(field, "must be a list")
		return
	}
	into.Set(reflect.MakeSlice(into.Type(), len(node.Content), len(node.Content)))
	for i, item := range node.Content {
		d.decodeNode(item, into.Index(i), fmt.Sprintf("%s[%d]", field, i))
	}
}

func (d *decoder) decodeMap(node *yaml.Node, into reflect.Value, field string) {
	into.Set(reflect.MakeMap(into.Type()))
	d.eachMember(node, field, func(name string, value *yaml.Node, at string) {
		item := reflect.New(into.Type().Elem()).Elem()
		d.decodeNode(value, item, at)
		into.SetMapIndex(reflect.ValueOf(name), item)
	})
}

// decodeSection reads a mapping into a struct, and refuses unknown fields.
func (d *decoder) decodeSection(node *yaml.Node, into reflect.Value, field string) {
	fields, names := map[string]int{}, []string{}
	for i := range into.NumField() {
		if name := into.Type().Field(i).Tag.Get("yaml"); name != "" {
			fields[name] = i
			names = append(names, name)
		}
	}
	d.eachMember(node, field, func(name string, value *yaml.Node, at string) {
		i, known := fields[name]
		if !known {
			d.addProblem(at, "is unknown: there are %s", strings.Join(names, ", "))
			return
		}
		d.decodeNode(value, into.Field(i), at)
	})
}

func (d *decoder) eachMember(node *yaml.Node, field string, each func(name string, value *yaml.Node, at string)) {
	if node.Kind != yaml.MappingNode {
		d.addProblem(field, "must be fields with their values")
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key := node.Content[i]
		at := strings.TrimPrefix(field+"."+key.Value, ".")
		if seen[key.Value] {
			d.problems = append(d.problems, problem{key.Line, at, "is there twice"})
			continue
		}
		seen[key.Value] = true
		d.lines[at] = key.Line
		each(key.Value, node.Content[i+1], at)
	}
}

// variablePattern matches a reference to an environment variable.
var variablePattern = regexp.MustCompile(`^\$\{([A-Za-z_][A-Za-z0-9_]*)\}$`)

// decodeText returns the text of a scalar. ${NAME} is replaced by the environment variable. It must be the whole value, because a part that
// is missing or has special characters would change the meaning of the rest.
func (d *decoder) decodeText(node *yaml.Node, field string) (string, bool) {
	if node.Kind != yaml.ScalarNode || node.Tag == "!!null" {
		d.addProblem(field, "must be a text")
		return "", false
	}
	name := variablePattern.FindStringSubmatch(node.Value)
	if name == nil {
		if strings.Contains(node.Value, "${") {
			d.addProblem(field, "${NAME} must be the whole value")
			return "", false
		}
		return node.Value, true
	}
	value, found := os.LookupEnv(name[1])
	if !found {
		d.addProblem(field, "the environment variable %s is not set", name[1])
	}
	return value, found
}

// readSecret reads {file: PATH}. It removes a line break at the end, which editors add.
func (d *decoder) readSecret(node *yaml.Node, field string) string {
	var where struct {
		File string `yaml:"file"`
	}
	before := len(d.problems)
	d.decodeSection(node, reflect.ValueOf(&where).Elem(), field)
	if len(d.problems) > before {
		return ""
	}
	content, err := os.ReadFile(where.File)
	if err != nil {
		d.addProblem(field+".file", "%s", err)
		return ""
	}
	return strings.TrimRight(string(content), "\r\n")
}
