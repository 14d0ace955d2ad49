package db

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxObjectIDBytes is how long the id of an object may be.
const MaxObjectIDBytes = 512

// BrokenIDRule is the rule for ids of objects that an id breaks; empty where it breaks none.
func BrokenIDRule(id string) string {
	if id == "" {
		return "must not be empty"
	}
	return BrokenTextRule(id, MaxObjectIDBytes)
}

// BrokenTextRule is the rule that a text breaks by which resources are told apart, or grouped; empty where it breaks none.
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

// MayBeStored reports whether there may be a resource with an id, also one that breaks a rule: rows that were not written by an inform may have
// control characters in theirs.
func MayBeStored(id string) bool {
	return id != "" && len(id) <= MaxObjectIDBytes && utf8.ValidString(id) && !strings.ContainsRune(id, 0)
}
