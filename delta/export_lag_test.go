package delta

import "time"

// PreviousRun returns the latest run of a schedule up to t.
func PreviousRun(spec ScheduleSpec, t time.Time) (time.Time, error) {
	canonical, err := canonicalSpec("spec", spec)
	if err != nil {
		return time.Time{}, err
	}
	return previousRun(canonical, t), nil
}

// DueRun returns the latest run after which a kind with a calendar must have had a success by now.
func DueRun(spec ScheduleSpec, now time.Time) (time.Time, error) {
	canonical, err := canonicalSpec("spec", spec)
	if err != nil {
		return time.Time{}, err
	}
	return runTimes{spec: canonical}.latestDue(now), nil
}

// EncodedSpec returns a spec as it is stored in the row of its kind.
func EncodedSpec(spec ScheduleSpec) ([]byte, error) {
	canonical, err := canonicalSpec("spec", spec)
	if err != nil {
		return nil, err
	}
	return encodeSpec(canonical)
}
