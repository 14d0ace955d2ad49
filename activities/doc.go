// Package activities does all of Delta's input and output on behalf of its workflows: it claims attempts, calls the
// user's controllers through [Handler], and writes what came of it.
//
// It is importable because Delta's other packages need it. It is not part of the public API: it may change in any
// release, except for the registered names and the JSON of the inputs and results, which live in Temporal histories.
package activities
