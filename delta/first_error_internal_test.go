package delta

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
)

// Input with several faults names the same one each time: the first by the order of the fields, and in a map the first by its key.
func TestTheFirstFaultIsNamed(t *testing.T) {
	t.Parallel()
	const bad, long = "\xff", 200 * 365 * 24 * time.Hour
	controllers := &Controllers{byKind: map[string]registered{"thing": {}}}
	calendars := []client.ScheduleCalendarSpec{{Hour: []client.ScheduleRange{{Start: 99}}}}
	for want, check := range map[string]func() error{
		"Config.WorkerVersion.Deployment ": func() error { return WorkerVersion{Deployment: bad, BuildID: bad}.validate() },
		"Kinds ": func() error {
			return Filter{Kinds: []string{bad}, ObjectIDs: []string{bad}, Namespaces: []string{bad}, Tags: []string{bad}, Error: bad}.validate()
		},
		`Labels "a\xff"`: func() error {
			return Filter{Labels: map[string]string{"a" + bad: "", "b" + bad: "", "c" + bad: ""}}.validate()
		},
		`Config.Namespaces["a"].MaxWorkers `: func() error {
			return Config{Controllers: controllers, Namespaces: map[string]NamespaceConfig{"a": {MaxWorkers: -1}, "b": {MaxWorkers: -1}, "c": {MaxWorkers: -1}}}.validate()
		},
		"field.SyncedResourceRetentionPeriod ": func() error {
			return NamespaceConfig{SyncedResourceRetentionPeriod: long, DegradedResourceRetentionPeriod: long, DeletedResourceRetentionPeriod: long}.validate("field")
		},
		"InformOverlap ": func() error {
			_, err := ObjectSettings{InformOverlap: long, DegradedRetryInterval: long}.withDefaults()
			return err
		},
		"field.Calendars[0].": func() error {
			_, err := canonicalSpec("field", client.ScheduleSpec{Calendars: calendars, Skip: calendars})
			return err
		},
	} {
		for range 100 { // the order of a map is another one each time
			require.ErrorContains(t, check(), want)
		}
	}
}
