// Package workflows decides: each workflow says what happens next and when, and leaves all input and output to the
// activities.
//
// The code here is frozen code. It is replayed against the histories of workflows that have been running for weeks, so
// it must make the same calls in the same order for ever: what must change goes behind workflow.GetVersion, names and
// JSON fields are never renamed, and the recorded histories in testdata must replay.
//
// It is importable because Delta's other packages need it. It is not part of the public API.
package workflows
