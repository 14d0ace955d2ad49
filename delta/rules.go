package delta

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/chariot-giving/delta/db"
)

const (
	defaultMaxAttempts = 10
	maxNameBytes       = 127
	maxTagBytes        = 255
	maxKeyBytes        = 255
	// maxTaskQueueBytes is Temporal's bound on its ids.
	maxTaskQueueBytes = 1000
	// maxDuration bounds every duration of the user's, so that adding to it, or to a time, does not overflow.
	maxDuration = 100 * 365 * 24 * time.Hour
)

var tagRule = regexp.MustCompile(`\A[\w][\w\-]+[\w]\z`)

// InputError is returned for input that breaks a rule. Nothing was written.
type InputError struct {
	// Field names the input, such as "kind" or "tags[1]".
	Field string
	// Value is the given value, cut if it is long.
	Value string
	// Rule describes valid values.
	Rule string
}

// Error has the field, the value and the rule.
func (e *InputError) Error() string {
	return fmt.Sprintf("%s %s: %s", e.Field, e.Value, e.Rule)
}

// setLimit checks a limit, and sets the default for 0.
func setLimit(field string, limit *int, byDefault, most int) error {
	if *limit < 0 || *limit > most {
		return inputError(field, *limit, "must be between 1 and %d (or 0, for the default of %d)", most, byDefault)
	}
	setDefault(limit, byDefault)
	return nil
}

func inputError(field string, value any, rule string, args ...any) error {
	shown := fmt.Sprintf("%v", value)
	if s, ok := value.(string); ok {
		const most = 80
		if len(s) > most {
			shown = fmt.Sprintf("%q… (%d bytes)", strings.ToValidUTF8(s[:most], ""), len(s))
		} else {
			shown = fmt.Sprintf("%q", s)
		}
	}
	return &InputError{Field: field, Value: shown, Rule: fmt.Sprintf(rule, args...)}
}

// isName is the rule for kinds, namespaces and prefixes: they become parts of Temporal ids, which '/' and ':' separate.
func isName(s string) bool {
	for i, c := range []byte(s) {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_'
		if !letter && (i == 0 || c != '.' && c != '-') {
			return false
		}
	}
	return true
}

func checkName(field, value string) error {
	switch {
	case value == "":
		return inputError(field, value, "must not be empty")
	case len(value) > maxNameBytes:
		return inputError(field, value, "must be at most %d bytes", maxNameBytes)
	case !isName(value):
		return inputError(field, value, "must be letters, digits, '_', '-' and '.', and not start with '-' or '.'")
	}
	return nil
}

func checkObjectID(id string) error {
	if rule := db.BrokenIDRule(id); rule != "" {
		return inputError("object id", id, "%s", rule)
	}
	return nil
}

// checkKey checks a text by which objects are grouped; empty is none.
func checkKey(field, value string) error {
	if rule := db.BrokenTextRule(value, maxKeyBytes); rule != "" {
		return inputError(field, value, "%s", rule)
	}
	return nil
}

// checkText refuses text that no text in Postgres can equal.
func checkText(field, value string) error {
	switch {
	case !utf8.ValidString(value):
		return inputError(field, value, "must be valid UTF-8")
	case strings.Contains(value, "\x00"):
		return inputError(field, value, "must have no NUL character")
	}
	return nil
}

// checkRef is checkText for the name of a resource, which may break the rules for new names.
func checkRef(kind, objectID string) error {
	if err := checkText("kind", kind); err != nil {
		return err
	}
	return checkText("object id", objectID)
}

func checkTaskQueue(value string) error {
	if len(value) > maxTaskQueueBytes || !utf8.ValidString(value) || strings.ContainsFunc(value, unicode.IsControl) {
		return inputError("Config.TaskQueue", value, "must be valid UTF-8 without control characters, at most %d bytes", maxTaskQueueBytes)
	}
	return nil
}

// checkDuration refuses durations above maxDuration.
func checkDuration(field string, d time.Duration) error {
	if d > maxDuration {
		return inputError(field, d, "must be at most %s (100 years)", maxDuration)
	}
	return nil
}

// checkJSON refuses valid JSON that Postgres cannot store. The error does not show it, because errors of listings are
// stored, and objects may be encoded.
func checkJSON(field string, encoded []byte) error {
	shown := shownJSON(len(encoded))
	if !utf8.Valid(encoded) {
		return inputError(field, shown, "must be valid UTF-8")
	}
	for rest := encoded; ; {
		i := bytes.IndexByte(rest, '\\')
		if i < 0 {
			return nil
		}
		unit, isUnit := escapedUnit(rest[i:])
		switch {
		case !isUnit:
			rest = rest[i+2:]
			continue
		case unit == 0:
			return inputError(field, shown, `must have no NUL character (\u0000): Postgres cannot store it`)
		case utf16.IsSurrogate(unit):
			low, _ := escapedUnit(rest[i+6:])
			if utf16.DecodeRune(unit, low) == unicode.ReplacementChar {
				return inputError(field, shown, `must have no half of a surrogate pair (\u%04x): Postgres cannot store it`, unit)
			}
			i += 6
		}
		rest = rest[i+6:]
	}
}

// shownJSON is how an error shows JSON: by its size in bytes.
type shownJSON int

func (n shownJSON) String() string { return fmt.Sprintf("of %d bytes", int(n)) }

// escapedUnit parses an escaped UTF-16 unit at the beginning of a JSON text.
func escapedUnit(text []byte) (unit rune, is bool) {
	if !bytes.HasPrefix(text, []byte(`\u`)) {
		return 0, false
	}
	n, err := strconv.ParseUint(string(text[2:6]), 16, 16)
	return rune(n), err == nil
}

func checkInformOpts(o InformOpts) error {
	if o.Namespace != "" {
		if err := checkName("namespace", o.Namespace); err != nil {
			return err
		}
	}
	if o.MaxAttempts < 0 {
		return inputError("MaxAttempts", o.MaxAttempts, "must be at least 1 (or 0, for the default of %d)", defaultMaxAttempts)
	}
	if o.Priority < 0 || o.Priority > 5 {
		return inputError("Priority", o.Priority, "must be between 1 and 5 (or 0, for the default)")
	}
	if o.Metadata != nil {
		var object map[string]json.RawMessage
		if err := json.Unmarshal(o.Metadata, &object); err != nil || object == nil {
			return inputError("metadata", string(o.Metadata), "must be a JSON object")
		}
		if err := checkJSON("metadata", o.Metadata); err != nil {
			return err
		}
	}
	for i, tag := range o.Tags {
		if len(tag) > maxTagBytes || !tagRule.MatchString(tag) {
			return inputError(fmt.Sprintf("tags[%d]", i), tag, "must match %s and be at most %d bytes", tagRule, maxTagBytes)
		}
	}
	return nil
}
