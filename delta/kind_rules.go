package delta

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"time"

	"github.com/chariot-giving/delta/activities"
)

const (
	maxParallelism         = 10_000
	maxBatchSize           = 10_000
	maxBatchWait           = time.Second
	minInformInterval      = time.Second // Temporal's
	defaultBatchWait       = 20 * time.Millisecond
	defaultInformOverlap   = 5 * time.Minute
	defaultMaxDeleted      = 10
	defaultMaxDeletedShare = 0.25
	defaultDegradedRetry   = time.Hour
)

// settingsOf returns the settings that a kind itself returns.
func settingsOf(object Object) (s ObjectSettings) {
	if with, ok := object.(ObjectWithSettings); ok {
		s = with.Settings()
	}
	return s
}

// withFallback returns s, with its zero fields taken from under.
func (s ObjectSettings) withFallback(under ObjectSettings) ObjectSettings {
	setFields(reflect.ValueOf(&under).Elem(), reflect.ValueOf(s))
	return under
}

// setFields copies the non-zero fields of a struct to another, and recursively those of structs in it.
func setFields(to, from reflect.Value) {
	for i := range from.NumField() {
		switch field := from.Field(i); {
		case field.Kind() == reflect.Struct:
			setFields(to.Field(i), field)
		case !field.IsZero():
			to.Field(i).Set(field)
		}
	}
}

const (
	// maxKeyConcurrency bounds the rows that Postgres counts for each lease. minKeyRate and maxKeyRate bound the rates that
	// Postgres can express as times.
	maxKeyConcurrency = 10_000
	minKeyRate        = 1e-5
	maxKeyRate        = 1e5
)

// keyLimits reports whether calls are limited by keys.
func (s ObjectSettings) keyLimits() activities.KeyLimits {
	return activities.KeyLimits{Limited: s.KeyConcurrency > 0 || s.KeyRate > 0, Rated: s.KeyRate > 0}
}

// withDefaults checks settings, and returns them with every field set.
func (s ObjectSettings) withDefaults() (ObjectSettings, error) {
	// Each is written so that NaN breaks it.
	for _, rule := range []struct {
		field string
		value any
		holds bool
		rule  string
	}{
		{"Parallelism", s.Parallelism, s.Parallelism >= 0 && s.Parallelism <= maxParallelism, fmt.Sprintf("must be between 1 and %d (or 0, for the default of 1)", maxParallelism)},
		{"BatchSize", s.BatchSize, s.BatchSize >= 0 && s.BatchSize <= maxBatchSize, fmt.Sprintf("must be between 0 and %d", maxBatchSize)},
		{"BatchWait", s.BatchWait, s.BatchWait <= maxBatchWait, fmt.Sprintf("must be at most %s", maxBatchWait)},
		{"MaxDeletedShare", s.MaxDeletedShare, s.MaxDeletedShare >= 0 && s.MaxDeletedShare <= 1, "must be between 0 and 1 (0 is the default of 0.25)"},
		{"RateLimit", s.RateLimit, s.RateLimit >= 0 && s.RateLimit <= math.MaxFloat64, "must be positive, or 0 for no limit"},
		{"KeyConcurrency", s.KeyConcurrency, s.KeyConcurrency >= 0 && s.KeyConcurrency <= maxKeyConcurrency, fmt.Sprintf("must be between 1 and %d, or 0 for no limit", maxKeyConcurrency)},
		{"KeyRate", s.KeyRate, s.KeyRate == 0 || (s.KeyRate >= minKeyRate && s.KeyRate <= maxKeyRate), fmt.Sprintf("must be between %g and %g, or 0 for no limit", minKeyRate, maxKeyRate)},
		{"HeartbeatTimeout", s.HeartbeatTimeout, s.HeartbeatTimeout == 0 || s.HeartbeatTimeout >= time.Second, "must be at least 1s (or 0, for the default of 10s)"},
		{"InformInterval", s.InformInterval, s.InformInterval <= 0 || s.InformInterval >= minInformInterval, "must be at least 1s, negative for never, or 0 for the client's"},
		{"FullListingInterval", s.FullListingInterval, s.FullListingInterval == 0 || s.FullListingInterval >= minInformInterval, "must be at least 1s, or 0 for never"},
		{"FullListingInterval", s.FullListingInterval, s.FullListingInterval == 0 || !s.CompleteListing, "must not be set together with CompleteListing, which lists everything each time"},
		{"RetryPolicy.InitialInterval", s.RetryPolicy.InitialInterval, s.RetryPolicy.InitialInterval >= 0, "must not be negative"},
		{"RetryPolicy.MaximumInterval", s.RetryPolicy.MaximumInterval, s.RetryPolicy.MaximumInterval >= 0, "must not be negative"},
		{"RetryPolicy.BackoffCoefficient", s.RetryPolicy.BackoffCoefficient, s.RetryPolicy.BackoffCoefficient == 0 || s.RetryPolicy.BackoffCoefficient >= 1, "must be at least 1 (or 0, for the default of 3)"},
	} {
		if !rule.holds {
			return s, inputError(rule.field, rule.value, "%s", rule.rule)
		}
		if d, ok := rule.value.(time.Duration); ok {
			if err := checkDuration(rule.field, d); err != nil {
				return s, err
			}
		}
	}
	if err := checkDuration("InformOverlap", s.InformOverlap); err != nil {
		return s, err
	}
	if err := checkDuration("DegradedRetryInterval", s.DegradedRetryInterval); err != nil {
		return s, err
	}
	if err := checkInterval("InformInterval", s.InformInterval); err != nil {
		return s, err
	}
	if err := checkInterval("FullListingInterval", s.FullListingInterval); err != nil {
		return s, err
	}
	if s.InformSchedule != nil {
		if s.InformInterval != 0 {
			return s, inputError("InformInterval", s.InformInterval, "must not be set together with InformSchedule")
		}
		spec, err := canonicalSpec("InformSchedule", *s.InformSchedule)
		if err != nil {
			return s, err
		}
		s.InformSchedule = spec
	}
	setDefault(&s.Parallelism, 1)
	setDefault(&s.BatchWait, defaultBatchWait)
	setDefault(&s.InformOverlap, defaultInformOverlap)
	setDefault(&s.DegradedRetryInterval, defaultDegradedRetry)
	setDefault(&s.MaxDeleted, defaultMaxDeleted)
	setDefault(&s.MaxDeletedShare, defaultMaxDeletedShare)
	s.InformOverlap = max(s.InformOverlap, 0)
	s.MaxDeleted = max(s.MaxDeleted, 0)
	return s, nil
}

// checkTouchedBy checks TouchedBy. hasParents reports whether objects of the kind may have parents.
func (s ObjectSettings) checkTouchedBy(hasParents bool) error {
	if len(s.TouchedBy) > 0 && !hasParents {
		return inputError("TouchedBy", s.TouchedBy, "must be empty: objects of the kind have no Parents (ObjectWithParents)")
	}
	for i, kind := range s.TouchedBy {
		if err := checkName("TouchedBy", kind); err != nil {
			return err
		}
		if slices.Contains(s.TouchedBy[:i], kind) {
			return inputError("TouchedBy", kind, "must name each kind once")
		}
	}
	return nil
}
