package messagedb

import (
	"crypto/md5" //nolint:gosec // the server's hash_64 is made of md5; it protects nothing
	"encoding/binary"
	"math"
	"strings"
	"unicode/utf8"
)

const (
	// StreamNameSeparator stands between the category and the id of a stream name. Only the first one counts.
	StreamNameSeparator = "-"
	// CompoundSeparator stands between the parts of a compound id, and between the types of a category.
	CompoundSeparator = "+"
	// TypeSeparator stands between the entity of a category and its types.
	TypeSeparator = ":"
	// CorrelationKey is the metadata field that CategoryOptions.Correlation is compared with.
	CorrelationKey = "correlationStreamName"
	// MaxNameBytes is the longest name of a stream or category, in bytes of UTF-8. Postgres cannot index much longer ones.
	MaxNameBytes = 2600
	// MaxGroupSize is the largest size of a consumer group: the server counts members in 16 bits.
	MaxGroupSize = math.MaxInt16
)

// StreamName is the name of one stream, as account:command+position-b1c2+d3: a category, then an id after the first "-".
// Its methods agree with the server's functions for every string, also for those that [ParseStreamName] refuses.
type StreamName string

// NewStreamName builds the name of a stream from a category and its id: whole, as account and b1c2+d3, or in parts, of which the
// first is the cardinal id, as account, b1c2 and d3. It returns an [InvalidError] if the category is empty or has a "-", if
// there is no part, if a part is empty, if one of several parts has a "+", or if the name is longer than [MaxNameBytes].
func NewStreamName(category string, ids ...string) (StreamName, error) {
	if err := validCategory(FieldCategory, category); err != nil {
		return "", err
	}
	if len(ids) == 0 {
		return "", newInvalidError(FieldStreamID, "", "must not be empty")
	}
	for _, id := range ids {
		if id == "" {
			return "", newInvalidError(FieldStreamID, "", "must not be empty")
		}
		if len(ids) > 1 && strings.Contains(id, CompoundSeparator) {
			return "", newInvalidError(FieldStreamID, id, `must not contain "+", which separates the parts of an id, where it is one of several parts`)
		}
	}
	name := StreamName(category + StreamNameSeparator + strings.Join(ids, CompoundSeparator))
	return name, name.validate()
}

// NewCategory builds a category from an entity and types, as account:command+position. It returns an [InvalidError] if
// the entity is empty, if one of them has a "-" or a ":", or if a type is empty or has a "+".
func NewCategory(entity string, types ...string) (string, error) {
	if entity == "" {
		return "", newInvalidError(FieldCategory, entity, "must not be empty")
	}
	for _, part := range append([]string{entity}, types...) {
		if strings.ContainsAny(part, StreamNameSeparator+TypeSeparator) {
			return "", newInvalidError(FieldCategory, part, `an entity or type must not contain "-" or ":"`)
		}
	}
	for _, t := range types {
		if t == "" || strings.Contains(t, CompoundSeparator) {
			return "", newInvalidError(FieldCategory, t, `a type must not be empty or contain "+"`)
		}
	}
	category := entity
	if len(types) > 0 {
		category += TypeSeparator + strings.Join(types, CompoundSeparator)
	}
	return category, validCategory(FieldCategory, category)
}

// ParseStreamName checks that a string names a stream: a category and an id, neither of them empty, valid UTF-8 without
// NUL, at most [MaxNameBytes] long. It returns an [InvalidError] where it does not.
func ParseStreamName(s string) (StreamName, error) {
	name := StreamName(s)
	return name, name.validate()
}

// Category returns the part before the first "-": the whole name if there is none.
func (s StreamName) Category() string {
	category, _, _ := strings.Cut(string(s), StreamNameSeparator)
	return category
}

// ID returns the part after the first "-"; ok is false if there is none.
func (s StreamName) ID() (id string, ok bool) {
	_, id, ok = strings.Cut(string(s), StreamNameSeparator)
	return id, ok
}

// CardinalID is the id up to its first "+". Streams with one cardinal id are read by one member of a consumer group. ok is
// false if there is no id.
func (s StreamName) CardinalID() (id string, ok bool) {
	id, ok = s.ID()
	id, _, _ = strings.Cut(id, CompoundSeparator)
	return id, ok
}

// IDs are the parts of the id, nil if there is none.
func (s StreamName) IDs() []string {
	id, ok := s.ID()
	if !ok {
		return nil
	}
	return strings.Split(id, CompoundSeparator)
}

// IsCategory reports whether the name has no id.
func (s StreamName) IsCategory() bool {
	return !strings.Contains(string(s), StreamNameSeparator)
}

// Entity is the category without its types.
func (s StreamName) Entity() string {
	entity, _, _ := strings.Cut(s.Category(), TypeSeparator)
	return entity
}

// Types are the types of the category: command and position for account:command+position-1. Nil if there are none.
func (s StreamName) Types() []string {
	_, types, ok := strings.Cut(s.Category(), TypeSeparator)
	if !ok || types == "" {
		return nil
	}
	return strings.Split(types, CompoundSeparator)
}

// Member is the member of a consumer group of that size that reads the stream. ok is false if none does: the name has no
// id, or size is not between 1 and [MaxGroupSize].
func (s StreamName) Member(size int) (member int, ok bool) {
	id, ok := s.CardinalID()
	if !ok || size < 1 || size > MaxGroupSize {
		return 0, false
	}
	h := Hash64(id)
	if h == math.MinInt64 {
		return 0, false // the server cannot negate it, and fails
	}
	return int(max(h, -h) % int64(size)), true
}

// String is the name itself.
func (s StreamName) String() string { return string(s) }

// Hash64 is the server's hash_64: the first eight bytes of the md5, as a signed number. It places streams in consumer
// groups, and is the key of the advisory lock of a category.
func Hash64(value string) int64 {
	sum := md5.Sum([]byte(value))                  //nolint:gosec // see the import
	return int64(binary.BigEndian.Uint64(sum[:8])) //nolint:gosec // the sign bit is meant
}

// validate checks a name that is to have an id.
func (s StreamName) validate() error {
	if err := validName(FieldStream, string(s)); err != nil {
		return err
	}
	if s.Category() == "" {
		return newInvalidError(FieldCategory, s.String(), "a stream name must have a category before its first \"-\"")
	}
	if id, _ := s.ID(); id == "" {
		return newInvalidError(FieldStreamID, s.String(), "a stream name must have an id after its first \"-\"")
	}
	return nil
}

// withType adds a type to a category, as Message DB's consumers do for their position streams.
func withType(category, t string) string {
	if strings.Contains(category, TypeSeparator) {
		return category + CompoundSeparator + t
	}
	return category + TypeSeparator + t
}

func validCategory(field Field, category string) error {
	if err := validName(field, category); err != nil {
		return err
	}
	if strings.Contains(category, StreamNameSeparator) {
		return newInvalidError(field, category, `must not contain "-", which begins the id of a stream`)
	}
	return nil
}

func validName(field Field, name string) error {
	switch {
	case name == "":
		return newInvalidError(field, name, "must not be empty")
	case len(name) > MaxNameBytes:
		return newInvalidError(field, name[:60]+"…", "must not be longer than 2600 bytes")
	default:
		return validText(field, name)
	}
}

// validText checks for what Postgres cannot store in a text.
func validText(field Field, text string) error {
	switch {
	case strings.ContainsRune(text, 0):
		return newInvalidError(field, text, "must not contain a NUL byte")
	case !utf8.ValidString(text):
		return newInvalidError(field, text, "must be valid UTF-8")
	default:
		return nil
	}
}
