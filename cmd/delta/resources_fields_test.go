package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta/deltatype"
)

// fillField gives a value to a field of a row, or to all of a struct.
func fillField(t *testing.T, v reflect.Value, n int) {
	t.Helper()
	switch to := v.Addr().Interface().(type) {
	case *time.Time:
		*to = time.Date(2026, 11, 21, 12, n, 0, 0, time.UTC)
		return
	case *[]byte:
		*to = fmt.Appendf(nil, `{"field":%d}`, n)
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(fmt.Sprintf("text-%d", n))
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(1000 + n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fillField(t, v.Elem(), n)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fillField(t, v.Index(0), n)
	case reflect.Struct:
		for i := range v.NumField() {
			fillField(t, v.Field(i), n+i)
		}
	default:
		require.Fail(t, "a field of another type", "%s", v.Type())
	}
}

// A change of a field changes both outputs, if both show it.
func TestGetShowsEveryFieldOfARow(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	table := func(r *deltatype.ResourceRow) string {
		var out bytes.Buffer
		c := &cli{streams: streams{out: &out}}
		require.NoError(t, c.printResource(r, nil, nil, now))
		return out.String()
	}
	encoded := func(r *deltatype.ResourceRow) string {
		text, err := json.Marshal(toResourceJSON(r))
		require.NoError(t, err)
		return string(text)
	}
	var row deltatype.ResourceRow
	fillField(t, reflect.ValueOf(&row).Elem(), 0)
	row.State = deltatype.ResourceStateDeleted // so that Cause and Finalized are shown
	differs := func(name string, changed *deltatype.ResourceRow) {
		t.Helper()
		require.NotEqual(t, table(&row), table(changed), "%s is not in the table", name)
		require.NotEqual(t, encoded(&row), encoded(changed), "%s is not in JSON", name)
	}
	of := reflect.TypeFor[deltatype.ResourceRow]()
	for i := range of.NumField() {
		changed := row.Clone()
		field := reflect.ValueOf(changed).Elem().Field(i)
		_, isRaw := field.Interface().([]byte)
		switch {
		case isRaw:
			field.SetBytes([]byte(`{"other":true}`))
		case field.Kind() == reflect.Bool, field.Kind() == reflect.Slice, field.Type() == reflect.TypeFor[*bool]():
			field.SetZero()
		default:
			fillField(t, field, 900+i)
		}
		differs(of.Field(i).Name, changed)
	}
	of = reflect.TypeFor[deltatype.AttemptError]()
	for i := range of.NumField() {
		changed := row.Clone()
		fillField(t, reflect.ValueOf(&changed.Errors[0]).Elem().Field(i), 900+i)
		differs("Errors[0]."+of.Field(i).Name, changed)
	}
}
