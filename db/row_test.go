package db

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta/deltatype"
)

// publicNames has the fields that are called otherwise in the public type.
var publicNames = map[string]string{"Object": "EncodedObject", "Kind": "ObjectKind"}

// ownColumns are of slots of limit keys, of the log of changes, of touches, and of indexes: IsDeleted and Trouble are in State.
var ownColumns = map[string]bool{
	"SlotKey": true, "SlotUntil": true, "QueuedAt": true, "ChangeXid": true, "SyncedObject": true, "RevivedGeneration": true, "TouchedHash": true, "IsDeleted": true,
	"Trouble": true,
}

func TestEveryColumnOfAResourceReachesThePublicRow(t *testing.T) {
	t.Parallel()
	var resource Resource
	fillFields(t, &resource)
	row, err := resource.Row()
	require.NoError(t, err)

	from, to := reflect.ValueOf(resource), reflect.ValueOf(*row)
	for i := range from.NumField() {
		name := from.Type().Field(i).Name
		// Nobody but its execution has use for a claim's id, nobody but a listing for a transaction's, and nobody but the context of Work for what an
		// inform carries. Client.LimitKey shows the slots, and Client.ResourceChanges the log of changes.
		if name == "Errors" || name == "Claim" || name == "WrittenBy" || name == "InformedBy" || name == "Carrier" || ownColumns[name] {
			continue
		}
		public := name
		if other, ok := publicNames[name]; ok {
			public = other
		}
		field := to.FieldByName(public)
		require.True(t, field.IsValid(), "db.Resource.%s has no field %s in the public row", name, public)
		require.Equal(t, plainValue(from.Field(i)), plainValue(field), "db.Resource.%s", name)
	}
	for i := range to.NumField() {
		require.False(t, to.Field(i).IsZero(), "ResourceRow.%s is not filled in", to.Type().Field(i).Name)
	}
}

func TestEveryFieldOfAnErrorReachesThePublicRow(t *testing.T) {
	t.Parallel()
	row, err := (&Resource{Errors: [][]byte{
		[]byte(`{"at":"2026-05-06T12:08:09.123456+05:00","attempt":3,"error":"boom","trace":"main.go:1"}`),
		[]byte(`{"at":"2026-05-06T07:08:09Z","attempt":4,"error":"lost"}`),
	}}).Row()
	require.NoError(t, err)
	require.Equal(t, []deltatype.AttemptError{
		{At: time.Date(2026, 5, 6, 7, 8, 9, 123456000, time.UTC), Attempt: 3, Error: "boom", Trace: "main.go:1"},
		{At: time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC), Attempt: 4, Error: "lost"},
	}, row.Errors)
}

func TestTimesOfThePublicRowAreInUTC(t *testing.T) {
	t.Parallel()
	var resource Resource
	fillFields(t, &resource)
	require.NotEqual(t, time.UTC, resource.CreatedAt.Location(), "the test is to start from another zone")
	row, err := resource.Row()
	require.NoError(t, err)

	times := 0
	eachTime(reflect.ValueOf(*row), func(at time.Time) {
		times++
		require.Equal(t, time.UTC, at.Location())
	})
	require.Equal(t, 10, times, "nine columns and one error have times")
}

func TestWhatIsNullStaysNil(t *testing.T) {
	t.Parallel()
	row, err := (&Resource{}).Row()
	require.NoError(t, err)
	require.Equal(t, &deltatype.ResourceRow{CreatedAt: time.Time{}.UTC(), GenerationAt: time.Time{}.UTC()}, row)
}

func TestAnErrorThatDoesNotDecodeIsNamed(t *testing.T) {
	t.Parallel()
	_, err := (&Resource{Kind: "account", ObjectID: "ann", Errors: [][]byte{[]byte(`{}`), []byte(`{"attempt":"x"}`)}}).Row()
	require.ErrorContains(t, err, "account/ann: errors[2]")
}

func TestEveryColumnOfAnInformReachesTheResource(t *testing.T) {
	t.Parallel()
	var informed InformResourceRow
	fillFields(t, &informed)
	resource := informed.toResource()
	resource.Hash, resource.Object = []byte("hash"), []byte("object") // these columns are not returned but sent

	from, to := reflect.ValueOf(informed), reflect.ValueOf(resource)
	for i := range to.NumField() {
		name := to.Type().Field(i).Name
		if ownColumns[name] || name == "Carrier" {
			continue // an inform leaves them, or has given it
		}
		require.False(t, to.Field(i).IsZero(), "Resource.%s is not filled in", name)
		if of := from.FieldByName(name); of.IsValid() {
			require.Equal(t, of.Interface(), to.Field(i).Interface(), "Resource.%s", name)
		}
	}
}

// fillFields gives every field of a struct a value of its own that is not zero; times are in another zone than UTC.
func fillFields(t *testing.T, structure any) {
	t.Helper()
	zone := time.FixedZone("test", 5*3600)
	v := reflect.ValueOf(structure).Elem()
	for i := range v.NumField() {
		n := i + 1
		at := time.Date(2026, 1, n, 1, 2, 3, 0, zone)
		text := fmt.Sprintf("text %d", n)
		var value any
		switch f := v.Field(i); f.Interface().(type) {
		case int64:
			value = int64(n)
		case *int64:
			n := int64(n)
			value = &n
		case uint64:
			value = uint64(n)
		case *uint64:
			n := uint64(n)
			value = &n
		case int32:
			value = int32(n)
		case int16:
			value = int16(n)
		case bool:
			value = true
		case string:
			value = text
		case *string:
			value = &text
		case time.Time:
			value = at
		case *time.Time:
			value = &at
		case []byte:
			value = []byte(text)
		case []string:
			value = []string{text, "more"}
		case [][]byte:
			value = [][]byte{fmt.Appendf(nil, `{"at":%q,"attempt":%d,"error":"e","trace":"t"}`, at.Format(time.RFC3339Nano), n)}
		case *bool:
			is := true
			value = &is
		case *deltatype.Cause:
			cause := deltatype.CauseHopeless
			value = &cause
		case *deltatype.ResourceState:
			state := deltatype.ResourceStateFailed
			value = &state
		case deltatype.ResourceState:
			value = deltatype.ResourceStateFailed
		default:
			t.Fatalf("%s.%s: no value for %s: extend this test", v.Type(), v.Type().Field(i).Name, f.Type())
		}
		v.Field(i).Set(reflect.ValueOf(value))
	}
}

// plainValue makes a value comparable across the two types: pointers are followed, integers widened, times in UTC.
func plainValue(v reflect.Value) any {
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return nil
		}
		v = v.Elem()
	}
	switch is := v.Interface().(type) {
	case time.Time:
		return is.UTC()
	case []deltatype.Ref:
		all := make([]string, len(is))
		for i, ref := range is {
			all[i] = strings.TrimSuffix(ref.String(), "/") // what a test fills in has none
		}
		return all
	}
	if v.CanInt() {
		return v.Int()
	}
	return v.Interface()
}

// eachTime calls a function for every time in a value.
func eachTime(v reflect.Value, do func(time.Time)) {
	if at, ok := v.Interface().(time.Time); ok {
		do(at)
		return
	}
	switch v.Kind() { //nolint:exhaustive // the others hold no times
	case reflect.Pointer:
		if !v.IsNil() {
			eachTime(v.Elem(), do)
		}
	case reflect.Slice:
		for i := range v.Len() {
			eachTime(v.Index(i), do)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			eachTime(v.Field(i), do)
		}
	}
}

func TestTextArraysKeepTheirValues(t *testing.T) {
	t.Parallel()
	require.Equal(t, `{}`, arrayLiteral(nil))
	require.Equal(t, `{"a","NULL","with \"quotes\"","back\\slash",""}`,
		arrayLiteral([]string{"a", "NULL", `with "quotes"`, `back\slash`, ""}))
	require.Equal(t, `{"`+strings.Repeat("x", 300)+`"}`, arrayLiteral([]string{strings.Repeat("x", 300)}))
}
