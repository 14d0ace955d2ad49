// Package workflows_test tests the workflows in Temporal's test environment, and replays recorded histories.
//
//   - main_test.go: play runs a workflow against scenes: each is an expected call of an activity, and its answer.
//   - replay_test.go: replays the histories in testdata with the current code.
//   - recorder_test.go and record_*_test.go: record these histories on a real Temporal, with the flag -record.
package workflows_test
