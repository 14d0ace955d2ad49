package console

import (
	"errors"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// filterFields are the fields of addresses that choose resources.
var filterFields = []string{"kind", "id", "namespace", "state", "tag", "label", "error", "late"}

// errorsHidden refuses a search: it could find out, letter by letter, what Redact hides.
const errorsHidden = "Errors may be hidden in this console (Redact), so they are not searched, and resources are not sorted by them."

// filterOf is filterOf of this console.
func (h *handler) filterOf(asked url.Values) (delta.Filter, error) {
	if h.config.Redact != nil && asked.Get("error") != "" {
		return delta.Filter{}, errors.New(errorsHidden)
	}
	return filterOf(asked)
}

// filterOf is the filter that the fields of an address, or of a form, ask for.
func filterOf(asked url.Values) (filter delta.Filter, err error) {
	for name, field := range map[string]*[]string{"kind": &filter.Kinds, "id": &filter.ObjectIDs, "namespace": &filter.Namespaces, "tag": &filter.Tags} {
		if value := asked.Get(name); value != "" {
			*field = []string{value}
		}
	}
	if state := asked.Get("state"); state != "" {
		filter.States = []deltatype.ResourceState{deltatype.ResourceState(state)}
	}
	if label := asked.Get("label"); label != "" {
		name, value, found := strings.Cut(label, "=")
		if !found {
			return filter, errors.New("A label is a name and a value, such as tenant=acme.") //nolint:revive // it is a sentence of a page
		}
		filter.Labels = map[string]string{name: value}
	}
	filter.Error, filter.Late = asked.Get("error"), asked.Get("late") != ""
	return filter, nil
}

// fieldsOf are those of them that are set.
func fieldsOf(asked url.Values) url.Values { return chosenFields(asked, filterFields) }

// chosenFields are those of some fields of an address that are set.
func chosenFields(asked url.Values, names []string) url.Values {
	fields := url.Values{}
	for _, name := range names {
		if value := asked.Get(name); value != "" {
			fields.Set(name, value)
		}
	}
	return fields
}

// field is one of them, for a page.
type field struct{ Name, Value string }

// fieldList are those that are set, in the order of the form.
func fieldList(asked url.Values) (all []field) {
	for _, name := range filterFields {
		if value := asked.Get(name); value != "" {
			all = append(all, field{name, value})
		}
	}
	return all
}

// liveEvery is how often a part of a page is loaded again that took so long to read: such pages cost the database a tenth of the time at most, with
// the page open in one browser.
func liveEvery(took time.Duration) string {
	return "every " + strconv.FormatInt((2*time.Second+10*took).Milliseconds(), 10) + "ms"
}
