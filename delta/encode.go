package delta

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/chariot-giving/delta/delta/deltatype"
)

const (
	defaultMaxAttempts = 10
	maxNameBytes       = 127
	maxObjectIDBytes   = 512
	maxTagBytes        = 255
)

var tagRule = regexp.MustCompile(`\A[\w][\w\-]+[\w]\z`)

// InputError is returned for input that breaks a rule. Nothing was written.
type InputError struct {
	// Field says what is wrong, such as "kind" or "tags[1]".
	Field string
	// Value is what was given, cut if it is long.
	Value string
	// Rule says what it must be.
	Rule string
}

// Error names the field, the value and the rule.
func (e *InputError) Error() string {
	return fmt.Sprintf("%s %s: %s", e.Field, e.Value, e.Rule)
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

// isName is the rule for kinds, namespaces and prefixes: they become parts of Temporal ids, and '/' and ':' divide those.
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
	switch {
	case id == "":
		return inputError("object id", id, "must not be empty")
	case len(id) > maxObjectIDBytes:
		return inputError("object id", id, "must be at most %d bytes", maxObjectIDBytes)
	case !utf8.ValidString(id):
		return inputError("object id", id, "must be valid UTF-8")
	case strings.ContainsFunc(id, unicode.IsControl):
		return inputError("object id", id, "must have no control characters")
	}
	return nil
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
		if hasNUL(o.Metadata) {
			return inputError("metadata", string(o.Metadata), `must have no NUL character (\u0000): Postgres cannot store it`)
		}
	}
	for i, tag := range o.Tags {
		if len(tag) > maxTagBytes || !tagRule.MatchString(tag) {
			return inputError(fmt.Sprintf("tags[%d]", i), tag, "must match %s and be at most %d bytes", tagRule, maxTagBytes)
		}
	}
	return nil
}

// identify asks an object who it is. A panic of its methods is an error.
func identify(object Object) (kind, id string, err error) {
	defer recovered(object, &err)
	if object == nil {
		return "", "", inputError("object", "nil", "must not be nil")
	}
	kind, id = object.Kind(), object.ID()
	if err := checkName("kind", kind); err != nil {
		return "", "", err
	}
	if err := checkObjectID(id); err != nil {
		return "", "", fmt.Errorf("kind %s: %w", kind, err)
	}
	return kind, id, nil
}

// recovered, deferred, makes an error of a panic of an object's methods.
func recovered(object Object, err *error) {
	if v := recover(); v != nil {
		*err = fmt.Errorf("object of type %T: its methods panic: %v", object, v)
	}
}

// encode turns an object and its options into what is written. Panics of the object's methods become errors.
func encode(object Object, opts *InformOpts) (params deltatype.ObjectInformParams, err error) {
	defer recovered(object, &err)
	kind, id, err := identify(object)
	if err != nil {
		return params, err
	}

	var merged InformOpts
	if opts != nil {
		merged = *opts
	}
	if with, ok := object.(ObjectWithInformOpts); ok {
		merged = merged.over(with.InformOpts())
	}
	if err := checkInformOpts(merged); err != nil {
		return params, fmt.Errorf("%s/%s: %w", kind, id, err)
	}

	encoded, err := json.Marshal(object)
	if err != nil {
		return params, fmt.Errorf("%s/%s: the object does not marshal to JSON: %w", kind, id, err)
	}
	if hasNUL(encoded) {
		return params, fmt.Errorf("%s/%s: %w", kind, id,
			inputError("object", string(encoded), `must have no NUL character (\u0000): Postgres cannot store it`))
	}
	hash, err := hashJSON(encoded)
	if err != nil {
		return params, fmt.Errorf("%s/%s: the object's JSON: %w", kind, id, err)
	}
	params = deltatype.ObjectInformParams{
		ResourceID:    id,
		Kind:          kind,
		Namespace:     merged.Namespace,
		EncodedObject: encoded,
		Hash:          hash,
		Metadata:      merged.Metadata,
		Tags:          merged.Tags,
		MaxAttempts:   merged.MaxAttempts,
		Priority:      merged.Priority,
	}
	if with, ok := object.(ObjectWithCreatedAt); ok {
		if at := with.CreatedAt(); !at.IsZero() {
			params.CreatedAt = &at
		}
	}
	return params, nil
}

// canonical is RFC 8785, except that numbers count as they are written: two large integers, or long decimals, that are the
// same as double precision are still told apart. What Postgres may refuse is for Postgres to refuse.
var canonical = []jsontext.Options{
	jsontext.CanonicalizeRawInts(false),
	jsontext.CanonicalizeRawFloats(false),
	jsontext.AllowDuplicateNames(true),
	jsontext.AllowInvalidUTF8(true),
}

// hashJSON identifies the content of a JSON text: the order of members, white space and escapes do not matter.
func hashJSON(encoded []byte) ([]byte, error) {
	value := jsontext.Value(bytes.Clone(encoded))
	if err := value.Canonicalize(canonical...); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(value)
	return sum[:], nil
}

// hasNUL tells whether a JSON text holds the escape of NUL, as against an escaped backslash before "u0000".
func hasNUL(encoded []byte) bool {
	for rest := encoded; ; {
		i := bytes.Index(rest, []byte(`\u0000`))
		if i < 0 {
			return false
		}
		backslashes := 0
		for j := i - 1; j >= 0 && rest[j] == '\\'; j-- {
			backslashes++
		}
		if backslashes%2 == 0 {
			return true
		}
		rest = rest[i+1:]
	}
}
