package console

import (
	"net/url"
	"reflect"
	"testing"
)

func FuzzAddress(f *testing.F) {
	for _, query := range []string{"", "kind=user&id=a&state=synced&late=1", "label=a%3Db%3Dc", "label=a", "error=%00", "kind=%ff&event=synced", "event=bogus"} {
		f.Add(query)
	}
	f.Fuzz(func(t *testing.T, text string) {
		asked, err := url.ParseQuery(text)
		if err != nil {
			return
		}
		if filter, err := parseFilter(asked); err == nil {
			// The fields that pages carry on choose the same.
			if again, err := parseFilter(filterValues(asked)); err != nil || !reflect.DeepEqual(again, filter) {
				t.Fatalf("%q: %+v is not %+v: %v", text, again, filter, err)
			}
		}
		if tail, ok := tailFilterOf(asked); ok {
			_ = tail.isMatch(&tailEntry{})
		}
	})
}
