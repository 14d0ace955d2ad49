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

// filterFields are the fields of an address that choose resources.
var filterFields = []string{"kind", "id", "namespace", "state", "tag", "label", "error", "late"}

// errorsHiddenText refuses a search by errors: it could find, letter by letter, text that Redact hides.
const errorsHiddenText = "This console may hide errors (Redact), so it neither searches them nor sorts by them."

// allowedFilter parses a filter, and refuses one that this console does not allow.
func (h *handler) allowedFilter(asked url.Values) (delta.Filter, error) {
	if h.config.Redact != nil && asked.Get("error") != "" {
		return delta.Filter{}, errors.New(errorsHiddenText)
	}
	return parseFilter(asked)
}

// parseFilter returns the filter in the fields of an address or form.
func parseFilter(asked url.Values) (filter delta.Filter, err error) {
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

// filterValues returns the filter fields that are set.
func filterValues(asked url.Values) url.Values { return chosenFields(asked, filterFields) }

// chosenFields returns those of the named fields that are set.
func chosenFields(asked url.Values, names []string) url.Values {
	fields := url.Values{}
	for _, name := range names {
		if value := asked.Get(name); value != "" {
			fields.Set(name, value)
		}
	}
	return fields
}

// filterField is a field of a filter, as a page shows it.
type filterField struct{ Name, Value string }

// filterFieldList returns the filter fields that are set, in the order of the form.
func filterFieldList(asked url.Values) (all []filterField) {
	for _, name := range filterFields {
		if value := asked.Get(name); value != "" {
			all = append(all, filterField{name, value})
		}
	}
	return all
}

// refreshTrigger returns how often a part of a page is loaded again, given the time that reading it took: with the page open in one browser, its
// reads take at most a tenth of the time.
func refreshTrigger(took time.Duration) string {
	return "every " + strconv.FormatInt((2*time.Second+10*took).Milliseconds(), 10) + "ms"
}
