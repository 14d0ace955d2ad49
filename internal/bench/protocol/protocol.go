// Package protocol has the messages between `make bench` and the program of its peers: JSON, one value a line. It is shared so that both sides write objects
// of the same size, in pages of the same size, from the same number of goroutines.
//
// The peers are in the separate module internal/bench/peers, so that their dependencies are not in the module graph of users of Delta. This package imports
// only the standard library.
package protocol

import "time"

// Settings of both sides.
const (
	// PageSize is the number of objects or jobs in one call.
	PageSize = 1000
	// PagesAtOnce is the number of pages in flight at once.
	PagesAtOnce = 4
	// Callers is the number of goroutines that call at once, if each call is for one object.
	Callers = 32
)

// Hello is a peer's first line, when it is ready.
type Hello struct {
	// Version is the version of the peer's module.
	Version string `json:"version"`
	// Settings describes the peer's settings for readers of the figure.
	Settings string `json:"settings"`
}

// Order starts one turn.
type Order struct {
	Turn  int `json:"turn"`
	Count int `json:"count"`
}

// Answer is the result of one turn.
type Answer struct {
	Took time.Duration `json:"took"`
	// Error is why the turn failed; empty if it did not.
	Error string `json:"error,omitempty"`
}

// Item is the object of all measurements: some fields, some text.
type Item struct {
	Key     string `json:"key"`
	Name    string `json:"name"`
	Plan    string `json:"plan"`
	Seats   int    `json:"seats"`
	Active  bool   `json:"active"`
	Comment string `json:"comment"`
}

// NewItem returns an object. Versions of an object differ in one field.
func NewItem(id string, version int) Item {
	return Item{
		Key: id, Name: "Ada Lovelace " + id, Plan: "enterprise", Seats: version, Active: true,
		Comment: "the quick brown fox jumps over the lazy dog",
	}
}
