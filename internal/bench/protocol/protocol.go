// Package protocol is what `make bench` and the program of its peers say to each other: JSON, a value a line. It is shared so that both
// sides write objects of the same size, in pages of the same size, from as many goroutines.
//
// The peers are in a module of their own, internal/bench/peers: what they depend on would otherwise be in the module graph of everybody
// who uses Delta. This package imports the standard library only.
package protocol

import "time"

// What both sides do alike.
const (
	// PageSize is how many objects or jobs are written by one call.
	PageSize = 1000
	// PagesAtOnce is how many pages are under way at once.
	PagesAtOnce = 4
	// Callers is how many goroutines call at once, where each call is for one object.
	Callers = 32
)

// Hello is a peer's first line: it is ready.
type Hello struct {
	// Version is that of the peer's module.
	Version string `json:"version"`
	// Settings are how it was set up, in words, for those who read the figure.
	Settings string `json:"settings"`
}

// Order asks for one turn.
type Order struct {
	Turn  int `json:"turn"`
	Count int `json:"count"`
}

// Answer is how one turn went.
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

// NewItem makes an object. Another version of it differs in one field.
func NewItem(id string, version int) Item {
	return Item{
		Key: id, Name: "Ada Lovelace " + id, Plan: "enterprise", Seats: version, Active: true,
		Comment: "the quick brown fox jumps over the lazy dog",
	}
}
