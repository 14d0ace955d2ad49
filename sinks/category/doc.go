// Package category has a category of Message DB be a source of sinks, and a sink: its messages are delivered to another system, and those of other sources become
// messages of a category, at least once and in the order of each stream.
package category
