// Package workflows is not part of Delta's public API, and semantic versioning does not cover it: it can be imported
// only because Delta's other packages need it, and may change in any release.
//
// A workflow decides what happens next and when. It leaves all input and output to package activities.
//
// The code is replayed against histories of workflows that have run for weeks, so it must make the same calls in the
// same order in every later release. Put changes behind workflow.GetVersion. Registered names and JSON fields never
// change after the first release. The recorded histories in testdata must replay.
//
//   - resource.go: Resource, the workflow of one resource. commands.go has its signals, its query and its details.
//   - batch.go: Batch, the workflow of many resources.
//   - inform.go: Inform, one run of an informer. shards.go lists a kind shard by shard, inform_details.go describes
//     a run.
//   - source.go: Source, which feeds a kind for as long as its client runs.
//   - calls.go: each activity with its types, timeouts and retries.
//   - register.go and id.go: registration, and ids of workflows.
package workflows
