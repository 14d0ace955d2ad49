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
	switch {
	case id == "":
		return "must not be empty"
	case len(id) > MaxObjectIDBytes:
		return fmt.Sprintf("must be at most %d bytes", MaxObjectIDBytes)
	case !utf8.ValidString(id):
		return "must be valid UTF-8"
	case strings.ContainsFunc(id, unicode.IsControl):
		return "must have no control characters"
	}
	return ""
}

// MayBeStored reports whether there may be a resource with an id, also one that breaks a rule: rows that were not written by an inform may have
// control characters in theirs.
func MayBeStored(id string) bool {
	return id != "" && len(id) <= MaxObjectIDBytes && utf8.ValidString(id) && !strings.ContainsRune(id, 0)
}
