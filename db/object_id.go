package db

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxObjectIDBytes is the longest id of an object.
const MaxObjectIDBytes = 512

// BrokenIDRule returns the rule for object ids that an id breaks; empty where it breaks none.
func BrokenIDRule(id string) string {
	if id == "" {
		return "must not be empty"
	}
	return BrokenTextRule(id, MaxObjectIDBytes)
}

// BrokenTextRule returns the rule that a text breaks which distinguishes or groups resources; empty where it breaks
// none.
func BrokenTextRule(text string, maxBytes int) string {
	switch {
	case len(text) > maxBytes:
		return fmt.Sprintf("must be at most %d bytes", maxBytes)
	case !utf8.ValidString(text):
		return "must be valid UTF-8"
	case strings.ContainsFunc(text, unicode.IsControl):
		return "must have no control characters"
	}
	return ""
}

// MayBeStored reports whether a resource with this id may exist. The id may break a rule, because rows that no inform
// wrote may have control characters in theirs.
func MayBeStored(id string) bool {
	return id != "" && len(id) <= MaxObjectIDBytes && utf8.ValidString(id) && !strings.ContainsRune(id, 0)
}
