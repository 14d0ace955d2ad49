package console

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
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

// The forms of commands: whatever a page of another site sends, a browser is redirected to pages of the console only.
func FuzzForm(f *testing.F) {
	f.Add("command=retry&kind=user&id=a&back=kind")
	f.Add("kind=//evil.example&back=kind&state=synced")
	f.Add("kind=%00&back=doctor&count=-1;x")
	f.Fuzz(func(t *testing.T, body string) {
		r := httptest.NewRequest(http.MethodPost, "/command", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Body = http.MaxBytesReader(httptest.NewRecorder(), r.Body, maxFormBytes)
		kind, id := r.PostFormValue("kind"), r.PostFormValue("id")
		_, _ = parseFilter(r.PostForm)
		_ = filterFieldList(r.PostForm)
		for _, address := range []string{
			backAddress(r.PostFormValue("back"), kind), kindAddress(kind), resourceAddress(kind, id), resourcesAddress + "?" + filterValues(r.PostForm).Encode(),
		} {
			if to, err := url.Parse(address); err != nil || to.IsAbs() || to.Host != "" || strings.HasPrefix(address, "/") {
				t.Fatalf("%q: %q: %v", body, address, err)
			}
		}
	})
}
