package delta_test

import (
	"time"

	"go.temporal.io/sdk/client"

	"github.com/chariot-giving/delta/delta"
)

// Invoices come in the morning of each working day, but not on New Year's Day.
func (i Invoice) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{
		InformSchedule: &delta.ScheduleSpec{
			CronExpressions: []string{"*/15 6-8 * * MON-FRI"},
			TimeZoneName:    "Europe/Berlin",
			Skip: []client.ScheduleCalendarSpec{{ // its minutes and hours are 0 unless they are said
				Month: []client.ScheduleRange{{Start: 1}}, DayOfMonth: []client.ScheduleRange{{Start: 1}},
				Hour: []client.ScheduleRange{{Start: 6, End: 8}}, Minute: []client.ScheduleRange{{Start: 0, End: 59}},
			}},
		},
		FullListingInterval: 24 * time.Hour,
	}
}

var _ delta.ObjectWithSettings = Invoice{}
