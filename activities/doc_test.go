// Package activities_test tests the activities on a real Postgres, and without Temporal where an activity needs none.
//
//   - main_test.go: harness is the activities of one kind on a database of its own. It calls them directly, and has
//     helpers that inform, attempt, claim and read resources.
//   - listing_test.go: harnesses with an informer. sharded_test.go: one that is listed shard by shard.
//   - claim_test.go: singleAndBatch runs a test for a single workflow and for a batch.
//   - pool_test.go: a pool that loses the answers of statements.
//
// Tests of unexported code are in package activities: *_internal_test.go, and those of calculations.
package activities_test
