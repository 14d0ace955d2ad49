package delta

import "time"

// PreviousRun is the latest time, until t, at which a schedule runs.
func PreviousRun(spec ScheduleSpec, t time.Time) (time.Time, error) {
	canonical, err := canonicalSpec("spec", spec)
	if err != nil {
		return time.Time{}, err
	}
	return previousRun(canonical, t), nil
}

// DueRun is the latest time by which there must have been a success since, of a kind with a calendar.
func DueRun(spec ScheduleSpec, now time.Time) (time.Time, error) {
	canonical, err := canonicalSpec("spec", spec)
	if err != nil {
		return time.Time{}, err
	}
	return runTimes{spec: canonical}.latestDue(now), nil
}

// EncodedSpec is a spec as the row of its kind has it.
func EncodedSpec(spec ScheduleSpec) ([]byte, error) {
	canonical, err := canonicalSpec("spec", spec)
	if err != nil {
		return nil, err
	}
	return encodeSpec(canonical)
}
