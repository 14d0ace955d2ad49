package deltatype_test

import (
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta/deltatype"
)

// fillValue sets each field, so that a field that Clone forgets or shares is noticed.
func fillValue(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fillValue(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fillValue(v.Index(0))
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64, reflect.Int32:
		v.SetInt(7)
	case reflect.Uint8:
		v.SetUint(7)
	default:
	}
}

func TestACloneIsEqualAndSharesNothing(t *testing.T) {
	t.Parallel()
	var row deltatype.ResourceRow
	v := reflect.ValueOf(&row).Elem()
	for i := range v.NumField() {
		fillValue(v.Field(i))
	}
	clone := row.Clone()
	require.Equal(t, &row, clone)
	c := reflect.ValueOf(clone).Elem()
	for i := range v.NumField() {
		if kind := v.Field(i).Kind(); kind == reflect.Pointer || kind == reflect.Slice {
			require.NotEqual(t, v.Field(i).Pointer(), c.Field(i).Pointer(), v.Type().Field(i).Name)
		}
	}
	require.Equal(t, &deltatype.ResourceRow{}, (&deltatype.ResourceRow{}).Clone())
}
