package delta

import (
	"encoding/json"
	"fmt"
	"reflect"
	"time"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/internal/wording"
)

// SettingOrigin is where a setting of a kind comes from.
type SettingOrigin string

// The origins of settings, the strongest first.
const (
	// SettingOfConfig is one that [Config].Kinds sets.
	SettingOfConfig SettingOrigin = "config"
	// SettingOfKind is one that the kind's own Settings returns.
	SettingOfKind SettingOrigin = "kind"
	// SettingOfClient is one that the kind leaves to the client, such as InformInterval to [Config].ResourceInformInterval.
	SettingOfClient SettingOrigin = "client"
	// SettingOfDefault is one that nobody has set.
	SettingOfDefault SettingOrigin = "default"
)

// Setting is one of the settings of a kind that are in force in a client.
type Setting struct {
	// Name is the field of [ObjectSettings], such as "RetryPolicy.MaximumInterval".
	Name string
	// Value is its value as text: durations as "1h30m", structs as JSON, and "-" for none.
	Value string
	// Origin is where it comes from.
	Origin SettingOrigin
}

// KindSettings returns the settings of a kind that are in force in this client, in the order of [ObjectSettings]. Other
// clients may have others. It returns [ErrNotFound] if this client has no controller of the kind.
func (c *Client) KindSettings(kind string) ([]Setting, error) {
	found, ok := c.config.Controllers.findKind(kind)
	if !ok {
		return nil, fmt.Errorf("delta: settings of kind %s: this client has no controller of it: %w", kind, ErrNotFound)
	}
	// The users of these settings fill in their defaults.
	inForce := found.settings
	inForce.RetryPolicy = inForce.RetryPolicy.WithDefaults()
	setDefault(&inForce.HeartbeatTimeout, activities.HeartbeatTimeout)
	var all []Setting
	addSettings(&all, "", reflect.ValueOf(inForce), reflect.ValueOf(found.own), reflect.ValueOf(c.config.Kinds[kind]))
	for i := range all {
		if all[i].Name == "InformInterval" && found.settings.InformInterval == 0 && found.settings.InformSchedule == nil {
			all[i].Value, all[i].Origin = settingText(reflect.ValueOf(c.config.ResourceInformInterval)), SettingOfClient
		}
	}
	return all, nil
}

// addSettings adds the fields of settings, each with its origin.
func addSettings(all *[]Setting, within string, inForce, own, configured reflect.Value) {
	for i := range inForce.NumField() {
		name := within + inForce.Type().Field(i).Name
		if inForce.Field(i).Kind() == reflect.Struct {
			addSettings(all, name+".", inForce.Field(i), own.Field(i), configured.Field(i))
			continue
		}
		origin := SettingOfDefault
		switch {
		case !configured.Field(i).IsZero():
			origin = SettingOfConfig
		case !own.Field(i).IsZero():
			origin = SettingOfKind
		}
		*all = append(*all, Setting{name, settingText(inForce.Field(i)), origin})
	}
}

// settingText formats a value for people.
func settingText(value reflect.Value) string {
	switch v := value.Interface().(type) {
	case time.Duration:
		switch {
		case v < 0:
			return "never"
		case v == 0:
			return "-"
		}
		return wording.Interval(v)
	case *ScheduleSpec:
		if v == nil {
			return "-"
		}
		text, err := json.Marshal(v)
		if err != nil {
			return fmt.Sprint(v)
		}
		return string(text)
	default:
		return fmt.Sprint(v)
	}
}
