package workflows_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/internal/frozen"
	"github.com/chariot-giving/delta/workflows"
)

// registrations notes what is registered.
type registrations struct {
	t     *testing.T
	lines []string
}

func (r *registrations) RegisterWorkflowWithOptions(w any, options workflow.RegisterOptions) {
	r.describe("workflow", options.Name, w)
}

func (r *registrations) RegisterActivityWithOptions(a any, options activity.RegisterOptions) {
	r.describe("activity", options.Name, a)
}

// describe has the JSON of a registered function's input and result.
func (r *registrations) describe(what, name string, function any) {
	signature := reflect.TypeOf(function)
	r.lines = append(r.lines, what+" "+name)
	for i := 1; i < signature.NumIn(); i++ { // the first is a context
		r.encode(fmt.Sprintf("%s %s input", what, name), signature.In(i))
	}
	for i := range signature.NumOut() - 1 { // the last is an error
		r.encode(fmt.Sprintf("%s %s result", what, name), signature.Out(i))
	}
}

// encode has a line for each JSON value of a type: of its zero value, and of one that has all fields.
func (r *registrations) encode(where string, of reflect.Type) {
	full := reflect.New(of).Elem()
	fill(full, 6)
	for name, value := range map[string]any{"zero": reflect.Zero(of).Interface(), "full": full.Interface()} {
		encoded, err := json.Marshal(value)
		require.NoError(r.t, err, where)
		decoder := json.NewDecoder(bytes.NewReader(encoded))
		decoder.UseNumber()
		var decoded any
		require.NoError(r.t, decoder.Decode(&decoded))
		r.flatten(where+" "+name, decoded)
	}
}

func (r *registrations) flatten(path string, value any) {
	switch v := value.(type) {
	case map[string]any:
		for key, inner := range v {
			r.flatten(path+"."+key, inner)
		}
	case []any:
		for _, inner := range v {
			r.flatten(path+"[]", inner)
		}
	default:
		encoded, err := json.Marshal(v)
		require.NoError(r.t, err)
		r.lines = append(r.lines, path+" = "+string(encoded))
	}
}

// fill gives each exported field a value that is not zero.
func fill(v reflect.Value, depth int) {
	switch {
	case depth == 0 || !v.CanSet():
		return
	case v.Type() == reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(time.Date(2026, 1, 2, 3, 4, 5, 678000000, time.UTC)))
		return
	case v.Type() == reflect.TypeFor[json.RawMessage]():
		v.SetBytes([]byte(`{"raw":1}`))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString("text")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(1)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(1)
	case reflect.Float32, reflect.Float64:
		v.SetFloat(1.5)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), depth-1)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), depth-1)
	case reflect.Map:
		key, element := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key, depth-1)
		fill(element, depth-1)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, element)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), depth-1)
		}
	default: // an interface, or nothing that JSON has
	}
}

// Histories hold the names of workflows, activities, signals, queries and search attributes, and the JSON of what goes in and out. A later release has to know
// all of them.
func TestWhatHistoriesHoldIsTheRecorded(t *testing.T) {
	t.Parallel()
	r := &registrations{t: t}
	workflows.Kinds{}.RegisterResource(r)
	workflows.RegisterInform(r, workflow.VersioningBehaviorAutoUpgrade)
	activities.Kinds{}.RegisterResource(r)
	activities.Kinds{}.RegisterInform(r)
	r.lines = append(r.lines, "signal "+workflows.WakeSignal, "query "+workflows.StateQuery)
	for _, command := range activities.Commands() {
		r.lines = append(r.lines, "signal "+string(command))
	}
	for _, attribute := range []temporal.SearchAttributeKeyKeyword{workflows.KindAttribute, workflows.NamespaceAttribute, workflows.StateAttribute} {
		r.lines = append(r.lines, fmt.Sprintf("search attribute %s %s", attribute.GetName(), attribute.GetValueType()))
	}
	r.lines = append(r.lines,
		"id of a workflow "+workflows.ShortenID(workflows.EscapeID("prefix/kind/a b~é"), workflows.MaxID),
		"id of a workflow "+workflows.ShortenID("prefix/kind/long", 40), "id of a workflow, shortened "+workflows.ShortenID("prefix/kind/0123456789012345678901234567890123456789", 40))
	frozen.Check(t, "../api/temporal.txt", r.lines)
}
